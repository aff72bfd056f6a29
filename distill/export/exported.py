"""What every exporter returns, and how its file is checked against the network it was made from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.errors import ExportError
from distill.models.fake_quantize import is_integer
from distill.models.surgery import deployable
from distill.tasks import Task

TOLERANCE = 1e-3
INTEGER_TOLERANCE, INTEGER_AGREEMENT = 0.1, 0.95
INTEGER_OUTLIERS = 1e-2
"""The part of all values that may differ more: integer kernels round biases to the unit of sums, in depthwise layers up
to a step of the output, and now and then a step decides much, such as which of two places correlates best."""
Pairs = Sequence[tuple[Tensor, Tensor]]
"""PyTorch's output and the file's, batch by batch."""


@dataclass(frozen=True)
class Exported:
    """A file that another runtime runs, checked against the network it was made from."""

    path: Path
    predict: Predict
    """The file's own output for a batch of inputs, computed by its runtime."""
    difference: float
    """Largest difference from PyTorch's output, relative to the largest output."""
    agreement: float
    """With PyTorch's outputs, from 0 to 1; see `distill.tasks.Task.agreement`."""
    single: Callable[[], Predict]
    """Another `predict`, on one thread: to time it."""
    plain: bool = False
    """Whether the file holds the network in ONNX and nothing else: what `distill.measure.latency` times."""
    beyond: str = ""
    """What the file computes beyond the network, in words: a part of its latency that no network has."""
    parts: tuple[Path, ...] = ()
    """Further files that belong to it."""
    coded: Path | None = None
    """The same file entropy-coded, where that pays."""

    @property
    def nbytes(self) -> int:
        """Of all files that the runtime reads."""
        return sum(path.stat().st_size for path in (self.path, *self.parts))

    def sizes(self) -> str:
        """Bytes in words: of what the runtime reads, and of the coded file."""
        coded = f" ({self.coded.stat().st_size:,} as {self.coded.name})" if self.coded else ""
        return f"{self.nbytes:,} bytes{coded}"


def to_export(artifact: Artifact, samples: list[Batch], kind: str) -> nn.Module:
    """The artifact's network in plain operators, if there are samples to check its file on.

    Raises:
        ExportError: there are none.
    """
    if not samples:
        raise ExportError(f"an {kind} file is checked on real images, but there are none: give the data set a split")
    return deployable(artifact.model).cpu().eval()


@torch.inference_mode()
def compared(
    model: nn.Module,
    predict: Predict,
    samples: list[Batch],
    task: Task,
    path: Path,
    setting: str,
    tolerance: float | None,
) -> tuple[float, float]:
    """Difference and agreement of a file's outputs, on every batch and on one image alone (any batch size must do).

    Args:
        model: what the file was made from.
        predict: from a batch of inputs to the file's outputs.
        samples: real images.
        task: what agreement is.
        path: the file, for messages.
        setting: where a recipe sets the tolerance, for messages.
        tolerance: largest difference allowed; None: 0.001, or for layers on integers, which round, 0.1 of all but one
            value in a hundred, and an agreement of 95 %.

    Raises:
        ExportError: the file computes something else, or the network's own output is NaN or Inf.
    """
    pairs = [(model(inputs), predict(inputs)) for inputs in _batches(samples)]
    if not all(reference.isfinite().all() for reference, _ in pairs):
        raise ExportError(
            f"the network outputs NaN or Inf, so {path} cannot be compared with it: "
            "train it longer, or with a lower optimizer.lr"
        )
    difference, agreement = _difference(pairs), _agreement(pairs, task)
    integers = tolerance is None and is_integer(model)
    allowed = tolerance if tolerance is not None else INTEGER_TOLERANCE if integers else TOLERANCE
    near = difference <= allowed or (integers and _outliers(pairs, allowed) <= INTEGER_OUTLIERS)
    if near and (agreement >= INTEGER_AGREEMENT or not integers):
        return difference, agreement
    remedy = "on a CPU without VNNI instructions int8.bits is to be 7" if integers else "try another opset or runtime"
    agrees = f"{task.agreement_name} {100 * agreement:.1f} %"
    if near:
        raise ExportError(
            f"{path} does not agree with PyTorch: {agrees}, but integer layers need {100 * INTEGER_AGREEMENT:.0f} %: "
            f"{remedy}, or set {setting} if a difference of {difference:.2g} of the largest output will do"
        )
    raise ExportError(
        f"{path} differs from PyTorch by {difference:.2g} of the largest output, but tolerance is {allowed:g} "
        f"({agrees}): {remedy}, or raise {setting} if that will do"
    )


def _difference(pairs: Pairs) -> float:
    """Largest |difference| over largest |output|."""
    if any(reference.shape != output.shape for reference, output in pairs):
        return float("inf")
    worst = torch.stack([(reference - output).abs().max() for reference, output in pairs]).max()
    return float(worst / _scale(pairs)) if worst != 0 else 0.0


def _outliers(pairs: Pairs, allowed: float) -> float:
    """The part of all values that differ by more than so much of the largest |output|."""
    if any(reference.shape != output.shape for reference, output in pairs):
        return 1.0
    limit = allowed * _scale(pairs)
    far = sum(int((~((reference - output).abs() <= limit)).sum()) for reference, output in pairs)  # NaN is far
    return far / sum(reference.numel() for reference, _ in pairs)


def _scale(pairs: Pairs) -> Tensor:
    return torch.stack([reference.abs().max() for reference, _ in pairs]).max()


def _agreement(pairs: Pairs, task: Task) -> float:
    """Of all samples: the mean over the batches, each by its size."""
    if any(reference.shape != output.shape for reference, output in pairs):
        return 0.0
    total = sum(len(reference) for reference, _ in pairs)
    return sum(task.agreement(output, reference) * len(reference) for reference, output in pairs) / total


def _batches(samples: list[Batch]) -> Iterator[Tensor]:
    yield samples[0].inputs[:1]
    yield from (batch.inputs for batch in samples)
