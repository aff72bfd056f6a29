"""A sweep file in W&B's format, run by Optuna on this machine; W&B agents run the same file."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import accumulate
from pathlib import Path

import torch
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from distill.console import console, quiet_libraries
from distill.data import DataInfo
from distill.errors import DistillError, RecipeError, UserError
from distill.files import atomic
from distill.pipeline.run import run
from distill.pipeline.tracking import headline
from distill.recipe.files import find
from distill.recipe.loading import load
from distill.recipe.plain import key, resolved
from distill.recipe.reading import sections
from distill.recipe.schema import Recipe
from distill.registry import call, did_you_mean
from distill.sweep.file import SIZES, SweepFile, read, short
from distill.sweep.progress import shown
from distill.sweep.work import Objective, Report, SweepWorker
from distill.tasks import injectable, task

SOME_DATA = DataInfo(channels=3, image_size=(32, 32), mean=(0.5,), std=(0.5,), class_names=tuple(map(str, range(1000))))
"""A sweep asks the task which metrics there may be before it reads any data."""


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    best: Path
    """The best recipe: ``python train.py recipe=BEST``."""
    value: float
    """Its metric."""
    trials: tuple[FrozenTrial, ...]
    """Every trial, as it last ended."""


def train(name: str, overrides: Sequence[str], report: Report) -> Mapping[str, float]:
    """One trial is one whole run; the epochs of the student's stages are reported, counted through all of them."""
    recipe = load(name, overrides)
    starts = dict(zip(recipe.stages, accumulate((s.epochs for s in recipe.stages.values()), initial=0), strict=False))

    def on_epoch(step: str, epoch: int, metrics: dict[str, float]) -> None:
        kind, _, stage = step.partition("/")
        if kind == "student":
            report(starts[stage] + epoch, metrics)

    return headline(run(recipe, on_epoch=on_epoch).steps)


def sweep(
    file: Path,
    *,
    trials: int | None = None,
    jobs: int = 1,
    storage: str | None = None,
    overrides: Sequence[str] = (),
    objective: Objective = train,
) -> SweepResult:
    """Run a sweep file in W&B's format on this machine; the same call goes on with a sweep that was stopped.

    Trials that need several processes each (``trainer.strategy=ddp``) are for W&B agents.

    Args:
        file: the sweep file.
        trials: how many in all, counting those of earlier calls; default: the file's ``run_cap``, or the whole grid.
        jobs: worker processes; each gets its share of this process's threads.
        storage: URL of an SQL database; default: a file beside the results. Several machines may share one.
        overrides: set in every trial, after those of the file's ``command``.
        objective: runs one trial: (recipe, overrides, report) -> metrics.

    Raises:
        RecipeError: the file is malformed, or its recipe has no such parameter.
        DistillError: no trial ended well, or a worker died.
    """
    plan = read(file, overrides)
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}, but a sweep has at least one worker")
    count = _count(plan, trials)
    folder = _check(plan).output / "sweeps" / plan.name
    plan = replace(plan, digest=key(plan.digest, sections(find(plan.recipe)))[:8])  # an edited recipe is a new sweep
    folder.mkdir(parents=True, exist_ok=True)
    work = SweepWorker(plan, count, folder, storage, objective)
    study = work.study()
    with shown(study, plan, count):
        if jobs == 1:
            work.go(study)
        else:
            _in_processes(work, jobs)
    last = {trial.user_attrs["slot"]: trial for trial in study.get_trials(deepcopy=False)}
    return _conclude(plan, folder, [last[slot] for slot in sorted(last)])


def _count(plan: SweepFile, trials: int | None) -> int:
    count = plan.run_cap if trials is None else trials
    if count is not None and count < 1:
        raise UserError(f"--trials is {count}, but a sweep has at least one")
    if plan.method == "grid":
        size = len(plan.grid())
        return min(size, count or size)
    if count is None:
        raise UserError(f"sweep '{plan.path}' has no run_cap: say how many with --trials N")
    return count


