"""Weights & Biases: offline unless the recipe says otherwise, silent, and never a reason for a run to stop."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock, Timeout
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from distill.artifact.step import Step
from distill.pipeline._history import History
from distill.pipeline.provenance import provenance

Mode = Literal["online", "offline", "disabled"]
log = logging.getLogger(__name__)

START_SECONDS, FINISH_SECONDS = 20.0, 300.0
"""How long an unreachable server may hold up a run."""
TABLE_ROWS = 10_000
"""What W&B shows of a table."""


class Tracker:
    """One W&B run for everything that happens in one run's folder.

    Any error of W&B is logged once, as a warning, and ends the tracking instead of the run. A run that goes on in its
    folder goes on under its W&B id, and offline its folder has the earlier rows too. Under a W&B agent it is the run
    that the agent asked for, and online unless ``WANDB_MODE`` says otherwise.

    >>> with Tracker(folder, name="quickstart", config=resolved) as tracker:
    ...     Trainer(logger=tracker.logger("student/hint"))

    Args:
        folder: the run's folder; W&B's own files go to ``wandb`` below it.
        name: the run's name in W&B.
        config: the resolved recipe; `provenance` is added to it.
        mode: ``online`` falls back to ``offline`` without a network or an API key; ``disabled`` never imports wandb.
        project: as in W&B, like ``entity``, ``group`` and ``tags``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        mode: Mode = "offline",
        project: str = "distill",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._run: Any = None
        self._history: History | None = None
        self._lock = FileLock(folder / "wandb" / ".lock")
        if mode == "disabled" or getattr(rank_zero_only, "rank", 0) != 0:
            return
        about = {"name": name, "group": group, "tags": list(tags), "config": {**config, "provenance": provenance()}}
        place = {"project": project, "entity": entity}
        agent = "WANDB_SWEEP_ID" in os.environ
        for attempt in dict.fromkeys((os.environ.get("WANDB_MODE", "online") if agent else mode, "offline")):
            try:
                self._run = _start(folder, attempt, about if agent else {**about, **place, "id": self._id(folder)})
                if self._history and attempt == "offline":
                    self._replay(folder)
                return
            except Exception as error:
                instead = "without it" if attempt == "offline" else "offline"
                log.warning("W&B does not start %s, the run goes on %s: %s", attempt, instead, _one_line(error))

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(0 if kind is None else 1)

    def logger(self, prefix: str) -> "StepLogger | Literal[False]":
        """For the Trainer of one step: names its metrics ``prefix/...``. False, as Trainers want it, without W&B."""
        self._define_axis(prefix)
        return StepLogger(self, prefix) if self._run else False

    def log(self, prefix: str, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One point of the curves of a step. The student's validation metrics are also logged under their plain names:
        there the W&B side of a sweep looks for its metric."""
        if history := self._history:
            self._try(lambda _: history.add(prefix, metrics, step))
        self._log(prefix, metrics, step)

    def steps(self, steps: Sequence[Step]) -> None:
        """The step table, every number of it in the summary, and the `headline` under plain names."""
        rows = [_flat(step) for step in steps]
        columns: list[Any] = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[row.get(column) for column in columns] for row in rows]
        summary = {f"{row['step']}/{key}": value for row in rows for key, value in row.items() if key != "step"}

        def write(run: Any) -> None:
            import wandb

            run.log({"steps": wandb.Table(columns=columns, data=cells)})
            run.summary.update(summary | headline(steps))

        self._try(write)

    def confusion(self, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
        """``matrix[true][predicted]`` as W&B's confusion matrix; of very many classes the largest cells."""
        cells = [(classes[i], classes[j], n) for i, row in enumerate(matrix) for j, n in enumerate(row) if n]
        cells = sorted(cells, key=lambda cell: -cell[2])[:TABLE_ROWS]
        fields: list[Any] = ["Actual", "Predicted", "nPredictions"]

        def write(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=fields, data=cells)
            chart = wandb.plot_table("wandb/confusion_matrix/v1", table, {field: field for field in fields})
            run.log({"confusion": chart})

        self._try(write)

    def artifact(self, path: Path, name: str, metadata: Mapping[str, Any]) -> None:
        """A file as a W&B artifact of type ``model``; offline it is read from its place when the run is synced."""

        def write(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=dict(metadata))
            artifact.add_file(str(path.absolute()), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._try(write)

    def finish(self, exit_code: int = 0) -> None:
        """End the W&B run; afterwards all methods do nothing."""
        self._try(lambda run: run.finish(exit_code=exit_code))
        self._run = self._history = None
        self._lock.release()

    def _id(self, folder: Path) -> str:
        """The id kept in the folder; a second run that works in the folder at the same time gets one of its own."""
        if not self._history:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return secrets.token_hex(4)
            self._history = History(folder / "wandb" / "history.jsonl")
        return _run_id(folder)

    def _replay(self, folder: Path) -> None:
        """Log the rows of the runs that were stopped here, whose folders are then of no more use."""
        assert self._history
        rows = list(self._history)
        for prefix in dict.fromkeys(row.prefix for row in rows):
            self._define_axis(prefix)
        for row in rows:
            self._log(*row)
        current = Path(self._run.dir).parent.resolve()
        for old in (folder / "wandb").resolve().glob(f"offline-run-*-{self._run.id}*"):
            if old != current and not list(old.glob("*.synced")):
                shutil.rmtree(old, ignore_errors=True)

    def _define_axis(self, prefix: str) -> None:
        """Every Trainer counts its steps from 0, so each prefix has an x-axis of its own."""
        self._try(lambda run: run.define_metric(f"{prefix}/step", hidden=True))
        self._try(lambda run: run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step"))

    def _log(self, prefix: str, metrics: Mapping[str, float], step: int | None) -> None:
        row = {f"{prefix}/{key}": value for key, value in metrics.items()} | {f"{prefix}/step": step}
        if prefix.startswith("student/"):
            row |= {key: value for key, value in metrics.items() if key.startswith("val/")}
        self._try(lambda run: run.log(row))

    def _try(self, act: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            act(self._run)
        except Exception as error:
            self._run = None
            log.warning("W&B failed, the run goes on without it: %s", _one_line(error))


class StepLogger(WandbLogger):
    """Lightning's logger, writing through a `Tracker`."""

    def __init__(self, tracker: Tracker, prefix: str) -> None:
        super().__init__(experiment=tracker._run, save_dir=tracker._run.dir, prefix=prefix)
        self._tracker = tracker

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._tracker.log(self._prefix, metrics, step)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: they are in the recipe, which was logged when the run began."""


def headline(steps: Sequence[Step]) -> dict[str, float]:
    """What a run has achieved: the row of its last network that is not an export. Sweeps optimise one of these."""
    final = _flat([step for step in steps if not step.step.startswith("export/")][-1])
    return {key: value for key, value in final.items() if key not in ("step", "seconds")}


def _start(folder: Path, mode: str, about: Mapping[str, Any]) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's service asks for the host of its error reports
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))  # a silent wandb never asks for an account
    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        init_timeout=START_SECONDS,
        finish_timeout=FINISH_SECONDS,
        reinit="create_new",  # one process may have several runs
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
    )
    try:
        return wandb.init(dir=str(folder), settings=settings, **about)
    except Exception:
        wandb.teardown()  # or the id of this attempt would count as taken in the next
        raise


def _run_id(folder: Path) -> str:
    """Kept in the folder: a run that goes on there goes on as the same W&B run."""
    file = folder / "wandb" / "run-id"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(4))
    return file.read_text()


def _flat(step: Step) -> dict[str, Any]:
    latency = {f"latency_ms/{key}": value for key, value in step.latency_ms.items()}
    row = step.to_json()
    nested = {name: row.pop(name) for name in ("metrics", "latency_ms")}
    return {**row, **nested["metrics"], **latency}


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
