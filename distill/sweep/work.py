"""The trials of a sweep, run by any number of processes that share a storage.

Every trial has a number of its own, its slot, and each slot is done once. A trial whose process was killed goes back
to the queue with the same parameters; its run then goes on from its own last checkpoint.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import optuna
import torch
from filelock import BaseFileLock, FileLock, Timeout
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from distill.errors import DistillError, UserError
from distill.sweep.database import check_integrity, is_damage, set_aside
from distill.sweep.file import SweepFile

Report = Callable[[int, Mapping[str, float]], None]
Objective = Callable[[str, Sequence[str], Report], Mapping[str, float]]
"""(recipe, overrides, report) -> metrics; ``report(epoch, metrics)`` may raise `optuna.TrialPruned`."""

FAILURES = (DistillError, MemoryError, torch.OutOfMemoryError)
"""Errors that end a trial but not the sweep: some settings do not work."""


@dataclass(frozen=True)
class SweepWorker:
    """A process that runs trials.

    Args:
        plan: the sweep file.
        count: how many trials in all.
        folder: for the trials' output and for locks.
        storage: URL of the database that holds the state; None for a file in ``folder``.
        objective: runs one trial.
    """

    plan: SweepFile
    count: int
    folder: Path
    storage: str | None
    objective: Objective

    def study(self) -> optuna.Study:
        """The study in the storage, made by the first worker. Another search space is another study.

        A damaged database beside the results is set aside: its trials are repeated, from the finished steps of their
        runs.

        Raises:
            UserError: the storage that the user named cannot be used.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._exclusive():
            try:
                return self._open()
            except Exception as error:  # whatever the database's driver raises
                reason = " ".join(str(error).split())
                if self.storage or not is_damage(error):
                    remedy = "name another one with --storage" if self.storage else "the same command goes on"
                    raise UserError(f"cannot use storage '{self._url}': {reason}; {remedy}") from error
                set_aside(self._file, reason)
            return self._open()

    @property
    def _file(self) -> Path:
        return self.folder / "study.db"

    @property
    def _url(self) -> str:
        return self.storage or f"sqlite:///{self._file}"

    def _open(self) -> optuna.Study:
        if not self.storage:
            check_integrity(self._file)
        patience = {"connect_args": {"timeout": 60}} if self._url.startswith("sqlite") else {}
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(self._url, engine_kwargs=patience),
            study_name=f"{self.plan.name}-{self.plan.digest}",
            direction="maximize" if self.plan.maximize else "minimize",
            pruner=self.plan.pruner,
            load_if_exists=True,
        )
        _slots(study)  # reads every trial
        return study

    def go(self, study: optuna.Study) -> None:
        """Do trials until none is left."""
        worker = uuid4().hex
        with FileLock(self._lock_of(worker)):  # the operating system releases it even where the process is killed
            while trial := self._next(study, worker):
                self._do(study, trial)

    def _next(self, study: optuna.Study, worker: str) -> Trial | None:
        with self._exclusive():
            for running in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if self._abandoned(running):
                    _put_back(study, running)
            slot = self._slot(study)
            if slot is None:
                return None
            study.sampler = _sampler(self.plan.method, slot)
            trial = study.ask(dict(self.plan.space))
            trial.set_user_attr("worker", worker)
            return trial

    def _slot(self, study: optuna.Study) -> int | None:
        """The slot of the queue's next trial; an empty queue gets the first slot that no trial has."""
        trials = study.get_trials(deepcopy=False)
        if waiting := [trial for trial in trials if trial.state == TrialState.WAITING]:
            return waiting[0].user_attrs["slot"]
        taken = _slots(study)
        slot = next((i for i in range(self.count) if i not in taken), None)
        if slot is not None:
            point = self.plan.grid()[slot] if self.plan.method == "grid" else {}
            study.enqueue_trial(dict(point), user_attrs={"slot": slot})
        return slot

    def _do(self, study: optuna.Study, trial: Trial) -> None:
        metric = self.plan.metric

        def report(epoch: int, metrics: Mapping[str, float]) -> None:
            if metric in metrics:
                trial.report(metrics[metric], epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        words = [f"tracking.group={self.plan.name}", *self.plan.overrides, *self.plan.words(trial.params)]
        try:
            with self._log(trial.number):
                value = self.objective(self.plan.recipe, words, report).get(metric, math.nan)
            if not math.isfinite(value):
                raise DistillError(f"{metric} is {value}")
            study.tell(trial, value)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except FAILURES as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            study.tell(trial, state=TrialState.FAIL)
        except BaseException:  # Ctrl-C or a mistake in the code, not in the trial's settings
            _put_back(study, study.trials[trial.number])
            raise

    @contextlib.contextmanager
    def _log(self, number: int) -> Iterator[None]:
        """A trial's own output goes to a file; the terminal shows the sweep."""
        path = self.folder / "trials" / f"{number}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield

    def _exclusive(self) -> BaseFileLock:
        return FileLock(self.folder / ".lock")

    def _lock_of(self, worker: str) -> Path:
        workers = self.folder / ".workers"
        workers.mkdir(exist_ok=True)
        return workers / worker

    def _abandoned(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran it has ended; a worker without a lock here is on another machine."""
        lock = self._lock_of(trial.user_attrs.get("worker", "none"))
        if not lock.exists():
            return False
        try:
            with FileLock(lock, timeout=0):
                return True
        except Timeout:
            return False


def _slots(study: optuna.Study) -> set[int]:
    return {trial.user_attrs["slot"] for trial in study.get_trials(deepcopy=False)}


def _put_back(study: optuna.Study, trial: FrozenTrial) -> None:
    study.enqueue_trial(trial.params, user_attrs={"slot": trial.user_attrs["slot"]})
    study.tell(trial.number, state=TrialState.FAIL)


def _sampler(method: str, slot: int) -> BaseSampler:
    """Seeded by the slot: the same trials again, however many processes share them and however often it stops."""
    if method == "bayes":
        return TPESampler(seed=slot, constant_liar=True)  # takes running trials into account
    return RandomSampler(seed=slot)
