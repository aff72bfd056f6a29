"""What a network costs: parameters, MACs, bytes, milliseconds. One `Step` is one row of the report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distill import onnx_file

BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Step:
    """What a network costs and how good it is after one step of a run."""

    step: str
    """"teacher", "alone", "student", "compress/1-tensor_train", "export/onnx"."""
    params: int
    macs: int
    """Multiply-accumulates for one image."""
    bytes: int
    """On disk."""
    metrics: Mapping[str, float]
    """{"val/accuracy": 0.91, "test/accuracy": 0.90}: fractions, not percent."""
    latency_ms: Mapping[str, float]
    """{"batch1": 0.31, "batch32": 4.2}: one run of the whole batch in ONNX Runtime."""
    seconds: float
    """Wall time of the step."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, as report.json and metrics.json hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Step":
        return cls(**row)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run; the quartiles say how much the machine was disturbed."""

    median: float
    p25: float
    p75: float
    runs: int


def params(model: nn.Module) -> int:
    """Number of parameter values, frozen ones and batch normalisation included; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates for one image: convolutions and matrix products, nothing else.

    Normalisation, activations, pooling and additions are left out, as published counts do. ``model`` runs once, in
    evaluation mode, and is left as it was.

    Args:
        example: (batch, channels, height, width); its first image is used.
    """
    device = next((parameter.device for parameter in model.parameters()), example.device)
    counter = FlopCounterMode(display=False)
    with _evaluating(model), torch.no_grad(), counter:
        model(example[:1].to(device))
    return counter.get_total_flops() // 2


def latency(
    model: nn.Module, example: Tensor, *, batch_sizes: Sequence[int] = BATCH_SIZES, threads: int = 1
) -> dict[str, float]:
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
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: int = 1,
    seconds: float = 0.5,
) -> dict[str, Timing]:
    """Times an ONNX file, or its bytes, as `latency` does, for about ``seconds`` per batch size, with quartiles."""
    return timings(partial(onnx_file.answer, onnx_file.session(file, threads=threads)), example, batch_sizes, seconds)


def timings(
    run: Callable[[Tensor], Tensor], example: Tensor, batch_sizes: Sequence[int] = BATCH_SIZES, seconds: float = 0.5
) -> dict[str, Timing]:
    """Times whatever answers batches, as `file_latency` does."""
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


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
