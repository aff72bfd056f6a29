"""One stage on Lightning's Trainer: progress, curves, checkpoints, resuming."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from distill.artifact import Plan
from distill.console import console
from distill.data import DataModule
from distill.errors import RecipeError, TrainingError
from distill.recipe.schema import Stage
from distill.training.distiller import Distiller

Curve = list[dict[str, float]]
OnEpoch = Callable[[str, int, dict[str, float]], None]


class Trained(NamedTuple):
    """What a stage leaves."""

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
    logger: Logger | bool = False,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train until the stage ends; a run that was killed goes on from ``folder/last.ckpt``.

    Args:
        module: the stage; its student is trained in place.
        data: where batches come from.
        folder: where checkpoints are kept meanwhile.
        title: the step's name, shown and passed to ``on_epoch``.
        settings: the recipe's ``trainer`` section, for Lightning's Trainer.
        logger: a Lightning logger, or False.
        on_epoch: called after every epoch with title, epoch (from 1) and metrics; may raise to stop.

    Raises:
        TrainingError: a weight is no longer a number.
    """
    stage, task = module.stage, module.task
    monitor = f"val/{task.monitor}"
    validates = len(data.val_dataloader()) > 0
    if stage.keep == "best" and not validates:
        raise RecipeError("keep: best needs a validation split, but data.val is 0")
    epochs = Epochs(title, stage.epochs, monitor, on_epoch)
    # The last one comes last: it remembers which epoch was the best. Its own `save_last` would skip worse epochs.
    best = [_checkpoint(folder, "best", monitor, task.mode)] if stage.keep == "best" else []
    checkpoints = [*best, _checkpoint(folder, "last")]
    trainer = pl.Trainer(
        **_defaults(validates) | dict(settings) | _strategy(stage, settings),
        max_epochs=stage.epochs,
        logger=logger,
        callbacks=[epochs, *checkpoints] + ([LearningRateMonitor(logging_interval="epoch")] if logger else []),
    )
    _go_on(trainer, module, data, folder / "last.ckpt")
    if best:
        state = torch.load(best[0].best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state, strict=False)
    student, plans = module.deployed()
    student = student.cpu().to(memory_format=torch.contiguous_format)
    if broken := [name for name, value in student.state_dict().items() if not value.isfinite().all()]:
        raise TrainingError(f"{title}: weight '{broken[0]}' is no longer a number; lower optimizer.lr")
    return Trained(student, plans, epochs.curve)


def _go_on(trainer: pl.Trainer, module: Distiller, data: DataModule, last: Path) -> None:
    """Train from ``last`` if it is there, else from the start."""
    try:
        trainer.fit(
            module,
            datamodule=cast(pl.LightningDataModule, data),
            ckpt_path=last if last.is_file() else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None


def _checkpoint(folder: Path, name: str, monitor: str | None = None, mode: str = "max") -> ModelCheckpoint:
    """Keeps one epoch in ``folder/name.ckpt``: the best by ``monitor``, or the last one, to go on from."""
    return ModelCheckpoint(
        folder,
        filename=name,
        monitor=monitor,
        mode=mode,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _defaults(validates: bool) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # our samplers know their rank
        "log_every_n_steps": 1_000_000,  # everything is logged once per epoch
    }
    return defaults if validates else {**defaults, "limit_val_batches": 0}


def _strategy(stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where a stage trains a part of the network only, DDP has to look which gradients there are to wait for."""
    partial = not stage.task_weight or stage.train != ["*"] or stage.blocks or stage.stochastic_depth
    return {"strategy": "ddp_find_unused_parameters_true"} if settings.get("strategy") == "ddp" and partial else {}


class Epochs(pl.Callback):
    """Shows a progress bar, keeps one row of metrics per epoch, and passes it on.

    Where the output is no terminal, every epoch is one line instead.
    """

    def __init__(self, title: str, epochs: int, monitor: str, on_epoch: OnEpoch | None) -> None:
        self.title, self.epochs, self.monitor, self.on_epoch = title, epochs, monitor, on_epoch
        self.curve: Curve = []
        self.progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bar = self.progress.add_task(title, metrics="", total=None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()
        for key in [key for key in trainer.callback_metrics if key.startswith("train/")]:
            del trainer.callback_metrics[key]  # Lightning would show it again in an epoch that does not log it
        title = f"{self.title} {trainer.current_epoch + 1}/{self.epochs}"
        self.progress.reset(self.bar, total=int(trainer.num_training_batches), description=title)

    def on_train_batch_end(self, *_: Any) -> None:
        self.progress.advance(self.bar)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.curve.append({"epoch": trainer.current_epoch + 1, **metrics})
        shown = {key: metrics[key] for key in ("train/loss", self.monitor) if key in metrics}
        text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
        self.progress.update(self.bar, metrics=text)
        if not console.is_terminal:
            seconds = time.perf_counter() - self.started
            console.print(f"{self.title:<22} epoch {trainer.current_epoch + 1}/{self.epochs}  {text}  {seconds:.1f} s")
        if self.on_epoch:
            self.on_epoch(self.title, trainer.current_epoch + 1, metrics)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.progress.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = state_dict["curve"]
