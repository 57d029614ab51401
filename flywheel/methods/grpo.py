"""Group relative policy optimization (Shao et al. 2024): answers are drawn, rewarded, and compared within their group,
by TRL's GRPOTrainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, cast

import numpy as np

from flywheel.errors import TrainingError
from flywheel.methods import dialogue, rewards, trl_settings
from flywheel.methods.base import Made, Stage
from flywheel.recipe_train import Grpo as Config
from flywheel.record import Record


class Grpo:
    """Rows with `prompt`, or `messages`; what else they hold, the rewards may read."""

    def make(self, stage: Stage) -> Made:
        from datasets import Dataset
        from trl.trainer.grpo_config import GRPOConfig

        from flywheel.methods.grpo_trainer import GrpoTrainer

        config = cast(Config, stage.config)
        questions = _questions_of_a_step(config, stage.processes)
        room = _room(stage, config)
        kept = dialogue.fitting(stage, stage.rows, _asked, room)
        held = dialogue.fitting(stage, stage.heldout, _asked, room) if stage.heldout else None
        rows, steps = _rows(kept), config.max_steps
        if config.num_train_epochs is not None:
            steps = max(1, ceil(config.num_train_epochs * len(rows) / questions))
        order = _order(len(rows), steps * questions, stage.seed)
        return Made(
            trainer=GrpoTrainer,
            arguments=GRPOConfig,
            inputs={
                "train_dataset": Dataset.from_list([rows[i] for i in order]),
                "eval_dataset": Dataset.from_list(_rows(held)) if held else None,
                "processing_class": stage.model.processor,
                "reward_funcs": [_on_rows(reward) for reward in rewards.build(config.reward_funcs)],
                "prompt_ids": {**_ids(kept), **(_ids(held) if held else {})},
                "kl_weight": config.beta,
            },
            settings={
                **trl_settings.common(config),
                "max_steps": steps,
                "num_generations": config.num_generations,
                "max_completion_length": config.max_completion_length,
                "temperature": config.temperature,
                "reward_weights": None if config.reward_weights is None else list(config.reward_weights),
                "beta": 0.0,  # the trainer would look for the model that it starts from in the hub
                "steps_per_generation": config.gradient_accumulation_steps,  # nothing drawn outlives its step
                "num_iterations": 1,
                "per_device_eval_batch_size": config.num_generations,
                "shuffle_dataset": False,  # the rows are in their order
            },
            left_out=kept.left_out,
        )


def _asked(row: Record) -> dialogue.Asked:
    return dialogue.Asked(dialogue.question(row).prompt)


def _questions_of_a_step(config: Config, processes: int) -> int:
    answers = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    if answers % config.num_generations:
        raise TrainingError(
            "per_device_train_batch_size",
            found=f"{answers} answers in a step of all processes",
            expected=f"a multiple of num_generations, which is {config.num_generations}",
            remedy="change one of per_device_train_batch_size, gradient_accumulation_steps and num_generations",
        )
    return answers // config.num_generations


def _room(stage: Stage, config: Config) -> int:
    """The most tokens of a prompt."""
    from flywheel.modalities import decoder_model

    longest, context = dialogue.length(stage), decoder_model.context(stage.model)
    if config.max_completion_length >= context:
        raise TrainingError(
            "max_completion_length",
            found=str(config.max_completion_length),
            expected=f"less than the model's context of {context} tokens, so that there is room for a prompt",
            remedy="lower it",
        )
    return min(longest, context - config.max_completion_length)


def _rows(kept: dialogue.Kept) -> list[dict[str, Any]]:
    """What the trainer reads, `prompt`, which it takes for a text; and what rewards read."""
    found = []
    for row, asked in zip(kept.rows, kept.asked, strict=True):
        answers = dialogue.question(row).answers
        reference = dialogue.plain_text(answers[0]) if answers else None
        found.append({"prompt": _key(asked), "reference": reference, "label": row.label})
    return found


def _ids(kept: dialogue.Kept) -> dict[str, list[int]]:
    return {_key(asked): ids.prompt for asked, ids in zip(kept.asked, kept.tokens, strict=True)}


def _key(asked: dialogue.Asked) -> str:
    return json.dumps(asked.prompt, ensure_ascii=False)


def _order(count: int, length: int, seed: int) -> list[int]:
    """Which question comes when: pass after pass, each in its own order, so that position alone tells."""
    passes = ceil(length / count)
    order = np.concatenate([np.random.default_rng((seed, turn)).permutation(count) for turn in range(passes)])
    return [int(i) for i in order[:length]]


def _on_rows(reward: rewards.Reward) -> Callable[..., rewards.Numbers]:
    """A reward as the trainer calls it."""

    def rewarded(
        prompts: Sequence[str], completions: Sequence[str], *, reference: Sequence[str | None], **columns: Any
    ) -> rewards.Numbers:
        given = {"completion_ids": columns["completion_ids"], "completion": reference, "label": columns["label"]}
        return reward([json.loads(prompt) for prompt in prompts], completions, **given)

    rewarded.__name__ = reward.__name__
    return rewarded