def _check(plan: SweepFile) -> Recipe:
    """The sweep's recipe, after it has accepted every choice and every bound of the parameters."""
    try:
        for sample in plan.extremes():
            recipe = load(plan.recipe, [*plan.overrides, *plan.words(sample)])
    except RecipeError as error:
        raise RecipeError(f"sweep '{plan.path}': {error}") from None
    _check_metric(plan, recipe)
    return recipe


def _check_metric(plan: SweepFile, recipe: Recipe) -> None:
    """See that a run has the metric, and that the goal is the direction in which it becomes better."""
    component = task.find(recipe.task.name)
    some_data = replace(SOME_DATA, images=getattr(component, "input_images", 1))
    meaning = call(component, recipe.task, injectable(some_data))
    better: dict[str, bool | None] = {f"val/{name}": high for name, high in meaning.higher_is_better().items()}
    better |= dict.fromkeys((*SIZES, *(f"latency_ms/batch{size}" for size in recipe.latency_batch_sizes)), False)
    if plan.metric not in better:
        raise RecipeError(f"sweep '{plan.path}' at metric.name: unknown metric {did_you_mean(plan.metric, better)}")
    if better[plan.metric] not in (None, plan.maximize):
        goal = "maximize" if better[plan.metric] else "minimize"
        raise RecipeError(f"sweep '{plan.path}' at metric.goal: of {plan.metric} the task wants to {goal}; write that")


def _in_processes(work: SweepWorker, jobs: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    workers = [spawn.Process(target=_worker, args=(work, threads)) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
    if died := [worker.exitcode for worker in workers if worker.exitcode]:
        raise DistillError(f"{len(died)} of {jobs} workers died (exit code {died[0]}); the same command goes on")


def _worker(work: SweepWorker, threads: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()  # a killed sweep must not go on in its workers
    torch.set_num_threads(threads)
    quiet_libraries()
    try:
        work.go(work.study())
    except DistillError as error:
        console.print(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # the sweep itself reports it
        pass


def _conclude(plan: SweepFile, folder: Path, trials: Sequence[FrozenTrial]) -> SweepResult:
    ranked = sorted(trials, key=lambda trial: _rank(plan, trial))
    console.print(_table(plan, ranked))
    best = ranked[0]
    if best.state != TrialState.COMPLETE or best.value is None:
        raise DistillError(f"no trial of sweep '{plan.path}' ended well; the best: {plan.describe(best).rstrip()}")
    path = folder / "best.yaml"
    words = plan.words(best.params)
    header = (
        f"# Best of {len(trials)} trials of sweep '{plan.name}' ({plan.method}): {plan.metric} {best.value:.4f}, "
        f"{date.today()}.\n#   python train.py recipe={path}\n# The sweep chose: {'  '.join(words)}\n"
    )
    with atomic.replacing(path) as part:
        part.write_text(header + resolved(load(plan.recipe, [*plan.overrides, *words])))
    console.print(f"best recipe: python train.py recipe={path}", soft_wrap=True)
    return SweepResult(path, best.value, tuple(trials))


def _rank(plan: SweepFile, trial: FrozenTrial) -> tuple[bool, bool, float]:
    """Best first: completed trials, then stopped ones, then failures."""
    value = trial.value
    if value is None:
        return True, True, 0.0
    return trial.state != TrialState.COMPLETE, False, -value if plan.maximize else value


def _table(plan: SweepFile, trials: Sequence[FrozenTrial]) -> Table:
    table = Table("trial", plan.metric, "state", "seconds", box=None, pad_edge=False)
    for parameter in plan.space:
        table.add_column(parameter, overflow="fold")
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        parameters = [short(trial.params.get(name, "")) for name in plan.space]
        table.add_row(str(trial.number), value, trial.state.name.lower(), seconds, *parameters)
    return table
