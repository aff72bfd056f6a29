"""What a training shows and records, epoch by epoch."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from distill.console import console
from distill.training.stopwatch import Stopwatch

Curve = list[dict[str, float]]
OnEpoch = Callable[[str, int, dict[str, float]], None]


class Epochs(pl.Callback):
    """Shows a progress bar, keeps one row of metrics per epoch, and passes it on.

    A row also has ``seconds``, of the whole epoch with its validation, and ``teacher_seconds``, the teacher's share
    of them. Where the output is no terminal, every epoch is one line instead of a progress bar.
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
        self.teacher = Stopwatch(getattr(pl_module, "teacher", None))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.validated = time.perf_counter(), False
        self.teacher.restart()
        for key in [key for key in trainer.callback_metrics if key.startswith("train/")]:
            del trainer.callback_metrics[key]  # Lightning would show it again in an epoch that does not log it
        title = f"{self.title} {trainer.current_epoch + 1}/{self.epochs}"
        self.progress.reset(self.bar, total=int(trainer.num_training_batches), description=title)

    def on_train_batch_end(self, *_: Any) -> None:
        self.progress.advance(self.bar)

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not self.validated:  # `trainer.check_val_every_n_epoch`: Lightning still shows those of an earlier epoch
            metrics = {key: value for key, value in metrics.items() if not key.startswith("val/")}
        seconds = time.perf_counter() - self.started
        teacher = {"teacher_seconds": self.teacher.seconds()} if self.teacher.module else {}
        self.curve.append({"epoch": trainer.current_epoch + 1, **metrics, "seconds": seconds, **teacher})
        shown = {key: metrics[key] for key in ("train/loss", self.monitor) if key in metrics}
        text = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
        self.progress.update(self.bar, metrics=text)
        if not console.is_terminal:
            console.print(f"{self.title:<22} epoch {trainer.current_epoch + 1}/{self.epochs}  {text}  {seconds:.1f} s")
        if self.on_epoch:
            self.on_epoch(self.title, trainer.current_epoch + 1, metrics)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.progress.stop()
        if hasattr(self, "teacher"):
            self.teacher.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = state_dict["curve"]
