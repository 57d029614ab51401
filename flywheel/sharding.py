"""Several processes that train one model: what accelerate is told, and the whole weights at the end."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn


def sharding(strategy: str) -> dict[str, Any]:
    """Arguments of TrainingArguments: the device, how processes speak, and what each of them holds.

    `fsdp` is FSDP2 (`torch.distributed.fsdp.fully_shard`) over the blocks of the model, with sharded checkpoints.
    """
    alone = processes() == 1
    cpu: dict[str, Any] = {} if torch.cuda.is_available() else {"use_cpu": True}
    if not torch.cuda.is_available() and not alone:
        cpu["ddp_backend"] = "gloo"
    if strategy != "fsdp" or alone:
        return cpu
    shared = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "SHARDED_STATE_DICT"}
    return {**cpu, "fsdp": True, "fsdp_config": shared}


def full_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state of a module that is shared out, on the CPU of the first process. All processes call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(module, options=options))  # type: ignore[arg-type]  # all of its values are tensors


def meet() -> None:
    """Let the processes that train together find each other."""
    if processes() > 1:
        from accelerate import PartialState

        cuda = torch.cuda.is_available()
        PartialState(cpu=not cuda, **({} if cuda else {"backend": "gloo"}))


def processes() -> int:
    """How many processes train together: what torchrun says, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))
