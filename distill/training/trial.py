"""A few real training steps of a stage, to see that they work and how long they take."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from distill.batch import Batch
from distill.training.distiller import Distiller
from distill.training.trainer import build_trainer, run_trainer

ONE_PROCESS: dict[str, Any] = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "max_epochs": 1,
    "max_steps": -1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 0,
    "logger": False,
    "enable_checkpointing": False,
}
"""Of Lightning's Trainer, in place of what the recipe says about processes and length."""


def try_steps(module: Distiller, batches: Sequence[Batch], settings: Mapping[str, Any]) -> list[float]:
    """Train on these batches as `distill.training.fit` does: the same precision, memory layout, compilation, optimizer.

    Args:
        module: the stage; trained in place, then moved back to the CPU.
        batches: of training samples.
        settings: the recipe's ``trainer`` section.

    Returns:
        Seconds of each step.
    """
    timer = _Timer()
    chosen = {name: value for name, value in settings.items() if name != "plugins"}
    own = build_trainer(chosen, logger=False, enable_checkpointing=False).strategy.root_device
    devices = ONE_PROCESS["devices"] if own.index is None else [own.index]  # of several GPUs, that of this process
    # Without a cluster's environment: this is one process, whatever the run will be.
    fixed = {**ONE_PROCESS, "devices": devices, "callbacks": [timer]}
    trainer = build_trainer(chosen, **fixed, plugins=[LightningEnvironment()])
    run_trainer(trainer, module, datamodule=_Batches(batches))
    module.cpu()
    return timer.seconds


class _Batches(pl.LightningDataModule):
    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(list(self.batches), batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def _as_it_is(batch: Batch) -> Batch:
    return batch


class _Timer(pl.Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # a step returns when it is sent to the GPU, not when it is computed
        self.seconds.append(time.perf_counter() - self.started)
