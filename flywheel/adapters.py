"""LoRA adapters (Hu et al. 2021) through peft: put into a module in place, trained alone, merged into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flywheel.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraModel

    from flywheel.recipe import Peft


def attach(module: torch.nn.Module, config: Peft) -> LoraModel:
    """Add adapters to `module` in place and freeze everything else; the module keeps its class and methods.

    Raises TrainingError where `target_modules` names no layer of the module.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    targets = config.target_modules
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft computes with a float as well
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    try:
        return LoraModel(module, {"default": lora}, "default")
    except ValueError as error:
        raise TrainingError(
            "peft.target_modules",
            found=f"{targets!r}: {error}",
            expected="names of linear or convolutional layers of this model",
            remedy="name layers that the model has",
        ) from error


def merge(tuner: LoraModel) -> torch.nn.Module:
    """Fold the adapters into the weights; the result has the layers that the module had before `attach`."""
    merged: torch.nn.Module = tuner.merge_and_unload()
    return merged.requires_grad_(True)
