"""How often the gate is wrong: equal models told apart, and true gains missed.

    python benchmarks/gate.py [--json] [--store .flywheel/store] [--comparisons 400]

The demo model (`make run` first) answers held-out docstring prompts DRAWS times, drawn at random, and every answer is
scored by ROUGE-L. `A/A`: 400 comparisons of the model with itself, each with other draws; a promotion is false. `gain`:
in as many comparisons the challenger's answers are replaced by the reference answer so often that its metric rises by
the minimum effect, and a promotion is right; examples are as many as a first comparison of such a pair says are needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.demo import demo
from benchmarks.machine import machine
from flywheel import comparison
from flywheel.metrics.base import ANSWER_TOKENS
from flywheel.metrics.examples import reference
from flywheel.metrics.scores import Scores
from flywheel.modalities import rooms
from flywheel.modalities.speaker import DecoderSpeaker
from flywheel.record import read_rows
from flywheel.runtimes.base import Sampling

DRAWS, PROMPTS, EFFECT = 12, 400, 0.1
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--store", type=Path, default=Path(".flywheel/store"))
    parser.add_argument("--comparisons", type=int, default=400)
    arguments = parser.parse_args()
    pool = answered(arguments.store)
    result = {"machine": machine(), "prompts": len(pool), **simulated(pool, arguments.comparisons)}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=None if arguments.json else 1))


def answered(store: Path) -> Floats:
    """ROUGE-L of the draws of each prompt, (prompts, DRAWS)."""
    from rouge_score.rouge_scorer import RougeScorer

    found = demo(store)
    rows = list(read_rows(found.rows / "finetune_heldout.parquet"))[:PROMPTS]
    room: Any = rooms.room(found.recipe.model.modality)
    model = room.load(found.model)
    speaker = DecoderSpeaker(model, room.predictor(model))
    drawn = speaker.answer(rows * DRAWS, Sampling(max_new_tokens=ANSWER_TOKENS, temperature=0.8, seed=1))
    scorer = RougeScorer(["rougeL"])
    references = [reference(row) for row in rows] * DRAWS
    scores = [scorer.score(r, a)["rougeL"].fmeasure for r, a in zip(references, drawn, strict=True)]
    return np.array(scores).reshape(DRAWS, len(rows)).T


def simulated(pool: Floats, count: int) -> dict[str, Any]:
    """Shares of promotions among `count` comparisons of each kind."""
    rng = np.random.default_rng(0)
    share = EFFECT * pool.mean() / (1 - pool.mean())  # of answers replaced by one that scores 1
    needed = compared(pool, rng, share, len(pool)).needed
    equal = [compared(pool, rng, 0.0, len(pool)) for _ in range(count)]
    better = [compared(pool, rng, share, needed) for _ in range(count)]
    return {
        "comparisons": count,
        "examples": {"A/A": len(pool), "gain": needed},
        "minimum_effect": EFFECT,
        "rows": [
            {"contender": "A/A", "metric": "promoted", "share": float(np.mean([won(c) for c in equal])), "most": 0.05},
            {
                "contender": "gain",
                "metric": "promoted",
                "share": float(np.mean([won(c) for c in better])),
                "least": 0.8,
            },
            {
                "contender": "A/A",
                "metric": "called worse",
                "share": float(np.mean([c.p_worse <= comparison.ALPHA for c in equal])),
                "most": 0.05,
            },
        ],
    }


def compared(pool: Floats, rng: np.random.Generator, share: float, examples: int) -> comparison.Comparison:
    """Two draws of each prompt; `share` of the challenger's are replaced by the reference."""
    prompts = rng.permutation(len(pool)) if examples == len(pool) else rng.integers(0, len(pool), examples)
    draws = rng.permuted(np.tile(np.arange(DRAWS), (examples, 1)), axis=1)[:, :2]
    challenger, champion = (pool[prompts, draws[:, side]] for side in (0, 1))
    challenger = np.where(rng.random(examples) < share, 1.0, challenger)
    sides = (Scores(np.stack([values, np.ones(examples)], axis=1)) for values in (challenger, champion))
    mine, theirs = sides
    return comparison.compare("rouge_l", "higher", (mine, theirs), EFFECT, int(rng.integers(1 << 31)))


def won(one: comparison.Comparison) -> bool:
    """Whether the gate would promote."""
    return one.gain > 0 and one.p_better <= comparison.ALPHA


if __name__ == "__main__":
    main()
