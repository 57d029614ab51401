"""One run of one contender of benchmarks/training.py, in a process of its own.

    python benchmarks/training_contenders.py NAME HOME SEED STEPS OUT.json

It writes `steps`, [step, seconds, tokens], and `points`, [step, seconds, loss on held-out rows]. The clock starts with
the first step and stands still while that loss is measured; padding is no token. `peaks` are matrix products before and
after. The contender `memory/...` measures what the loss of a large vocabulary takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.training_corpus import LENGTH, LLAMA  # noqa: E402

ROWS, DOCUMENTS, POINTS = 4, 8, 5
"""Packed rows of a batch; documents of a padded batch, which is the Trainer's default; and points of a curve."""
RATE = 1e-3
"""The learning rate, the same for all: the Trainer's default is for fine-tuning large models."""


def main() -> None:
    name, home, seed, steps, out = sys.argv[1:]
    started = time.perf_counter()
    before = peaks()
    result = CONTENDERS[name](Path(home), int(seed), int(steps))
    result["peaks"] = [before, peaks()]
    result["seconds_in_all"] = time.perf_counter() - started
    Path(out).write_text(json.dumps(result))


def peaks() -> dict[str, float]:
    """FLOP/s of products of matrices of 2,048 rows and columns: the median of nine."""
    import torch

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = torch.randn(2, 2048, 2048).to(dtype)
        times = []
        for _ in range(10):
            began = time.perf_counter()
            one @ other
            times.append(time.perf_counter() - began)
        found[str(dtype).removeprefix("torch.")] = 2 * 2048**3 / sorted(times[1:])[4]
    return found


