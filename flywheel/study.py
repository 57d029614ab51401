"""A study on the disk, shared by all processes and machines that see its directory. Any of them may be killed.

HOME/studies/<recipe>-<mark>/journal.log     every trial, as Optuna's journal
HOME/studies/<recipe>-<mark>/.lock           held (flock) while a trial is drawn
HOME/studies/<recipe>-<mark>/.trial-<n>      held (flock) by the process that works at a trial; the kernel releases
                                             it at its death, and the next process takes the trial over as it stands
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flywheel import tuning
from flywheel.errors import RecipeError
from flywheel.recipe import Recipe
from flywheel.recipe_tune import Tune
from flywheel.tuning import Outcome, Pruned

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial, TrialState


_BLOCK = 1 << 16


class Study:
    """The trials of one recipe's search. Raises RecipeError for a recipe without `tune`."""

    def __init__(self, directory: Path, recipe: Recipe) -> None:
        self.directory, self.recipe, self.tune = directory, recipe, wanted(recipe)
        directory.mkdir(parents=True, exist_ok=True)
        with self.locked():
            self._study = _open(directory / "journal.log", directory.name, recipe)
        self._space = tuning.distributions(self.tune.space)

    def claim(self) -> Claim | None:
        """The next trial to work at: one that a dead process left, else a new one; None where no more are wanted."""
        with self.locked():
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.state.name == "RUNNING" and (lock := self._try_lock(trial.number)):
                    if self._whole(trial):
                        return self._taken_over(trial, lock)
                    self._study.tell(trial.number, state=_state("FAIL"))  # killed while it was drawn: it never was
                    lock.close()
            drawn = sum(self._whole(t) for t in trials)
            return self._drawn(drawn) if drawn < self.tune.n_trials else None

    def _drawn(self, number: int) -> Claim:
        if number == 0 and (first := tuning.written(self.recipe, self.tune.space)):
            self._study.enqueue_trial(first, skip_if_exists=True)  # the recipe as it is written, to be beaten
        self._study.sampler = tuning.sampler(self.tune, self.recipe.seed, number)
        trial = self._study.ask(self._space)
        lock = self._try_lock(trial.number)
        assert lock is not None  # nobody else knows of it before the study's lock is free
        return Claim(self, trial, lock)

    def _taken_over(self, trial: FrozenTrial, lock: IO[str]) -> Claim:
        import optuna

        return Claim(self, optuna.Trial(self._study, trial._trial_id), lock)

    def outcomes(self) -> list[Outcome]:
        """All trials in the order in which they were drawn."""
        return [self._outcome(t) for t in self._study.get_trials(deepcopy=False) if self._whole(t)]

    def outcome(self, number: int) -> Outcome:
        """One trial."""
        return self._outcome(self._study.get_trials(deepcopy=False)[number])

    def complete(self) -> bool:
        """Whether every trial that is wanted has come to its end."""
        ended = [o for o in self.outcomes() if o.state != "running"]
        return len(ended) >= self.tune.n_trials

    def importance(self) -> dict[str, float]:
        """Share of the variance of the metric that each key explains, largest first; may be empty."""
        return tuning.importance(self._study, self.recipe.seed)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the study."""
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _try_lock(self, number: int) -> IO[str] | None:
        lock = self.lock_file(number).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def lock_file(self, number: int) -> Path:
        """Held by whoever works at a trial."""
        return self.directory / f".trial-{number}"

    def _whole(self, trial: FrozenTrial) -> bool:
        """Whether all of its values are drawn."""
        return trial.params.keys() == self.tune.space.keys()

    def _outcome(self, trial: FrozenTrial) -> Outcome:
        states: Any = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        state = states.get(trial.state.name, "running")
        params = tuning.decoded(self.tune.space, trial.params)
        return Outcome(trial.number, state, params, **trial.user_attrs)

    def reported(self, number: int) -> Mapping[int, float]:
        """Step → loss, as a trial has told so far."""
        return self._study.get_trials(deepcopy=False)[number].intermediate_values

    def tell(self, trial: Trial, state: str, cost: float | None, facts: Mapping[str, Any]) -> None:
        """End a trial; what is known of it is written before."""
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, cost, state=_state(state))


def wanted(recipe: Recipe) -> Tune:
    """The search of a recipe. Raises RecipeError where it has none."""
    if recipe.tune is None:
        raise RecipeError(
            f"recipe {recipe.name}",
            found="no section `tune`",
            expected="the keys to search and their values",
            remedy="add one, such as `tune: {space: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}}`",
        )
    return recipe.tune


class Claim:
    """One trial in the hands of this process."""

    def __init__(self, study: Study, trial: Trial, lock: IO[str]) -> None:
        self._study, self._trial, self._lock = study, trial, lock
        self.number = trial.number
        self.params = tuning.decoded(study.tune.space, trial.params)
        """Searched key → value."""

    def report(self, step: int, loss: float) -> None:
        """Tell the loss after so many optimizer steps. Raises Pruned where others did better there."""
        if step in self._study.reported(self.number):
            return  # told before its process was killed
        self._trial.report(loss, step)
        if self._trial.should_prune():
            raise Pruned(f"trial {self.number}", found=f"a loss of {loss:.4g} at step {step}", expected="a lower one")

    def finish(self, value: float, better: str, **facts: Any) -> None:
        """The value of the metric; one that is no number is a failure."""
        if not math.isfinite(value):
            self.fail(f"the metric is {value}", **facts)
            return
        self._end("COMPLETE", value if better == "lower" else -value, {"value": value, "better": better, **facts})

    def prune(self, reason: str, **facts: Any) -> None:
        """It was stopped."""
        self._end("PRUNED", None, {"reason": reason, **facts})

    def fail(self, reason: str, **facts: Any) -> None:
        """These values cannot be measured."""
        self._end("FAIL", None, {"reason": reason, **facts})

    def leave(self) -> None:
        """Let go of it without an end: the next process goes on with it."""
        self._lock.close()

    def _end(self, state: str, cost: float | None, facts: Mapping[str, Any]) -> None:
        self._study.tell(self._trial, state, cost, facts)
        self._study.lock_file(self.number).unlink()
        self._lock.close()


def _state(name: str) -> TrialState:
    from optuna.trial import TrialState

    return TrialState[name]


def _open(journal: Path, name: str, recipe: Recipe) -> optuna.Study:
    """The study in a journal, made where there is none."""
    with tuning.quiet():
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        class Lock(JournalFileOpenLock):
            """A lock that the kernel releases; what a killed writer left of a line is cut off before the next one."""

            file: IO[bytes]

            def acquire(self) -> bool:
                self.file = journal.open("ab+")
                fcntl.flock(self.file, fcntl.LOCK_EX)
                _cut_torn_line(self.file)
                return True

            def release(self) -> None:
                self.file.close()

        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=Lock(str(journal)))),
            study_name=name,
            pruner=tuning.pruner(recipe, wanted(recipe)),
            direction="minimize",
            load_if_exists=True,
        )


def _cut_torn_line(journal: IO[bytes]) -> None:
    """Cut what follows the last newline."""
    end = journal.seek(0, os.SEEK_END)
    start = end
    while start and not (tail := _between(journal, max(start - _BLOCK, 0), start)).endswith(b"\n"):
        cut = tail.rfind(b"\n")
        start -= len(tail) - cut - 1
    if start < end:
        journal.truncate(start)


def _between(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
