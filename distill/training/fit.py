"""One stage on Lightning's Trainer: progress, curves, checkpoints, resuming."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import nn

from distill.artifact import Plan
from distill.data import DataModule
from distill.errors import RecipeError, TrainingError
from distill.models.state import load_state
from distill.parent import followed_by_children
from distill.processes import naming_lost_processes
from distill.recipe.schema import Stage
from distill.training.batch_norms import synchronized
from distill.training.busy_machine import BusyMachine
from distill.training.checkpoints import BEST, LAST, CheckpointFiles, resume_point
from distill.training.distiller import Distiller
from distill.training.epochs import Curve, Epochs, OnEpoch
from distill.training.trainer import build_trainer, run_trainer

__all__ = ["Curve", "OnEpoch", "Trained", "fit"]


class Trained(NamedTuple):
    """The result of a stage."""

    student: nn.Module
    """The network to keep, in eval mode and on the CPU."""
    plans: list[Plan]
    """How the stage changed its structure."""
    curve: Curve
    """One row of metrics per epoch."""


def fit(
    module: Distiller,
    data: DataModule,
    folder: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    monitor: str = "val/accuracy",
    mode: Literal["max", "min"] = "max",
    logger: Logger | bool = False,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train until the stage ends; a run that was killed goes on from the newest checkpoint in ``folder``.

    Args:
        module: the stage; its student is trained in place.
        data: where batches come from.
        folder: where checkpoints are kept meanwhile.
        title: the step's name, shown and passed to ``on_epoch``.
        settings: the recipe's ``trainer`` section, for Lightning's Trainer.
        monitor: the metric that decides which epoch is best, as it is logged.
        mode: whether the largest or the smallest value of ``monitor`` is best.
        logger: a Lightning logger, or False.
        on_epoch: called after every epoch with title, epoch (from 1) and metrics; may raise to stop.

    Raises:
        RecipeError: the stage keeps its best epoch, but there is no validation split to find it.
        TrainingError: a weight is NaN or Inf, or another process of the run was lost.
        DistillError: a checkpoint cannot be written.
    """
    stage = module.stage
    validates = len(data.val_dataloader()) > 0
    if stage.keep == "best" and not validates:
        raise RecipeError("keep: best needs a validation split, and there is none: set data.val=0.1, for example")
    epochs = Epochs(title, stage.epochs, monitor, on_epoch)
    # `last` is saved after `best`, so that it records which epoch was the best. Lightning's `save_last` would skip
    # epochs that are worse.
    best = [_checkpoint(folder, BEST, monitor=monitor, mode=mode)] if stage.keep == "best" else []
    checkpoints = [*best, _checkpoint(folder, LAST)]
    trainer = build_trainer(
        settings,
        plugins=[CheckpointFiles()],
        partial=_partial(stage),
        max_epochs=stage.epochs,
        logger=logger,
        callbacks=[
            *(epochs, BusyMachine(), *checkpoints),
            *([LearningRateMonitor(logging_interval="epoch")] if logger else []),
        ],
        **{} if validates else {"limit_val_batches": 0},
    )
    with synchronized(module.method.learning(), trainer, settings.get("sync_batchnorm")), naming_lost_processes(title):
        _train(trainer, title, module, data, resume_point(folder, module, needs_best=bool(best)))
    if best:
        state = torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"]
        load_state(module, state, strict=False)
    student, plans = module.deployed()
    student = student.cpu().to(memory_format=torch.contiguous_format)
    if broken := [name for name, value in student.state_dict().items() if not value.isfinite().all()]:
        raise TrainingError(f"{title}: weight '{broken[0]}' is NaN or Inf; lower optimizer.lr")
    return Trained(student, plans, epochs.curve)


def _train(trainer: pl.Trainer, title: str, module: Distiller, data: DataModule, checkpoint: Path | None) -> None:
    """Train from ``checkpoint``, or from the start; an error names the stage."""
    batches = cast(pl.LightningDataModule, data)
    try:
        with followed_by_children():
            run_trainer(trainer, module, datamodule=batches, ckpt_path=checkpoint, weights_only=True)
    except TrainingError as error:
        raise TrainingError(f"{title}: {error}") from error


def _checkpoint(folder: Path, name: str, **judged: Any) -> ModelCheckpoint:
    """Keeps one epoch in ``folder``: the best by ``monitor``, or the last one, to go on from."""
    return MovableCheckpoint(
        folder,
        filename=Path(name).stem,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        **judged,
    )


class MovableCheckpoint(ModelCheckpoint):
    """Still knows the best epoch when a run goes on after its folder was moved: Lightning stores whole paths."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(cast(str, self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "last_model_path", "kth_best_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


def _partial(stage: Stage) -> bool:
    """Whether a step of this stage may train only a part of the network."""
    return bool(not stage.task_weight or stage.train != ["*"] or stage.blocks or stage.stochastic_depth)
