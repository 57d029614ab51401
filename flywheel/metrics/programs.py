"""Do generated programs pass their tests: pass@k (Chen et al. 2021), measured in the sandbox."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from flywheel.arguments import ExistingFile
from flywheel.errors import RecipeError
from flywheel.metrics.base import Exam
from flywheel.metrics.metric import Metric, from_scores
from flywheel.metrics.problems import Problem, read
from flywheel.metrics.scores import Scores
from flywheel.sandbox import Limits, Outcome, Program, Sandbox

DEFAULT_K = [1]


def pass_at_k(  # noqa: PLR0913 - a recipe names each
    exam: Exam,
    *,
    problems: ExistingFile,
    k: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = DEFAULT_K,
    n: Annotated[int, Field(ge=1)] | None = None,
    temperature: Annotated[float, Field(ge=0)] = 0.2,
    seconds: Annotated[float, Field(gt=0)] = 3.0,
    memory_mb: Annotated[int, Field(ge=64)] = 512,
    limit: Annotated[int, Field(ge=1)] | None = None,
) -> list[Metric]:
    """`pass_at_1` and so on, and `compile_rate`, over the problems of a HumanEval or MBPP file or of rows of one's own.

    `n` samples are drawn for each of the first `limit` problems (all; as many as the largest `k`) and each may take
    `seconds` and `memory_mb`. Raises SandboxError, before anything is drawn, where there is no sandbox.
    """
    samples = n if n is not None else max(k)
    if samples < max(k):
        raise RecipeError("pass_at_k: n", found=str(samples), expected=f"at least the largest k, {max(k)}",
                          remedy=f"set n to {max(k)} or more")  # fmt: skip
    sandbox, (form, found) = Sandbox(), read(Path(problems))
    asked = found[:limit]
    completions = _completions(exam, asked, samples, temperature)
    limits = Limits(seconds=seconds, memory=memory_mb << 20)
    outcomes = _run(sandbox, [p.program(c) for p, own in zip(asked, completions, strict=True) for c in own], limits)
    grouped = [outcomes[i : i + samples] for i in range(0, len(outcomes), samples)]
    about = {
        "problems": len(asked), "n": samples, "temperature": temperature, "format": form, "seconds": seconds,
        "memory_mb": memory_mb, "sandbox": sandbox.version(), "python": platform.python_version(),
    }  # fmt: skip
    return measured([problem.id for problem in asked], grouped, k, exam.seed, about)


def measured(
    ids: Sequence[str], outcomes: Sequence[Sequence[Outcome]], k: Sequence[int], seed: int = 0,
    about: dict[str, Any] | None = None,
) -> list[Metric]:  # fmt: skip
    """pass@k for each k, and the share of programs that Python accepts, with intervals over problems.

    `outcomes` holds those of all samples for each problem, at least max(k) of them.
    """
    counted = Counter(outcome.status for own in outcomes for outcome in own)
    detail = {**(about or {}), "outcomes": dict(sorted(counted.items()))}
    passed = [sum(outcome.status == "passed" for outcome in own) for own in outcomes]
    columns = {
        f"pass_at_{one}": [(estimate(len(own), c, one), 1.0) for own, c in zip(outcomes, passed, strict=True)]
        for one in sorted(set(k))
    }
    columns["compile_rate"] = [(sum(outcome.compiled for outcome in own), len(own)) for own in outcomes]
    return [
        from_scores(name, "higher", Scores(np.array(parts, np.float64), ids=tuple(ids)), seed, unit="share",
                    detail=detail)
        for name, parts in columns.items()
    ]  # fmt: skip


def estimate(samples: int, correct: int, k: int) -> float:
    """pass@k of one problem without bias: the chance that k of its samples, drawn without replacement, hold a correct
    one, `1 - C(samples - correct, k) / C(samples, k)`, as a product (Chen et al. 2021)."""
    if samples - correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - correct + 1, samples + 1)))


def _completions(exam: Exam, problems: Sequence[Problem], samples: int, temperature: float) -> list[list[str]]:
    """`samples` completions for each problem. Problems that end alike are asked together."""
    assert exam.speaker is not None
    drawn: dict[str, Iterator[str]] = {}
    for stop in dict.fromkeys(problem.stop for problem in problems):
        alike = [problem for problem in problems if problem.stop == stop]
        sampling = replace(exam.sampling, temperature=temperature, stop=stop)
        said = exam.speaker.complete([p.prompt for p in alike for _ in range(samples)], sampling)
        drawn |= {p.id: iter(said[i * samples : (i + 1) * samples]) for i, p in enumerate(alike)}
    return [list(drawn[problem.id]) for problem in problems]


def _run(sandbox: Sandbox, programs: Sequence[Program], limits: Limits) -> list[Outcome]:
    return list(sandbox.run_many(programs, limits, workers=len(os.sched_getaffinity(0))))
