"""Milliseconds that networks take for a batch, in ONNX Runtime or in the runtime of an exported file."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.batch import Predict
from distill.export import onnx_file

ROUNDS = 5
"""At least so many runs of each network."""
SAME_SPEED = "\N{ALMOST EQUAL TO}"
"""In tables, before a latency whose quartiles overlap with those that it is compared with."""
BUSY = 0.1
"""Share of the time that went to other processes, from which on latencies are said to be disturbed."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run; the quartiles say how much the machine was disturbed."""

    median: float
    p25: float
    p75: float
    runs: int

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one."""
        return self.p25, self.p75


@dataclass(frozen=True)
class Race:
    """Networks that were timed side by side."""

    timings: Mapping[str, Mapping[str, Timing]]
    """Network -> batch size as "batch1" -> its timing."""
    waited: float
    """Share of the time, from 0 to 1, that runs waited for other processes of the machine; with several threads, at
    least so much."""


def same_speed(quartiles: Sequence[float], others: Sequence[float]) -> bool:
    """Whether the lower and upper quartiles of two latencies overlap, so that their medians tell no difference."""
    return quartiles[0] <= others[1] and others[0] <= quartiles[1]


def busy(waited: float) -> str:
    """What a table says about a machine that had other work; empty if it had little."""
    return f"the machine was busy: {100 * waited:.0f} % of the time went to other processes" if waited > BUSY else ""


def predictor(model: nn.Module, example: Tensor, *, threads: int = 1) -> Predict:
    """A network in ONNX Runtime, where small ones run 2 to 5 times faster than in eager PyTorch.

    Args:
        example: (batch, channels, height, width).
        threads: one by default: steady on a shared machine, and what small networks gain most from.

    Raises:
        ExportError: the network has no ONNX form.
    """
    return partial(onnx_file.answer, onnx_file.session(onnx_file.serialize(model, example), threads=threads))


def round_robin(
    networks: Mapping[str, Predict],
    example: Tensor | Mapping[str, Tensor],
    batch_sizes: Sequence[int],
    seconds: float = 0.5,
) -> Race:
    """Time networks in turns, one run of each a round, so that what disturbs the machine disturbs all of them alike.

    Args:
        networks: by name.
        example: (batch, channels, height, width), of all networks or of each by name; real images, repeated until they
            fill a batch.
        batch_sizes: at which to time.
        seconds: for each network and batch size, on average; every network has at least `ROUNDS` runs.
    """
    images = example if isinstance(example, Mapping) else dict.fromkeys(networks, example)
    measured: dict[str, dict[str, Timing]] = {name: {} for name in networks}
    wall, processor = time.perf_counter(), time.process_time()
    for size in batch_sizes:
        runs = {
            name: partial(predict, images[name][torch.arange(size) % len(images[name])])
            for name, predict in networks.items()
        }
        for name, timing in in_turns(runs, seconds).items():
            measured[name][f"batch{size}"] = timing
    waited = 1 - (time.process_time() - processor) / max(time.perf_counter() - wall, 1e-9)
    return Race(measured, max(0.0, waited))


def in_turns(runs: Mapping[str, Callable[[], Any]], seconds: float = 0.5) -> dict[str, Timing]:
    """Time any functions, one call of each a round, for about ``seconds`` each on average.

    Rounds for a fifth of that time before warm caches and threads up.
    """
    seconds *= len(runs)
    warm = time.perf_counter() + seconds / 5
    while True:
        for run in runs.values():
            run()
        if time.perf_counter() >= warm:
            break
    durations: dict[str, list[float]] = {name: [] for name in runs}
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < ROUNDS or time.perf_counter() < end:
        rounds += 1
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            durations[name].append(time.perf_counter() - start)
    return {name: _timing(some) for name, some in durations.items()}


def _timing(durations: Sequence[float]) -> Timing:
    p25, median, p75 = 1000 * np.percentile(durations, [25, 50, 75])
    return Timing(float(median), float(p25), float(p75), len(durations))
