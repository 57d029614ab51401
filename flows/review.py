"""What `flywheel review ...` does: make a batch of two sides' answers, and say what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel import review, review_rows
from flywheel.errors import ServingError, SourceError
from flywheel.review_rows import Question

TOLD_EVERY = 10
"""Answers after which a line says how far it is."""


@dataclass(frozen=True)
class Wanted:
    """A batch that is to be made."""

    prompts: Path
    sides: Sequence[str]
    """Registered models, or files that hold answers: two to compare, one to rate."""
    count: int
    scales: Sequence[str]
    max_tokens: int
    seed: int


def make(wanted: Wanted, out: Path) -> dict[str, Any]:
    """Write the batch and its key; returns what was made. Models answer greedily.

    Raises SourceError where either would replace a file that it is made from.
    """
    for written in (out, review.key_file(out)):
        _keep_apart(written, (wanted.prompts, *map(Path, wanted.sides)), "--output")
    asked = review_rows.choose(review_rows.questions(wanted.prompts), wanted.count, wanted.seed)
    sides = [(name, _answers(name, asked, wanted.max_tokens)) for name in wanted.sides]
    key = review_rows.make(out, asked, sides, wanted.scales, wanted.seed)
    if key.identical or key.missing:
        alike = f"{key.identical} that both sides answer alike"
        sys.stderr.write(f"left out {alike}, {key.missing} without an answer of each side\n")
    return {"batch": str(out), "items": len(key.first), "identical": key.identical, "missing": key.missing}


def _keep_apart(written: Path, read: Iterable[Path], option: str) -> None:
    for file in read:
        if file.exists() and written.exists() and written.samefile(file):
            raise SourceError(
                f"{option} {written}",
                found=f"the file {file}, which is read here",
                expected="a file of its own",
                remedy=f"choose another {option}",
            )


def _answers(side: str, asked: Sequence[Question], max_tokens: int) -> Mapping[str, str]:
    """Question → answer, of a file or of a registered model."""
    if Path(side).exists():
        found = review_rows.questions(Path(side))
        return {name: question.answer for name, question in found.items() if question.answer is not None}
    if Path(side).suffix in (".jsonl", ".parquet"):
        raise SourceError(f"answers {side}", found="no file of that name", expected="a file, or a registered model")
    return _generated(side, asked, max_tokens)


def _generated(reference: str, asked: Sequence[Question], max_tokens: int) -> dict[str, str]:
    from flows import local
    from infra import registry
    from infra.settings import Settings
    from serving.__main__ import load

    local.prepare_environment()
    settings = Settings.load()
    version = registry.resolve(settings, reference)
    bundle = registry.fetch(settings, version, settings.home / "served" / f"{version.name}-{version.version}")
    runtime = load(bundle)
    if runtime.kind != "text":
        raise ServingError(
            f"model {reference}", found=f"one that makes an {runtime.kind}", expected="one that answers in text"
        )
    separator = json.loads((bundle / "manifest.json").read_bytes()).get("answer_token", "")
    found = {}
    for number, question in enumerate(asked, 1):
        found[question.id] = answer(runtime, question, separator, max_tokens)
        if number % TOLD_EVERY == 0 or number == len(asked):
            sys.stderr.write(f"{reference}: {number} of {len(asked)} answers\n")
    return found


def answer(runtime: Any, question: Question, separator: str, max_tokens: int) -> str:
    """The greedy answer of a runtime of text. Raises ServingError for a question that the model does not take."""
    from flywheel.runtimes.base import Conversational, Sampling

    try:
        if isinstance(question.prompt, str):
            prompt = question.prompt + separator
        elif isinstance(runtime, Conversational):
            prompt = runtime.conversation(question.prompt)
        else:
            prompt = "\n".join(turn["content"] for turn in question.prompt)
        room = runtime.context - runtime.count(prompt)
        return "".join(c.text for c in runtime.stream(prompt, Sampling(max_new_tokens=max(1, min(max_tokens, room)))))
    except ValueError as error:
        raise ServingError(
            f"question {str(question.prompt)[:60]!r}",
            found=str(error),
            expected="a question that the model takes",
            remedy="leave it out of the file of prompts",
        ) from error


def report(batch: Path, preferences: Path | None) -> dict[str, Any]:
    """What the raters said; their preferences become a file of rows, where one is named.

    Raises SourceError where that would replace the batch, its key or verdicts.
    """
    from flywheel import review_report

    if preferences is not None:
        _keep_apart(preferences, (batch, review.key_file(batch), *review.verdict_files(batch)), "--preferences")
    found = review.opinions(batch)
    told = review_report.report(found)
    if preferences is None:
        return told
    rows = review_rows.preferences(found)
    preferences.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return {**told, "preferences": {"path": str(preferences), "rows": len(rows)}}


def lines(told: Mapping[str, Any]) -> dict[str, Any]:
    """A report as names and values for a screen."""
    sides = told["sides"]
    shown: dict[str, Any] = {"items": told["items"], "judged by": told["raters"]}
    if told["mode"] == "compare":
        rate = told["win_rate"]
        shown["win rate"] = f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f}) of {sides['a']}"
        shown["choices"] = {sides.get(name, name): number for name, number in told["choices"].items()}
        shown["prefers first"] = told["prefers_first"]
        shown |= _agreed(told["agreement"])
    for scale, found in told.get("scales", {}).items():
        mean = f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f}) of {review.POINTS}"
        shown[scale] = {"mean": mean, **_agreed(found["agreement"])}
    for one in told["disagreements"]:
        said = ", ".join(f"{rater}: {sides.get(str(value), value)}" for rater, value in one["said"].items())
        shown[f"disagreement {one['item']} {one.get('scale', '')}".strip()] = f"{said}  {one['prompt']}"
    if "preferences" in told:
        shown["preferences"] = f"{told['preferences']['rows']} rows in {told['preferences']['path']}"
    return shown


def _agreed(found: Mapping[str, Any]) -> dict[str, Any]:
    values = {f"Cohen's kappa {pair}": value for pair, value in found["cohen"].items()}
    values |= {"Fleiss' kappa": found["fleiss"], "Krippendorff's alpha": found["krippendorff"]}
    return {name: _undefined(found) if value is None else value for name, value in values.items()}


def _undefined(found: Mapping[str, Any]) -> str:
    if len(found["annotators"]) < 2:
        return "undefined: one rater"
    if not found["items"]:
        return "undefined: no item that two raters judged"
    return "undefined: fewer than two values where raters judged the same items"
