from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.generations import Remembered
from flywheel.runtimes.base import Array, Sampling
from flywheel.runtimes.sampling import rng_for


@dataclass
class Dice:
    """Rolls once for each prompt."""

    asked: list[list[int]] = field(default_factory=list)

    def forward(self, prompt: Any) -> Array:
        return np.array(prompt)

    def generate(self, prompts: Sequence[Any], sampling: Sampling) -> list[Array]:
        self.asked += [list(p) for p in prompts]
        return [rng_for(sampling, i).integers(0, 1000, 3) for i in range(len(prompts))]


def plain(found: Sequence[Array]) -> list[list[int]]:
    return [ids.tolist() for ids in found]


def test_a_prompt_is_asked_once(tmp_path: Path) -> None:
    dice = Dice()
    first = Remembered(dice, tmp_path, "w").generate([[1], [2, 3]], Sampling(temperature=1.0))
    again = Remembered(dice, tmp_path, "w").generate([[2, 3], [4], [1]], Sampling(temperature=1.0))
    assert plain(again)[::2] == plain(first)[::-1]
    assert dice.asked == [[1], [2, 3], [4]]


def test_an_answer_does_not_depend_on_the_other_prompts(tmp_path: Path) -> None:
    alone = Remembered(Dice(), tmp_path / "a", "w").generate([[5]], Sampling())
    among = Remembered(Dice(), tmp_path / "b", "w").generate([[1], [5], [2]], Sampling())
    assert plain(alone)[0] == plain(among)[1]


def test_a_prompt_that_is_given_twice_is_drawn_twice(tmp_path: Path) -> None:
    one, other = plain(Remembered(Dice(), tmp_path, "w").generate([[1], [1]], Sampling()))
    assert one != other


def test_other_weights_and_other_sampling_are_asked_anew(tmp_path: Path) -> None:
    dice = Dice()
    for mark, seed in (("a", 0), ("b", 0), ("b", 1)):
        Remembered(dice, tmp_path, mark).generate([[1]], Sampling(seed=seed))
    assert len(dice.asked) == 3


def test_a_torn_line_costs_its_own_answer_alone(tmp_path: Path) -> None:
    dice = Dice()
    before = Remembered(dice, tmp_path, "w").generate([[1], [2]], Sampling())
    file = next(tmp_path.rglob("*.jsonl"))
    file.write_text(file.read_text()[:-3])
    after = Remembered(dice, tmp_path, "w").generate([[1], [2]], Sampling())
    assert plain(after) == plain(before)
    assert len(dice.asked) == 3
    assert Remembered(dice, tmp_path, "w").generate([[2]], Sampling())[0].tolist() == plain(before)[1]
    assert len(dice.asked) == 3


def test_lines_that_are_no_answers_are_ignored(tmp_path: Path) -> None:
    before = Remembered(Dice(), tmp_path, "w").generate([[1]], Sampling())
    file = next(tmp_path.rglob("*.jsonl"))
    name = json.loads(file.read_text())[0]
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in (12, [name, "x"], [name, [1.5]], [name, [1 << 70]])))
    dice = Dice()
    assert plain(Remembered(dice, tmp_path, "w").generate([[1]], Sampling())) == plain(before)
    assert dice.asked == [[1]]
