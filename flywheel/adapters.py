"""LoRA adapters (Hu et al. 2021) through peft: put into a module in place, trained alone, merged into its weights.

DoRA (Liu et al. 2024) learns the length of each weight's columns apart. QLoRA (Dettmers et al. 2023) holds the frozen
weights of linear layers in four bits (NF4, bitsandbytes) while training; the same weights give the same bits, so a
checkpoint needs the adapter alone. What is merged in the end are the adapter and the weights that it was trained
beside: those that four bits stand for, in float32.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flywheel.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    from flywheel.recipe_train import Peft

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # asks for kernels from the hub

NAME = "default"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter in peft's layout."""
BASE = "base.json"
"""Beside them where the adapter comes from here: the hash of the weights that it was made for."""
CHOSEN = ("r", "lora_alpha", "use_dora", "target_modules")
"""What an adapter that is continued already says."""


@dataclass
class Adapter:
    """An adapter inside of a module."""

    tuner: LoraModel
    base: str
    """The checkpoint that the module was opened from, as the recipe names it; may be empty."""
    base_sha256: str
    """Of the module's weights before the adapter was put in."""


def attach(module: torch.nn.Module, config: Peft, base: str = "") -> Adapter:
    """Add an adapter to `module` in place and freeze everything else; the module keeps its class and methods.

    Starts from `config.path` where there is one. Linear layers but the output are held in four bits for
    `load_in_4bit`. Raises TrainingError where `target_modules` names no layer of the module, where an adapter was made
    for another base, and where bitsandbytes is missing.
    """
    digest = weights_sha256(module)
    if config.path is None:
        lora = _new(config)
    else:
        place = directory(config.path)
        lora = _continued(place, config)
        _refuse_another_base(place, lora, base, digest)
    if config.load_in_4bit:
        _quantise(module)
    adapter = Adapter(_inject(module, lora), base, digest)
    if config.path is not None:
        _read(adapter.tuner, directory(config.path))
    return adapter


def outline(module: torch.nn.Module, config: Peft) -> None:
    """Put a fresh adapter into `module` by its shapes alone: no weights are read, and none is quantised."""
    _inject(module, _new(config))


def save(adapter: Adapter, directory: Path) -> None:
    """Write the adapter alone, in peft's layout: `PeftModel.from_pretrained(base, directory)` reads it. Equal adapters
    give equal bytes."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu().contiguous() for name, tensor in sorted(_weights(adapter.tuner).items())}
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / BASE).write_text(json.dumps({"sha256": adapter.base_sha256}) + "\n")
    lora: Any = adapter.tuner.peft_config[NAME]
    config = lora.to_dict() | {"base_model_name_or_path": adapter.base or None, "inference_mode": True}
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, default=_plain) + "\n")


def merge(adapter: Adapter) -> torch.nn.Module:
    """Fold the adapter into the weights; the result has the layers that the module had before `attach`."""
    tuner = adapter.tuner
    if any(_is_4bit(module) for module in tuner.modules()):
        weights, lora = _weights(tuner), tuner.peft_config[NAME]
        plain: torch.nn.Module = tuner.unload()
        _dequantise(plain)
        tuner = _inject(plain, cast("LoraConfig", lora))
        _write(tuner, weights)
    merged: torch.nn.Module = tuner.merge_and_unload()
    return merged.requires_grad_(True)


def weights_sha256(module: torch.nn.Module) -> str:
    """A hash of all weights of a module by their names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------- configurations


def _new(config: Peft) -> LoraConfig:
    from peft import LoraConfig

    targets = config.target_modules
    return LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft computes with a float as well
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=config.use_dora,
    )


def directory(path: str) -> Path:
    """An adapter's directory, fetched where `path` is a hub id. No pickles. Raises TrainingError."""
    found = Path(path)
    if not found.is_dir():
        if path.startswith(("/", ".", "~")):
            raise _unusable(path, "no such directory")
        from huggingface_hub import snapshot_download

        try:
            found = Path(snapshot_download(path, allow_patterns=[CONFIG, WEIGHTS]))
        except (OSError, ValueError) as error:
            raise _unusable(path, str(error).splitlines()[0]) from error
    if missing := [name for name in (CONFIG, WEIGHTS) if not (found / name).is_file()]:
        raise _unusable(path, f"no {' and no '.join(missing)}")
    return found


def _unusable(path: str, found: str) -> TrainingError:
    return TrainingError(
        f"peft.path {path}",
        found=found,
        expected=f"a LoRA adapter in peft's layout: {CONFIG} and {WEIGHTS}",
        remedy="save the adapter with safetensors, or leave `peft.path` out",
    )


def _continued(directory: Path, config: Peft) -> LoraConfig:
    """The configuration of an adapter that is trained on. The recipe may repeat it, not change it."""
    from peft import LoraConfig

    try:
        said = json.loads((directory / CONFIG).read_bytes())
        kind = said["peft_type"]
        known = {name: said[name] for name in said if name in LoraConfig.__dataclass_fields__}
        lora = LoraConfig(**{**known, "inference_mode": False, "lora_dropout": config.lora_dropout})
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(str(directory), f"{CONFIG}: {error!r}"[:200]) from error
    if kind != "LORA" or lora.modules_to_save or lora.auto_mapping:
        raise _unusable(str(directory), f"peft_type {kind}, modules_to_save {lora.modules_to_save}")
    for name in config.model_fields_set.intersection(CHOSEN):
        wanted, found = (_comparable(getattr(source, name)) for source in (config, lora))
        if wanted != found and wanted != "all-linear":
            raise TrainingError(
                f"peft.{name}",
                found=f"{wanted} in the recipe, {found} in the adapter {config.path}",
                expected="the adapter's own value, which cannot be changed",
                remedy=f"leave `peft.{name}` out",
            )
    return lora


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | list | tuple) else value


