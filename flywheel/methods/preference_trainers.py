"""TRL's trainers of preferences, on rows that are tokenised already, with log-probabilities of the model as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from safetensors.torch import load_file, save
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from flywheel.artifact import write_whole

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that experimental parts of TRL may change: it is pinned
    from trl.experimental.orpo.orpo_config import ORPOConfig
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

# TRL reads a name that transformers calls by another one since.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


class Quiet:
    """What every trainer of TRL gets: nothing is sent anywhere, rows stay as they are, the model gets its own forward
    back."""

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.model.__dict__.pop("forward", None)  # type: ignore[attr-defined]  # that TRL replaced


class Referring(Quiet):
    """A trainer that compares with the model as it was before the stage.

    Its log-probabilities are computed once, in a fixed order, and kept in the directory `kept`: a resumed run compares
    with the very same bits, and no second model stands in memory. Where the weights are sharded a copy is needed
    while they are computed.
    """

    ref_model: Any
    columns: tuple[str, str]
    """What the trainer calls the two log-probabilities of a row."""

    def __init__(self, *, model: nn.Module, args: Any, kept: Path, **inputs: Any) -> None:
        self._kept = kept
        before = copy.deepcopy(model).requires_grad_(False) if args.fsdp else None
        super().__init__(model=model, args=args, ref_model=before, **inputs)  # type: ignore[call-arg]
        self.ref_model = None

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        file = self._kept / f"reference-{name}.safetensors"
        said: list[Any] = [load_file(file) if self._leads and file.exists() else None]
        broadcast_object_list(said)
        found: dict[str, torch.Tensor] = said[0] or self._log_probabilities(dataset, batch_size)
        if said[0] is None and self._leads:
            write_whole(file, save(found))
        for column, values in sorted(found.items()):
            dataset = dataset.add_column(column, values.tolist())
        return dataset

    @property
    def _leads(self) -> bool:
        return bool(self.accelerator.is_main_process)  # type: ignore[attr-defined]

    def _log_probabilities(self, dataset: Dataset, batch_size: int) -> dict[str, torch.Tensor]:
        """Column → values, shape (rows,), computed by all processes together."""
        trainer: Any = self
        model = trainer.ref_model or trainer.model
        batches = trainer.accelerator.prepare(DataLoader(dataset, batch_size, collate_fn=trainer.data_collator))
        model.eval()
        found = [
            [part.float().cpu() for part in trainer.accelerator.gather_for_metrics(both)]
            for both in (trainer.compute_ref_log_probs(model, batch) for batch in batches)
        ]
        return {c: torch.cat([part[i] for part in found]).contiguous() for i, c in enumerate(self.columns)}


class DpoTrainer(Referring, DPOTrainer):
    """Rows: `prompt_ids`, `chosen_ids`, `rejected_ids`."""

    columns = ("ref_chosen_logps", "ref_rejected_logps")


class KtoTrainer(Referring, KTOTrainer):
    """Rows: `prompt_ids`, `completion_ids`, `KL_completion_ids` (an answer to another question), `label`."""

    columns = ("ref_logps", "ref_KL_logps")


OrpoConfig = ORPOConfig


class OrpoTrainer(Quiet, ORPOTrainer):
    """Rows: those of `Tokenised`."""


class Tokenised(TorchDataset[dict[str, list[int]]]):
    """Rows that ORPOTrainer cannot tokenise once more."""

    def __init__(self, rows: Sequence[dict[str, list[int]]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]

    def map(self, *_: Any, **__: Any) -> Tokenised:
        return self
