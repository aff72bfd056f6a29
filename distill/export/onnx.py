"""ONNX: one file for ONNX Runtime, OpenVINO, TensorRT, Core ML tools and browsers. Checked before it gets its name.

Bai et al.: ONNX, Open Neural Network Exchange. https://onnx.ai/onnx/repo-docs/IR.html
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from distill import __version__, onnx_file
from distill.artifact import Artifact, deployable
from distill.atomic import replacing
from distill.batch import Batch
from distill.errors import ExportError
from distill.export import exporter
from distill.export._exported import Exported

ABOUT = ("task", "input", "classes")  # what a program needs to feed the file and to read its answer


@exporter("onnx")
def onnx(
    artifact: Artifact, folder: Path, samples: list[Batch], *, opset: int | None = None, tolerance: float = 1e-3
) -> Exported:
    """Write ``folder/student.onnx``: input "input" (batch, channels, height, width), output "logits", any batch size.

    The file's ``metadata_props`` say in JSON how to normalise the input and what the classes are called. Whatever form
    the artifact's weights are stored in, the file holds what they decode to, in float32: a quantized artifact computes
    the same numbers here but is not smaller than its network.

    Args:
        artifact: the compressed student.
        folder: where the file goes.
        samples: real images, on which the file is checked against PyTorch in ONNX Runtime.
        opset: version of the ONNX operators; None: the exporter's choice.
        tolerance: largest difference allowed on the samples, relative to the largest output.

    Raises:
        ExportError: the network has no ONNX form, or its file computes something else.
    """
    from onnx import checker

    if not samples:
        raise ExportError("an ONNX file is checked on real images, but there are none: give the data set a split")
    model = deployable(artifact.model).cpu().eval()
    path = folder / "student.onnx"
    with replacing(path, ExportError) as part:
        content = onnx_file.serialize(model, samples[0].inputs, opset=opset, metadata=_metadata(artifact))
        checker.check_model(content)
        part.write_bytes(content)
        predict = partial(onnx_file.answer, onnx_file.session(part.read_bytes()))
        difference = _difference(model, predict, samples)
        if not difference <= tolerance:  # also true of a difference that is not a number
            raise ExportError(
                f"{path} differs from PyTorch by {difference:.2g} of the largest output, but tolerance is "
                f"{tolerance:g}: try another export.onnx.opset, or raise export.onnx.tolerance if that will do"
            )
    return Exported(path, predict, difference)


def _metadata(artifact: Artifact) -> dict[str, str]:
    about = {key: json.dumps(artifact.about[key]) for key in ABOUT if key in artifact.about}
    return about | {"distill": __version__}


@torch.inference_mode()
def _difference(model: nn.Module, predict: Callable[[Tensor], Tensor], samples: list[Batch]) -> float:
    """Largest |difference| over largest |output|, on every batch and on one image alone (any batch size must do)."""
    pairs = [(model(inputs), predict(inputs)) for inputs in _batches(samples)]
    if any(ours.shape != theirs.shape for ours, theirs in pairs):
        return float("inf")
    worst = torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max()
    scale = torch.stack([ours.abs().max() for ours, _ in pairs]).max()
    return float(worst / scale) if worst != 0 else 0.0


def _batches(samples: list[Batch]) -> Iterator[Tensor]:
    yield samples[0].inputs[:1]
    yield from (batch.inputs for batch in samples)
