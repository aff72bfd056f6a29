"""Whether other processes take the cores that a training counts on."""

from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from distill.console import console

THREADS = Path("/proc/self/task")
TOLERATED = 0.15
"""Share of its time that a training may wait for a core before that is said."""


class BusyMachine(pl.Callback):
    """Says once, after an epoch on several CPU threads, that other processes took the cores, and what may help.

    Threads that share an operation wait for the slowest, spinning: beside a process that wants one of two cores, the
    quickstart took twice its seconds on two threads, and 1.4 times on one (docs/benchmarks/quickstart.md). Linux counts
    how long threads wait for a core; elsewhere nothing is said.
    """

    said: ClassVar = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = seconds_of_threads()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        computed, waited = (now - then for now, then in zip(seconds_of_threads(), self.before, strict=True))
        threads = torch.get_num_threads() if trainer.strategy.root_device.type == "cpu" else 1
        share = waited / (computed + waited) if computed > 0 else 0.0  # a thread that ended takes its seconds along
        if threads > 1 and share > TOLERATED and not BusyMachine.said:
            BusyMachine.said = True
            console.print(
                f"note: for {100 * share:.0f} % of the time the {threads} threads waited for cores that other "
                "processes had, and each waits for the slowest: OMP_NUM_THREADS=1 may train faster beside them"
            )


def seconds_of_threads() -> tuple[float, float]:
    """How long this process's threads have computed, and waited for a core; zeros where the system does not count."""
    counts: list[Any] = []
    for thread in THREADS.glob("*/schedstat"):
        try:
            counts.append([int(number) / 1e9 for number in thread.read_text().split()[:2]])
        except (OSError, ValueError):  # the thread has ended
            continue
    computed, waited = (sum(column) for column in zip(*counts, strict=True)) if counts else (0.0, 0.0)
    return computed, waited
