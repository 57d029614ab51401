"""Learning from a teacher: its distribution at every token (Hinton et al. 2015), or its answers (Kim and Rush 2016)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from flywheel.artifact import write_whole
from flywheel.errors import RecipeError, TrainingError
from flywheel.methods import dialogue
from flywheel.methods.base import Made, Stage
from flywheel.modalities.base import Model
from flywheel.recipe_train import Distill as Config
from flywheel.record import LeftOut, Record, drop, read_rows, write_rows

GREEDY = 0.01
"""Below this temperature the likeliest answer is taken."""
ANSWERS, LEFT = "answers.parquet", "answers_left.json"


class Distill:
    """`logits`: any rows of the modality. `sequence`: rows with `prompt` or `messages`, whose answers are the
    teacher's."""

    def make(self, stage: Stage) -> Made:
        config = cast(Config, stage.config)
        dialogue.length(stage)
        teacher = _opened(stage, config.teacher)
        if config.level == "logits":
            return _of_logits(stage, teacher)
        return _of_answers(stage, teacher)


def _opened(stage: Stage, path: str) -> Model:
    """The teacher. Raises TrainingError where it cannot be opened, or cannot look at as much as the student."""
    from flywheel.modalities import decoder_model

    try:
        teacher = decoder_model.open_checkpoint(path)
    except RecipeError as error:
        raise TrainingError(
            f"teacher {path}",
            found=error.found,
            expected=error.expected,
            remedy="give a directory, a hub id, or NAME@alias or NAME/version of a registered model",
        ) from error
    if stage.config.max_length > decoder_model.context(teacher):
        raise TrainingError(
            "max_length",
            found=str(stage.config.max_length),
            expected=f"at most the context of the teacher, {decoder_model.context(teacher)} tokens",
            remedy="lower max_length, or take another teacher",
        )
    return teacher


def _of_logits(stage: Stage, teacher: Model) -> Made:
    from flywheel.methods.distillation import Distilling
    from flywheel.methods.rows import Rows

    _same_tokenizer(stage.model, teacher)
    config = cast(Config, stage.config)
    made = Rows().make(replace(stage, config=config.model_copy(update={"torch_compile": False})))
    return replace(made, objective=Distilling(stage.model.module, teacher.module, config))


def _same_tokenizer(student: Model, teacher: Model) -> None:
    mine, its = student.processor.get_vocab(), teacher.processor.get_vocab()
    if mine == its:
        return
    other = sum(its.get(token) != i for token, i in mine.items()) + len(its.keys() - mine.keys())
    raise TrainingError(
        "the teacher's tokenizer",
        found=f"{len(its)} tokens, {other} of them other ones than the student's {len(mine)}",
        expected="the student's own: distributions are compared token by token",
        remedy="start from a student with the teacher's tokenizer, or write `level: sequence`",
    )


def _of_answers(stage: Stage, teacher: Model) -> Made:
    """Supervised fine-tuning on the teacher's answers, which are asked for once."""
    from accelerate import PartialState

    from flywheel.methods.rows import Rows

    file = stage.work / ANSWERS
    if not file.exists():
        with PartialState().main_process_first():
            if not file.exists():
                _ask(stage, teacher, file)
    rows = list(read_rows(file))
    left_out = [LeftOut(**told) for told in json.loads((stage.work / LEFT).read_text())]
    if not rows:
        raise TrainingError(
            "the teacher's answers",
            found=f"none that can be learned of {len(left_out)} rows",
            expected="answers that end within half of max_length",
            remedy="raise max_length, or take a teacher that has learned to answer",
        )
    made = Rows().make(replace(stage, rows=rows))
    return replace(made, left_out=[*left_out, *made.left_out])


def _ask(stage: Stage, teacher: Model, file: Path) -> None:
    """Let the teacher answer, and write its answers: those of all rows or none."""
    kept, left_out = _answers(stage, teacher)
    write_whole(stage.work / LEFT, json.dumps([asdict(row) for row in left_out]).encode())
    draft = file.with_name(f".{file.name}.new")
    write_rows(draft, kept)
    draft.rename(file)


def _answers(stage: Stage, teacher: Model) -> tuple[list[Record], list[LeftOut]]:
    """Rows with the teacher's answers, and rows that have none."""
    from flywheel.modalities import decoder_model
    from flywheel.modalities.torch_decoder import TorchDecoder
    from flywheel.runtimes.base import Sampling

    config = cast(Config, stage.config)
    steps = config.max_length // 2
    asking = replace(stage, model=teacher)
    found = dialogue.fitting(asking, stage.rows, _asked, config.max_length - steps)
    module: Any = teacher.module.to(_device())
    decoder = TorchDecoder(module, frozenset(decoder_model.ends(teacher)), decoder_model.context(teacher))
    temperature = 0.0 if config.temperature < GREEDY else config.temperature
    sampling = Sampling(max_new_tokens=steps, temperature=temperature, seed=stage.seed)
    drawn = decoder.generate([ids.prompt for ids in found.tokens], sampling)
    kept, left_out = list[Record](), found.left_out
    for row, asked, ids in zip(found.rows, found.asked, drawn, strict=True):
        answer = decoder_model.decode(teacher, ids)
        if len(ids) == steps:
            left_out.append(drop(row, "answer_too_long", f"no end within {steps} tokens"))
        elif not answer.strip():
            left_out.append(drop(row, "answer_empty"))
        else:
            kept.append(_answered(row, asked, answer))
    return kept, left_out


def _asked(row: Record) -> dialogue.Asked:
    return dialogue.Asked(dialogue.question(row).prompt)


def _answered(row: Record, asked: dialogue.Asked, answer: str) -> Record:
    if isinstance(asked.prompt, str):
        return row.with_fields(prompt=asked.prompt, completion=answer, messages=None)
    said = {"role": "assistant", "content": answer}
    return row.with_fields(prompt=None, completion=None, messages=[*asked.prompt, said])


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