def _plain(value: Any) -> Any:
    """Sets as sorted lists, so that equal configurations are equal bytes; other values by their name."""
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))


def _refuse_another_base(directory: Path, lora: LoraConfig, base: str, digest: str) -> None:
    """By the hash of the weights where the adapter has it, else by the name where both sides have one."""
    try:
        made_for = str(json.loads((directory / BASE).read_bytes())["sha256"])
    except OSError:
        made_for = ""
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(str(directory), f"{BASE}: {error!r}"[:200]) from error
    named = str(lora.base_model_name_or_path or "")
    if made_for:
        other, expected, found = made_for != digest, made_for[:16], digest[:16]
    else:
        other, expected, found = bool(base and named) and _last(base) != _last(named), named, base
    if other:
        raise TrainingError(
            f"peft.path {directory}",
            found=f"an adapter made for another base: {named or 'weights'} ({expected})",
            expected=f"one made for {base or 'this model'} ({found})",
            remedy="give `model.path` the base that the adapter was made for, or train a new adapter",
        )


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


# ---------------------------------------------------------------- weights


def _inject(module: torch.nn.Module, lora: LoraConfig) -> LoraModel:
    from peft.tuners.lora import LoraModel

    targets = lora.target_modules
    try:
        return LoraModel(module, {NAME: lora}, NAME)
    except ValueError as error:
        raise TrainingError(
            "peft.target_modules",
            found=f"{targets!r}: {error}",
            expected="names of linear or convolutional layers of this model",
            remedy="name layers that the model has",
        ) from error


def _weights(tuner: LoraModel) -> dict[str, torch.Tensor]:
    """The adapter's weights by their names in peft's layout."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(tuner, adapter_name=NAME, save_embedding_layers=False)
    return {f"base_model.{name}": tensor.detach().clone() for name, tensor in found.items()}


def _read(tuner: LoraModel, directory: Path) -> None:
    """Weights of a saved adapter, every one of them and no other. Raises TrainingError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(directory / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _unusable(str(directory), f"{WEIGHTS}: {error}") from error
    shapes = [{name: tuple(tensor.shape) for name, tensor in some.items()} for some in (found, _weights(tuner))]
    if shapes[0] != shapes[1]:
        raise TrainingError(
            f"peft.path {directory}",
            found=f"weights that do not fit this model: {'; '.join(_differences(*shapes))}",
            expected="an adapter for layers of these names and shapes",
            remedy="give `model.path` the base that the adapter was made for, or train a new adapter",
        )
    _write(tuner, found)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    for name in differing[:3]:
        yield f"{name} {found.get(name, 'absent')}, the model has {expected.get(name, 'none')}"
    if len(differing) > 3:
        yield f"and {len(differing) - 3} more"


def _write(tuner: LoraModel, weights: Mapping[str, torch.Tensor]) -> None:
    from peft import set_peft_model_state_dict

    names = {name.removeprefix("base_model."): tensor for name, tensor in weights.items()}
    set_peft_model_state_dict(tuner, names, adapter_name=NAME)


# ---------------------------------------------------------------- four bits


def _quantise(module: torch.nn.Module) -> None:
    """Hold the linear layers of a module in four bits, in place; its output layer stays as it is."""
    import torch

    try:
        from bitsandbytes import nn as four_bit
    except ImportError as error:
        raise TrainingError(
            "peft.load_in_4bit",
            found="bitsandbytes is not installed",
            expected="the extra `qlora`",
            remedy="pip install -c constraints.txt 'flywheel-mlops[qlora]'",
        ) from error
    output = cast(Any, module).get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    found = [(name, child) for name, child in module.named_modules() if type(child) is torch.nn.Linear]
    for name, child in found:
        if child is output:
            continue
        sizes = (child.in_features, child.out_features, child.bias is not None)
        held: Any = four_bit.Linear4bit(*sizes, quant_type="nf4", device="meta")  # type: ignore[attr-defined,no-untyped-call]
        weights = {"data": child.weight.data, "requires_grad": False, "quant_type": "nf4", "module": held}
        held.weight = four_bit.Params4bit(**weights)  # type: ignore[attr-defined]
        held.bias = child.bias
        module.set_submodule(name, held.to(child.weight.device))
    if not any(child is not output for _, child in found):
        raise TrainingError(
            "peft.load_in_4bit",
            found=f"{type(module).__name__} has no linear layers",
            expected="a model with torch.nn.Linear layers",
            remedy="leave load_in_4bit out",
        )


def _is_4bit(module: torch.nn.Module) -> bool:
    return type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes")


def _dequantise(module: torch.nn.Module) -> None:
    """Linear layers of float32 in place of those of four bits."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    for name, child in [(name, child) for name, child in module.named_modules() if _is_4bit(child)]:
        held: Any = child
        plain = torch.nn.Linear(held.in_features, held.out_features, held.bias is not None, device="meta")
        weight = dequantize_4bit(held.weight.data, held.weight.quant_state).to(torch.float32)
        plain.weight = torch.nn.Parameter(weight)
        plain.bias = held.bias
        module.set_submodule(name, plain)