class Clock:
    """Seconds of training: those between `go` and `stop`."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float | None]] = []
        self.steps: list[tuple[int, float]] = []
        self.held, self._since = 0.0, time.perf_counter()

    def start(self) -> None:
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.held + time.perf_counter() - self._since

    def hold(self) -> None:
        self.held = self.seconds
        self.start()

    def stop(self, step: int, loss: Callable[[], float]) -> None:
        """Take a point of the curve, off the clock."""
        self.hold()
        self.points.append((step, self.held, loss()))
        self.start()


# ---------------------------------------------------------------- transformers


def trainer(home: Path, seed: int, steps: int, dataset: Any, collate: Any, arguments: Mapping[str, Any]) -> Clock:
    """`transformers.Trainer` as it is, on float32."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    clock = Clock()
    model = AutoModelForCausalLM.from_pretrained(home / f"model-{seed}", dtype=torch.float32)
    held = packed(home, "heldout")

    class Measure(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.steps.append((state.global_step, clock.seconds))
            if steps >= 2 * POINTS and state.global_step % (steps // POINTS) == 0:
                clock.stop(state.global_step, lambda: loss_of(model, held))

    settings = TrainingArguments(
        output_dir=str(home / "trainer"),
        max_steps=steps,
        learning_rate=RATE,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        **arguments,
    )
    Trainer(model=model, args=settings, train_dataset=dataset, data_collator=collate, callbacks=[Measure()]).train()
    return clock


def hf_default(home: Path, seed: int, steps: int) -> dict[str, Any]:
    """Documents padded to the longest of a batch of eight, as the Trainer's defaults and its collator do it."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    counted: list[int] = []
    pad = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(home / f"model-{seed}"), mlm=False)

    def collate(rows: Sequence[Mapping[str, Any]]) -> Any:
        counted.append(sum(len(row["input_ids"]) for row in rows))
        return pad([{"input_ids": row["input_ids"]} for row in rows])

    documents = [{"input_ids": ids} for ids in json.loads((home / "ids.json").read_text())["train"]]
    clock = trainer(home, seed, steps, documents, collate, {})
    return told(clock, counted)


def hf_packed(home: Path, seed: int, steps: int) -> dict[str, Any]:
    """Documents packed into rows of 512 tokens with position ids, four rows a batch: the Trainer's best in float32."""
    rows, counted = packed(home, "train"), []  # type: ignore[var-annotated]

    def collate(features: Sequence[Mapping[str, Any]]) -> Any:
        import torch

        batch = {name: torch.stack([f[name] for f in features]) for name in features[0]}
        counted.append(real(batch))
        return batch

    clock = trainer(home, seed, steps, rows, collate, {"per_device_train_batch_size": ROWS})
    return told(clock, counted)


def told(clock: Clock, counted: Sequence[int]) -> dict[str, Any]:
    tokens, so_far = [], 0
    for some in counted:
        so_far += some
        tokens.append(so_far)
    return {
        "points": clock.points,
        "steps": [(step, seconds, tokens[step - 1]) for step, seconds in clock.steps],
    }


# ---------------------------------------------------------------- flywheel


def flywheel(home: Path, seed: int, steps: int) -> dict[str, Any]:
    """`flywheel.training.train`, as a run does it."""
    import shutil

    from flywheel.methods import rows as method
    from flywheel.recipe import Recipe
    from flywheel.training import train

    every = max(1, steps // (2 * POINTS))
    section = {
        "max_steps": steps,
        "per_device_train_batch_size": ROWS,
        "max_length": LENGTH,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta2": 0.999,
        "logging_steps": every,
        "eval_steps": every,
        "save_steps": 10**6,
    }
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "objective": {"metric": "bits_per_byte"},
            "seed": seed,
            "data": {"sources": [{"type": "files", "path": str(home / "rows")}]},
            "model": LLAMA,
            "train": section,
        }
    )
    clock, seen = Clock(), []  # type: ignore[var-annotated]
    step_of = method.RowsTrainer.training_step

    def counting(self: Any, model: Any, inputs: Any, *more: Any) -> Any:
        if not seen:
            clock.start()
        seen.append(real(inputs))
        return step_of(self, model, inputs, *more)

    def progress(step: int, _: int, figures: Mapping[str, float]) -> None:
        """The Trainer logs, measures the loss on held-out rows, and logs that."""
        if "eval_loss" in figures:
            clock.points.append((step, clock.held, figures["eval_loss"]))
            clock.start()
        else:
            clock.hold()

    method.RowsTrainer.training_step = counting  # type: ignore[method-assign, assignment]
    out, work = home / "flywheel-out", home / "flywheel-work"
    for directory in (out, work):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    train(
        recipe,
        "train",
        home / "rows",
        home / f"model-{seed}",
        out,
        work,
        progress,
        lambda step: clock.steps.append((step, clock.seconds)),
        home / "kept",
    )
    return told(clock, seen)


# ---------------------------------------------------------------- common


def packed(home: Path, name: str) -> Any:
    """The documents of a part in rows of fixed length."""
    import numpy as np

    from flywheel.modalities.token_rows import TokenRows, windows

    documents = json.loads((home / "ids.json").read_text())[name]
    return TokenRows(list(windows(map(np.array, documents), LENGTH)), LENGTH, documents[0][0])


def real(batch: Mapping[str, Any]) -> int:
    """Tokens of documents in a packed batch: those with a label, and the first of each document."""
    labels, places = batch["labels"], batch["position_ids"]
    learned = labels != -100
    firsts = (places[:, :-1] == 0) & learned[:, 1:]
    return int(learned.sum() + firsts.sum())


def loss_of(model: Any, rows: Any) -> float:
    """Mean loss of batches of rows, as the Trainer takes it."""
    import torch

    from flywheel.modalities.text_causal import TextCausal

    room, total = TextCausal(), 0.0
    model.eval()
    with torch.no_grad():
        for first in range(0, len(rows), ROWS):
            features = [rows[i] for i in range(first, min(first + ROWS, len(rows)))]
            total += len(features) * room.losses(model, room.collate(features))[""].item()
    model.train()
    return total / len(rows)


def memory(how: str) -> Callable[[Path, int, int], dict[str, Any]]:
    """Bytes that cross-entropy and its gradients take at most beside their inputs: 4,096 tokens, 384 features."""

    def measured(home: Path, seed: int, vocabulary: int) -> dict[str, Any]:
        import torch
        from torch.nn import functional as F

        from flywheel.linear_cross_entropy import linear_cross_entropy

        def naive(hidden: Any, weight: Any, targets: Any) -> Any:
            return F.cross_entropy((hidden @ weight.T).float(), targets)

        loss: Any = naive if how.startswith("naive") else linear_cross_entropy
        loss = torch.compile(loss, dynamic=False) if how.endswith("compiled") else loss
        hidden = torch.randn(4096, 384, requires_grad=True)
        weight = torch.randn(vocabulary, 384, requires_grad=True)
        targets = torch.randint(vocabulary, (4096,))
        held = []
        for _ in range(3):
            hidden.grad = weight.grad = None
            Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark
            before = resident("VmRSS")
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(hidden, weight, targets)
            value.backward()
            held.append(resident("VmHWM") - before)
        return {"bytes": held[-1], "loss": value.item()}

    return measured


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


CONTENDERS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {
    "HF Trainer": hf_default,
    "HF Trainer, packed": hf_packed,
    "flywheel": flywheel,
    **{f"memory/{how}": memory(how) for how in ("naive", "flywheel", "naive, compiled", "flywheel, compiled")},
}


if __name__ == "__main__":
    main()
