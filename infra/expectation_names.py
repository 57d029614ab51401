"""The expectations that a recipe may name, and the columns that they read, without importing Great Expectations.

Besides the library's own there are those of `CUSTOM`: each reads the column given here unless it is told another one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra.errors import ExpectationError

Expectations = Sequence[Mapping[str, Mapping[str, Any]]]
"""As in a recipe: `[{"expect_column_values_to_be_unique": {"column": "digest"}}, ...]`."""


@dataclass(frozen=True)
class Custom:
    """An expectation of our own, whose class stands in `infra.custom_expectations`."""

    column: str
    """The column of facts that it reads."""
    says: str
    """What Data Docs say of it."""


CUSTOM: dict[str, Custom] = {
    # on rows
    "expect_token_length_to_be_between": Custom("tokens", "Number of tokens"),
    "expect_language_to_be_in_set": Custom("language", "Language of the text"),
    "expect_text_to_be_intact": Custom("encoding_errors", "Share of characters that are U+FFFD, controls or mojibake"),
    "expect_roles_to_alternate": Custom("roles_alternate", "User and assistant take turns"),
    "expect_prompt_to_differ_from_completion": Custom("prompt_differs", "The completion does not repeat the prompt"),
    "expect_chosen_to_differ_from_rejected": Custom("chosen_differs", "The chosen answer is not the rejected one"),
    "expect_images_to_be_intact": Custom("image_intact", "The whole picture decodes"),
    "expect_audio_to_be_intact": Custom("audio_intact", "The whole recording decodes"),
    "expect_no_train_heldout_leakage": Custom("leaks", "Nothing stands in both the training and the held-out rows"),
    # on the table
    "expect_duplicate_ratio_to_be_between": Custom("digest", "Share of rows whose content was there before"),
    "expect_pii_ratio_to_be_between": Custom("has_pii", "Share of rows with personal identifiers"),
    "expect_class_shares_to_be_between": Custom("label", "Share of rows of each class"),
    "expect_group_shares_to_be_between": Custom("group", "Share of rows of each group"),
}


def names() -> tuple[str, ...]:
    """The expectations there are, in alphabetical order, without the seconds that importing them takes."""
    spec = find_spec("great_expectations")
    if spec is None or spec.origin is None:
        raise ExpectationError(
            "expectations",
            found="great_expectations is not installed",
            expected="the package great-expectations",
            remedy="run `pip install -c constraints.txt great-expectations`",
        )
    package = Path(spec.origin).parent / "expectations"
    exported = re.findall(r"\bExpect\w+", (package / "__init__.py").read_text(encoding="utf-8"))
    lower = {name.lower() for name in exported}
    stems = (path.stem for path in (package / "core").glob("expect_*.py"))
    return tuple(sorted({*CUSTOM, *(stem for stem in stems if stem.replace("_", "") in lower)}))


def check_names(expectations: Expectations) -> None:
    """Refuse an expectation that does not exist. Raises ExpectationError with the nearest name."""
    known = names() if expectations else ()
    for name in (name for entry in expectations for name in entry):
        if name not in known:
            expected = "a name of Great Expectations, or of our own, in snake_case"
            raise unknown(f"expectation {name}", expected, name, known)


def columns(expectations: Expectations) -> frozenset[str]:
    """Every column that a suite reads, and every word of its row conditions: the facts that are worth working out."""
    found: set[str] = set()
    for name, arguments in (item for entry in expectations for item in entry.items()):
        found.update(named_columns(name, arguments))
        found.update(re.findall(r"\w+", str(arguments.get("row_condition", ""))))
    return frozenset(found)


def named_columns(name: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """The columns that an expectation names, or reads by itself."""
    if name in CUSTOM and "column" not in arguments:
        yield CUSTOM[name].column
    listed = [*_list(arguments.get("column_list")), *_list(arguments.get("column_set"))]
    for value in [*(arguments.get(key) for key in ("column", "column_A", "column_B")), *listed]:
        if isinstance(value, str):
            yield value


def unknown(thing: str, expected: str, word: str, known: Collection[str]) -> ExpectationError:
    """The error for a word that is not known, with the nearest that is."""
    near = difflib.get_close_matches(word, known, 1, 0.4)
    remedy = f"did you mean `{near[0]}`?" if near else ""
    return ExpectationError(thing, found="there is none of that name", expected=expected, remedy=remedy)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else []
