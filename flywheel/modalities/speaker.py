"""A decoder-only language model, asked in strings, as further metrics ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from flywheel.metrics.base import Likelihood
from flywheel.metrics.text import Scorer, log_likelihoods
from flywheel.modalities import answers, decoder_model
from flywheel.modalities.base import Model
from flywheel.modalities.decoder_model import context, decode
from flywheel.modalities.token_rows import Ids, shorten
from flywheel.record import Record
from flywheel.runtimes.base import Predictor, Sampling


@dataclass(frozen=True)
class DecoderSpeaker:
    """See flywheel.metrics.base.Speaker. Prompts that leave no room for an answer lose their beginning."""

    model: Model
    predictor: Predictor

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        return self._draw(decoder_model.tokenise(self.model, prompts, template=True), sampling)

    def answer(self, rows: Sequence[Record], sampling: Sampling) -> list[str]:
        return [text.strip() for text in self._draw(answers.questions(self.model, rows), sampling)]

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Likelihood]:
        """Prompt and completion are tokenised as one text, as the model learned them; a long one is read in windows
        that start half a context apart."""
        alone = decoder_model.tokenise(self.model, prompts, template=True)
        whole = decoder_model.tokenise(
            self.model, [p + c for p, c in zip(prompts, completions, strict=True)], template=True
        )
        begun = [self._started(ids, min(len(p), len(ids) - 1)) for p, ids in zip(alone, whole, strict=True)]
        texts, starts = [ids for ids, _ in begun], [start for _, start in begun]
        found = log_likelihoods(cast(Scorer, self.predictor), texts, starts, context(self.model))
        return [Likelihood(float(nats), len(ids) - start) for nats, (ids, start) in zip(found, begun, strict=True)]

    def _started(self, ids: Ids, start: int) -> tuple[Ids, int]:
        """The first token is never scored: without a prompt, the token that starts texts stands before it."""
        if start > 0:
            return ids, start
        return decoder_model.started(self.model, ids), 1

    def _draw(self, prompts: Sequence[Ids], sampling: Sampling) -> list[str]:
        steps = min(sampling.max_new_tokens, context(self.model) // 2)
        kept = [shorten(ids, context(self.model) - steps) for ids in prompts]
        empty = [decoder_model.started(self.model, ids) if not len(ids) else ids for ids in kept]
        drawn = self.predictor.generate(empty, replace(sampling, max_new_tokens=steps))
        return [_stopped(decode(self.model, ids), sampling.stop) for ids in drawn]


def _stopped(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
