"""ONNX: one file for ONNX Runtime, OpenVINO, TensorRT, Core ML tools and browsers. Checked before it gets its name.

Bai et al.: ONNX, Open Neural Network Exchange. https://onnx.ai/onnx/repo-docs/IR.html
"""

import json
from functools import partial
from pathlib import Path

from distill import __version__
from distill.artifact import Artifact
from distill.atomic import replacing
from distill.batch import Batch, Predict
from distill.errors import ExportError
from distill.export import exporter, onnx_file
from distill.export.exported import Exported, compared, to_export

ABOUT = ("task", "input", "classes")  # what a program needs to feed the file and to read its answer


@exporter("onnx")
def onnx(
    artifact: Artifact, folder: Path, samples: list[Batch], *, opset: int | None = None, tolerance: float | None = None
) -> Exported:
    """Write ``folder/student.onnx``: input "input" (batch, channels, height, width), output "logits", any batch size.

    The file's ``metadata_props`` say in JSON how to normalise the input and what the classes are called. After `int8`
    it holds int8 weights, a quarter of the bytes, between QuantizeLinear and DequantizeLinear, and ONNX Runtime
    computes on uint8 activations. Any other form that weights are stored in is decoded: the file holds float32 values.

    Args:
        artifact: the compressed student.
        folder: where the file goes.
        samples: real images, on which the file is checked against PyTorch in ONNX Runtime.
        opset: version of the ONNX operators; None: the exporter's choice.
        tolerance: largest difference allowed on the samples, relative to the largest output; None: 0.001, or after
            `int8` 0.1 and the same class for 95 % of the samples.

    Raises:
        ExportError: the network has no ONNX form, or its file computes something else.
    """
    from onnx import checker

    model = to_export(artifact, samples, "ONNX")
    path = folder / "student.onnx"
    with replacing(path, ExportError) as part:
        content = onnx_file.serialize(model, samples[0].inputs, opset=opset, metadata=metadata(artifact))
        checker.check_model(content)
        part.write_bytes(content)
        predict = answers(content)
        difference, agreement = compared(model, predict, samples, path, "export.onnx.tolerance", tolerance)
    return Exported(path, predict, difference, agreement, single=partial(answers, content, threads=1))


def answers(content: bytes, *, threads: int | None = None) -> Predict:
    """What ONNX Runtime answers for a file's content."""
    return partial(onnx_file.answer, onnx_file.session(content, threads=threads))


def metadata(artifact: Artifact) -> dict[str, str]:
    """What a program needs to know beside the network."""
    about = {key: json.dumps(artifact.about[key]) for key in ABOUT if key in artifact.about}
    return about | {"distill": __version__}
