"""ONNX: one file for ONNX Runtime, OpenVINO, TensorRT, Core ML tools and browsers. Checked before it gets its name.

Bai et al.: ONNX, Open Neural Network Exchange. https://onnx.ai/onnx/repo-docs/IR.html
"""

import json
from functools import partial
from pathlib import Path

from distill import __version__
from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.errors import ExportError
from distill.export import exporter, onnx_file
from distill.export.exported import Exported, compared, to_export
from distill.files.atomic import replacing
from distill.registry.ranges import Count, NonNegative
from distill.tasks import Task

ABOUT = ("task", "info")  # what a program needs to feed the file and to read its output


@exporter("onnx")
def onnx(
    artifact: Artifact,
    folder: Path,
    samples: list[Batch],
    task: Task,
    *,
    opset: Count | None = None,
    tolerance: NonNegative | None = None,
) -> Exported:
    """Write ``folder/student.onnx``: input "input" (batch, channels, height, width), any batch size, and any
    height and width where the task says so; the task names the output ("logits" for classification).

    The file's ``metadata_props`` hold in JSON the task and `DataInfo`: preprocessing, normalisation, class names. After
    `int8`
    it holds int8 weights, a quarter of the bytes, between QuantizeLinear and DequantizeLinear, and ONNX Runtime
    computes on uint8 activations. Any other form that weights are stored in is decoded: the file holds float32 values.

    Args:
        artifact: the compressed student.
        folder: where the file goes.
        samples: real images, on which the file is checked against PyTorch in ONNX Runtime.
        task: how outputs are compared, and what the output is called.
        opset: version of the ONNX operators; None: the exporter's choice.
        tolerance: largest difference allowed on the samples, relative to the largest output; None: 0.001, or after
            `int8` 0.1 and an agreement of 95 %.

    Raises:
        ExportError: the network has no ONNX form, or its file computes something else.
    """
    from onnx import checker

    model = to_export(artifact, samples, "ONNX")
    path = folder / "student.onnx"
    with replacing(path, ExportError) as part:
        content = onnx_file.serialize(
            model,
            samples[0].inputs,
            output=task.output_name,
            opset=opset,
            metadata=metadata(artifact),
            any_size=task.any_size,
        )
        checker.check_model(content)
        part.write_bytes(content)
        predict = runner(content)
        difference, agreement = compared(model, predict, samples, task, path, "export.onnx.tolerance", tolerance)
    return Exported(path, predict, difference, agreement, single=partial(runner, content, threads=1))


def runner(content: bytes, *, threads: int | None = None) -> Predict:
    """A file's content in ONNX Runtime: from a batch of inputs to outputs."""
    return partial(onnx_file.answer, onnx_file.session(content, threads=threads))


def metadata(artifact: Artifact) -> dict[str, str]:
    """What a program needs to know beside the network."""
    about = {key: json.dumps(artifact.about[key]) for key in ABOUT if key in artifact.about}
    return about | {"distill": __version__}
