"""Milliseconds that a network takes for a batch, in ONNX Runtime or in the runtime of an exported file."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.export import onnx_file


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run; the quartiles say how much the machine was disturbed."""

    median: float
    p25: float
    p75: float
    runs: int


def latency(model: nn.Module, example: Tensor, *, batch_sizes: Sequence[int], threads: int = 1) -> dict[str, float]:
    """Median milliseconds of one run at each batch size in ONNX Runtime, where small networks run 2 to 5 times faster
    than in eager PyTorch: ``{"batch1": 0.31, "batch32": 4.2}``.

    Args:
        example: (batch, channels, height, width); real images, repeated until they fill a batch.
        threads: one by default: steady on a shared machine, and what small networks gain most from.

    Raises:
        ExportError: the network has no ONNX form.
    """
    timings = file_latency(onnx_file.serialize(model, example), example, batch_sizes=batch_sizes, threads=threads)
    return {key: timing.median for key, timing in timings.items()}


def file_latency(
    file: Path | bytes,
    example: Tensor,
    *,
    batch_sizes: Sequence[int],
    threads: int = 1,
    seconds: float = 0.5,
) -> dict[str, Timing]:
    """Times an ONNX file, or its bytes, as `latency` does, for about ``seconds`` per batch size, with quartiles."""
    return timings(partial(onnx_file.answer, onnx_file.session(file, threads=threads)), example, batch_sizes, seconds)


def timings(
    run: Callable[[Tensor], Tensor], example: Tensor, batch_sizes: Sequence[int], seconds: float = 0.5
) -> dict[str, Timing]:
    """Times any function from a batch of inputs to outputs, as `file_latency` does."""
    batches = {size: example[torch.arange(size) % len(example)] for size in batch_sizes}
    return {f"batch{size}": _repeat(partial(run, batch), seconds) for size, batch in batches.items()}


def _repeat(run: Callable[[], Any], seconds: float) -> Timing:
    """Times ``run`` until ``seconds`` are spent, three times at least; a fifth of that warms caches and threads up."""
    _durations(run, seconds / 5, at_least=1)
    durations = _durations(run, seconds, at_least=3)
    p25, median, p75 = 1000 * np.percentile(durations, [25, 50, 75])
    return Timing(float(median), float(p25), float(p75), len(durations))


def _durations(run: Callable[[], Any], seconds: float, *, at_least: int) -> list[float]:
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < at_least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        durations.append(time.perf_counter() - start)
    return durations
