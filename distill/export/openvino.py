"""OpenVINO: Intel's runtime, the fastest for integer layers on x86 CPUs. An extra: pip install 'distill[openvino]'.

OpenVINO's intermediate representation (2026): https://docs.openvino.ai/2026/documentation/openvino-ir-format.html
"""

from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.batch import Batch, Predict
from distill.errors import ExportError
from distill.export import exporter, onnx_file
from distill.export.exported import Exported, compared, to_export
from distill.export.onnx import ABOUT, metadata
from distill.files.atomic import replacing
from distill.models.surgery import deployable
from distill.registry.ranges import NonNegative
from distill.tasks import Task

ANY_SIZE = True  # see `keeps_any_size`
METADATA = "distill"
"""The section of a file's ``rt_info`` with what ONNX files hold in their ``metadata_props``."""


@exporter("openvino")
def openvino(
    artifact: Artifact,
    folder: Path,
    samples: list[Batch],
    task: Task,
    *,
    half: bool = False,
    tolerance: NonNegative | None = None,
) -> Exported:
    """Write ``folder/student.xml``, the network, and ``folder/student.bin``, its weights: in int8 after `int8`.

    Args:
        artifact: the compressed student.
        folder: where the files go.
        samples: real images, on which they are checked against PyTorch in OpenVINO.
        task: how outputs are compared, and what the output is called.
        half: keep what float weights there are in 16 bits: half the bytes, computed with in 32.
        tolerance: largest difference allowed on the samples, relative to the largest output; None: 0.001, or after
            `int8` 0.1 of all but one value in a hundred, and an agreement of 95 %.

    Raises:
        ExportError: OpenVINO is not installed, the network has no ONNX form, through which it goes, or the files
            compute something else.
    """
    runtime = installed()
    model = to_export(artifact, samples, "OpenVINO")
    images = samples[0].inputs
    content = onnx_file.serialize(model, images, output=task.output_name, any_size=task.any_size)
    network = _core().read_model(content)
    for key, value in metadata(artifact).items():
        network.set_rt_info(value, [METADATA, key])
    path, weights = folder / "student.xml", folder / "student.bin"
    with (
        TemporaryDirectory() as draft,
        replacing(path, ExportError) as path_part,
        replacing(weights, ExportError) as weights_part,
    ):
        runtime.save_model(network, Path(draft) / path.name, compress_to_fp16=half)
        written = [(Path(draft) / file.name).read_bytes() for file in (path, weights)]
        path_part.write_bytes(written[0])
        weights_part.write_bytes(written[1])
        predict = runner(*written, threads=torch.get_num_threads())
        difference, agreement = compared(model, predict, samples, task, path, "export.openvino.tolerance", tolerance)
    return Exported(path, predict, difference, agreement, partial(runner, *written, threads=1), parts=(weights,))


def runner(network: bytes, weights: bytes, *, threads: int) -> Predict:
    """The network in OpenVINO on the CPU, float layers in 32 bits: from a batch of inputs to outputs."""
    core = _core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # a thread bound to a core that is busy waits for milliseconds
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(network, weights), "CPU", settings)
    request, reads = compiled.create_infer_request(), compiled.input(0).partial_shape

    def run(inputs: Tensor) -> Tensor:
        shape = reads.__class__(list(inputs.shape))
        if not reads.compatible(shape):  # OpenVINO would return nothing, or end the process
            raise ExportError(f"the network reads inputs of {reads}, not of {shape}: resize the images")
        results = request.infer({0: inputs.cpu().numpy()})
        return torch.from_numpy(np.array(results[0]))  # a copy: the next request writes into the same memory

    return run


def read(path: Path) -> tuple[Predict, dict[str, str]]:
    """An exported file's network, and its metadata: what it says about its task and its images.

    Raises:
        ExportError: OpenVINO is not installed, or cannot read the file.
    """
    core = _core()
    try:
        network, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        model = core.read_model(network, weights)
        said = [key for key in ABOUT if model.has_rt_info([METADATA, key])]
        about = {key: str(model.get_rt_info([METADATA, key]).value) for key in said}
        return runner(network, weights, threads=torch.get_num_threads()), about
    except RuntimeError as error:  # OpenVINO's errors have no other base
        raise ExportError(f"OpenVINO cannot read '{path}': {str(error).splitlines()[-1]}") from error


def installed() -> Any:
    """OpenVINO, if it is installed.

    Raises:
        ExportError: it is not; says how to get it.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError(f"export.openvino needs OpenVINO ({error}): pip install openvino") from error
    return openvino


def writable(artifact: Artifact, example: Tensor, task: Task) -> None:
    """See before any training that the network has an ONNX form, through which it goes.

    Raises:
        ExportError: it has none.
    """
    onnx_file.check_writable(deployable(artifact.model), example, any_size=task.any_size)


@cache
def _core() -> Any:
    """One for the whole process: freed before the networks that it compiled, it corrupts the heap."""
    return installed().Core()
