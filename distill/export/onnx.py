"""ONNX: one file for ONNX Runtime, OpenVINO, TensorRT, Core ML tools and browsers. Checked before it gets its name.

Bai et al.: ONNX, Open Neural Network Exchange. https://onnx.ai/onnx/repo-docs/IR.html
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill import __version__
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.errors import ExportError
from distill.export import exporter, onnx_file
from distill.export.coded import write_coded
from distill.export.exported import Exported, compared, to_export
from distill.files.atomic import replacing
from distill.models.surgery import deployable
from distill.registry.ranges import Count, NonNegative
from distill.tasks import Task

ABOUT = ("task", "info")  # what a program needs to feed the file and to read its output
ANY_SIZE = True  # see `keeps_any_size`


@exporter("onnx")
def onnx(
    artifact: Artifact,
    folder: Path,
    samples: list[Batch],
    task: Task,
    *,
    opset: Count | None = None,
    tolerance: NonNegative | None = None,
    nms: bool = False,
    coded: bool = True,
) -> Exported:
    """Write ``folder/student.onnx``: input "input" (batch, channels, height, width), any batch size, and any
    height and width where the task says so; the task names the output ("logits" for classification).

    The file's ``metadata_props`` hold in JSON the task and `DataInfo`: preprocessing, normalisation, class names. After
    `int8` it holds int8 weights, a quarter of the bytes, between QuantizeLinear and DequantizeLinear, and ONNX Runtime
    computes on uint8 activations. Any other form that weights are stored in is decoded: the file holds float32 values.

    Args:
        artifact: the compressed student.
        folder: where the file goes.
        samples: real images, on which the file is checked against PyTorch in ONNX Runtime.
        task: how outputs are compared, and what the output is called.
        opset: version of the ONNX operators; None: the exporter's choice.
        tolerance: largest difference allowed on the samples, relative to the largest output; None: 0.001, or after
            `int8` 0.1 of all but one value in a hundred, and an agreement of 95 %.
        nms: of a detector, a second output "detections", (objects, 7): position in the batch, class, score, left, top,
            right and bottom in pixels of the inputs, by the task's threshold and non-maximum suppression.
        coded: also write ``student.onnx.xz``, the same file entropy-coded, where that saves a tenth or more.

    Raises:
        ExportError: the network has no ONNX form, or its file computes something else.
    """
    from onnx import checker

    model = to_export(artifact, samples, "ONNX")
    path = folder / "student.onnx"
    with replacing(path, ExportError) as part:
        content = _content(model, samples, task, opset, metadata(artifact), nms)
        checker.check_model(content)
        part.write_bytes(content)
        predict = runner(content)
        difference, agreement = compared(model, predict, samples, task, path, "export.onnx.tolerance", tolerance)
    plain = not nms and opset is None and not task.any_size
    single = partial(runner, content, threads=1)
    shipped = write_coded(content, path, wanted=coded)
    beyond = "non-maximum suppression" if nms else ""
    return Exported(path, predict, difference, agreement, single=single, plain=plain, beyond=beyond, coded=shipped)


def writable(artifact: Artifact, example: Tensor, task: Task) -> None:
    """See before any training that the network has an ONNX form.

    Raises:
        ExportError: it has none.
    """
    onnx_file.check_writable(deployable(artifact.model), example, any_size=task.any_size)


def fits(task: Task, *, nms: bool = False, opset: int | None = None, **_: Any) -> None:
    """See before any training that the settings fit the task.

    Raises:
        ExportError: non-maximum suppression of something else than boxes, or an opset that cannot be written.
    """
    if opset is not None:
        onnx_file.serialize(nn.ReLU(), torch.zeros(1, 1, 2, 2), opset=opset)
    if nms and task.output_name != "anchors":
        raise ExportError(f"export.onnx.nms=true suppresses boxes, but the task is {type(task).__name__}: leave it out")


def _content(
    model: nn.Module, samples: list[Batch], task: Task, opset: int | None, about: dict[str, str], nms: bool
) -> bytes:
    """The file's content; its detections are checked."""
    fits(task, nms=nms)
    images = samples[0].inputs
    if not nms:
        return onnx_file.serialize(
            model, images, output=task.output_name, opset=opset, metadata=about, any_size=task.any_size
        )
    from distill.export import onnx_detections
    from distill.tasks.detection import Detection

    assert isinstance(task, Detection)
    names = (task.output_name, onnx_detections.BOXES, onnx_detections.SCORES)
    decoding = onnx_detections.WithDecoding(model, task)
    content = onnx_file.serialize(decoding, images, output=names, opset=opset, metadata=about)
    content = onnx_detections.with_suppression(content, task)
    onnx_detections.check_detections(onnx_file.session(content), images, task)
    return content


def runner(content: bytes, *, threads: int | None = None) -> Predict:
    """A file's content in ONNX Runtime: from a batch of inputs to outputs."""
    return partial(onnx_file.answer, onnx_file.session(content, threads=threads))


def metadata(artifact: Artifact) -> dict[str, str]:
    """What a program needs to know beside the network."""
    about = {key: json.dumps(artifact.about[key]) for key in ABOUT if key in artifact.about}
    return about | {"distill": __version__}
