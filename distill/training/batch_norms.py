"""Batch norms over all processes: with statistics of the whole batch, two processes train what one would."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import pytorch_lightning as pl
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger(__name__)

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def synchronized(networks: Iterable[nn.Module], trainer: pl.Trainer, wanted: bool | None) -> Iterator[None]:
    """While it lasts, batch norms of ``networks`` compute their statistics over the batches of all processes.

    Modules change their class and stay the same objects, so that paths, hooks and optimizers still find them. Classes
    derived from batch norms may do more than normalise: such layers keep to each process's share of a batch.

    Args:
        networks: all that is trained.
        trainer: knows how many processes there are, and on which devices.
        wanted: the recipe's ``trainer.sync_batchnorm``; None synchronizes wherever PyTorch can, which is on GPUs.
    """
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, _BatchNorm)]
    layers = [layer for layer in dict.fromkeys(layers) if type(layer) is not nn.SyncBatchNorm]
    if wanted is False or trainer.world_size == 1 or not layers:
        yield
        return
    if trainer.strategy.root_device.type != "cuda":
        _warn_once("on CPUs PyTorch has no other")
        yield
        return
    classes = [(layer, type(layer)) for layer in layers if type(layer) in PLAIN]
    if others := {type(layer).__name__ for layer in layers if type(layer) not in PLAIN}:
        _warn_once(f"{', '.join(sorted(others))} cannot be synchronized")
    for layer, _ in classes:
        layer.__class__ = nn.SyncBatchNorm
        layer.process_group = None  # type: ignore[assignment]  # all processes
    try:
        yield
    finally:
        for layer, kind in classes:
            layer.__class__ = kind
            del layer.process_group


@cache
def _warn_once(reason: str) -> None:
    log.warning("batch norms use the statistics of each process's own share of a batch: %s", reason)
