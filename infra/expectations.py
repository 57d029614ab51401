"""Great Expectations: run its expectations over a table of facts, say which rows fail which, and keep Data Docs.

Everything stays in memory (an ephemeral context) and on this machine: analytics are off and the page loads nothing.

An expectation on rows (`expect_column_values_to_be_unique`) yields row failures. A suite failure is what no row can be
blamed for: a failed expectation on the table (`expect_table_row_count_to_be_between`), one that could not be computed
(no such column), and one with `mostly` that fewer rows than that share meet. As Great Expectations has it, an
expectation met by its `mostly` share succeeds and still has unexpected rows; they are row failures too. Null values are
not judged except by the expectations about nulls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import ExpectationError
from infra.expectation_names import CUSTOM, Expectations, check_names, columns, named_columns, names, unknown

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

__all__ = ["Expectations", "Outcome", "check", "check_arguments", "check_names", "columns", "names"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{{ styles }}</style></head>
<body>{% for section in sections %}{% set section_loop = loop %}{% include 'section.j2' %}{% endfor %}</body></html>
"""
_STYLES = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733 }
h4, h5, h6 { font-size: 1.1rem; margin: 1.2rem 0 .4rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem }
th, td { border: 1px solid #ccd4dd; padding: .3rem .6rem; text-align: left; vertical-align: top }
.badge, .alert { background: #eef2f6; border-radius: 4px; padding: .2rem .5rem; margin-right: .2rem }
.text-success::before { content: "\\2714"; color: #18794e }
.text-danger::before { content: "\\2718"; color: #c4320a }
.text-warning::before { content: "!"; color: #b54708 }
.cooltip .top, .collapse:not(:target) { display: none }
pre, .collapse { white-space: pre-wrap; overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Outcome:
    """What a suite found in a table."""

    success: bool
    """Great Expectations' own verdict: every expectation met."""
    row_failures: Mapping[int, tuple[str, ...]]
    """Index label of a failing row → the expectations that it fails, in the order of the suite."""
    suite_failures: tuple[str, ...]
    """Failures that no row can be blamed for, each with what was found."""
    evaluated: int
    """Number of expectations."""


def check(
    frame: pd.DataFrame, expectations: Expectations, suite_name: str, docs: Path, other_columns: Collection[str] = ()
) -> Outcome:
    """Check a table whose index labels are distinct integers; write `results.json` and `index.html` into `docs`.

    `other_columns` could have been asked for but are not in the table; they are named where a column is unknown.

    Equal inputs give equal files. Without expectations Great Expectations is not even imported, and there is no page.
    Raises ExpectationError for an unknown name or column, or arguments that do not fit.
    """
    wanted = [(name, dict(arguments)) for entry in expectations for name, arguments in entry.items()]
    check_names(expectations)
    for name, arguments in wanted:
        _verify(name, arguments, [str(column) for column in frame.columns], other_columns)
    docs.mkdir(parents=True, exist_ok=True)
    if not wanted:
        (docs / "results.json").write_text("[]")
        return Outcome(True, {}, (), 0)
    report = _validate(frame, [_expectation(name, arguments) for name, arguments in wanted], suite_name)
    results = sorted(report.results, key=_number)
    rows: dict[int, list[str]] = {}
    failed, lines = [], []
    for (name, arguments), result in zip(wanted, results, strict=True):
        label = _label(name, arguments)
        found = _error(result) or _observed(result)
        unexpected = sorted({int(row) for row in result.result.get("unexpected_index_list") or ()})
        for row in unexpected:
            rows.setdefault(row, []).append(label)
        if not result.success and (not unexpected or "mostly" in arguments):
            failed.append(f"{label}: {found}")
        lines.append({"expectation": label, "success": result.success, "found": found, "unexpected": len(unexpected)})
    (docs / "results.json").write_text(json.dumps(lines, indent=1))
    (docs / "index.html").write_text(_page(report, suite_name), encoding="utf-8")
    row_failures = {row: tuple(labels) for row, labels in sorted(rows.items())}
    return Outcome(bool(report.success), row_failures, tuple(failed), len(wanted))


def check_arguments(expectations: Expectations) -> None:
    """Refuse arguments that an expectation does not take, before there is a table. The library is imported for that.

    Raises ExpectationError.
    """
    for name, arguments in (item for entry in expectations for item in entry.items()):
        _expectation(name, dict(arguments))


def _verify(name: str, arguments: Mapping[str, Any], there: Collection[str], others: Collection[str]) -> None:
    """Refuse a column that is not there, before anything heavy is imported."""
    for column in named_columns(name, arguments):
        if column not in there and name not in ("expect_column_to_exist", "expect_table_columns_to_match_set"):
            known = sorted({*there, *others})
            raise unknown(f"column {column} of {name}", f"one of {', '.join(known)}", column, known)


def _expectation(name: str, arguments: Mapping[str, Any]) -> Expectation:
    if name in CUSTOM:
        said = f"{CUSTOM[name].says}: {_listed(arguments)}" if arguments else CUSTOM[name].says
        arguments = {"column": CUSTOM[name].column, "description": said, **arguments}
    home = import_module("infra.custom_expectations" if name in CUSTOM else "great_expectations.expectations")
    classes = {key.lower(): key for key in dir(home)}
    kind = getattr(home, classes[name.replace("_", "")])
    try:
        expectation: Expectation = kind(**arguments)
    except (ValueError, TypeError) as error:
        problems = error.errors() if hasattr(error, "errors") else [{"loc": ("__root__",), "msg": str(error)}]
        first = {str(p["loc"][0]): p["msg"] for p in reversed(problems)}
        found = [text if key == "__root__" else f"{key}: {text}" for key, text in reversed(first.items())]
        own = [field for field in kind.__fields__ if field not in _COMMON]
        raise ExpectationError(
            f"expectation {name}",
            found="; ".join(found),
            expected=f"arguments among {', '.join(own)}",
            remedy="correct its arguments under `data.validate.expectations`",
        ) from error
    return expectation


_COMMON = {
    *("id", "meta", "notes", "description", "severity", "result_format", "catch_exceptions", "rendered_content"),
    *("windows", "batch_id"),
}
"""Fields of every expectation that say nothing about the data."""


def _validate(
    frame: pd.DataFrame, expectations: Sequence[Expectation], suite_name: str
) -> ExpectationSuiteValidationResult:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    suite = gx.ExpectationSuite(name=suite_name, expectations=list(expectations))
    for number, expectation in enumerate(suite.expectations):
        expectation.id = str(number)  # results come in another order, and without one the page has random ids
    return batch.validate(suite, result_format={"result_format": "COMPLETE"})


def _number(result: ExpectationValidationResult) -> int:
    config = result.expectation_config
    assert config is not None
    assert config.id is not None
    return int(config.id)


def _label(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name}({_listed(arguments)})"


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())


def _error(result: ExpectationValidationResult) -> str:
    """Why the expectation could not be computed, or nothing."""
    return next(_messages(result.exception_info), "")


def _messages(info: Mapping[str, Any]) -> Iterator[str]:
    """Exceptions stand in a dict of their own or, for those of metrics, in one dict for each metric."""
    if info.get("raised_exception"):
        yield str(info["exception_message"])
    for value in info.values():
        if isinstance(value, Mapping):
            yield from _messages(value)


def _observed(result: ExpectationValidationResult) -> str:
    found = result.to_json_dict()["result"]
    assert isinstance(found, dict)
    if "element_count" in found:
        return f"{found['unexpected_count']} of {found['element_count']} rows"
    if found.get("observed_value") is not None:
        return json.dumps(found["observed_value"], sort_keys=True)
    values = {kind: found.get(f"partial_{kind}_list") for kind in ("missing", "unexpected")}
    return "; ".join(f"{kind} {json.dumps(listed)}" for kind, listed in values.items() if listed)


def _page(report: ExpectationSuiteValidationResult, title: str) -> str:
    """Data Docs of one validation on one page, without the scripts, styles and pictures that come from CDNs."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    document = ValidationResultsPageRenderer().render(report).to_json_dict()
    for section in document["sections"]:  # the folded block holds times of loading and running
        section["content_blocks"] = [b for b in section["content_blocks"] if b["content_block_type"] != "collapse"]
    template = DefaultJinjaPageView().env.from_string(_PAGE)
    html = template.render(**{**document, "title": f"{title}: expectations", "styles": _STYLES})
    html = re.sub(r'<a href="\.\./[^>]*>(.*?)</a>', r"\1", html)  # links to pages of a whole site
    return re.sub(r"(-collapse-body)-[0-9a-f-]{36}", r"\1", html)  # random, and the part before it is distinct
