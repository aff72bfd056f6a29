"""A network as the bytes of one ONNX file, and a session that runs it: what ships, and what latency is measured on."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from distill.errors import ExportError
from distill.export.onnx_integers import prefer_codes
from distill.models import fake_quantize
from distill.models.copied import copied

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT = "input"
LARGEST = 2**31 - 2**20  # protobuf refuses messages of 2 GiB; a megabyte is left for the graph


def serialize(
    model: nn.Module,
    example: Tensor,
    *,
    output: str | Sequence[str] = "output",
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    any_size: bool = False,
) -> bytes:
    """One self-contained ONNX file (no external data) of ``model`` in evaluation mode; ``model`` is left as it is.

    Input "input" and the output have a free batch dimension: one file serves every batch size.

    Args:
        example: (batch, channels, height, width); only its shape beyond the batch matters.
        output: name of the output, or names of several.
        opset: version of the ONNX operators; None: the exporter's choice.
        metadata: goes into the file's ``metadata_props``.
        any_size: height and width are free as well.

    Raises:
        ExportError: the network has an operator without ONNX form, control flow that depends on values,
            or more weights than one file may hold.
    """
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if weights > LARGEST:
        raise ExportError(
            f"{type(model).__name__} holds {weights / 2**30:.1f} GiB of weights, but one ONNX file holds at most 2: "
            "compress it further, or export a smaller network"
        )
    copy = copied(model).cpu().eval()
    fake_quantize.write_codes(copy)
    graph = _graph(copy, example[:1].cpu(), output, opset, any_size)
    written = next(entry.version for entry in graph.opset_import if not entry.domain)
    if opset not in (None, written):
        raise ExportError(f"opset {opset} cannot be written, but {written} can: set it to {written} or leave it out")
    prefer_codes(graph.graph)
    _strip(graph)
    graph.metadata_props.extend(_entries(metadata or {}))
    return graph.SerializeToString()


def check_writable(model: nn.Module, example: Tensor, *, any_size: bool = False) -> None:
    """See that `serialize` can write ``model``, in a tenth of its time where ``torch.export`` follows the network.

    Raises:
        ExportError: it cannot.
    """
    pair, free = _pair(example[:1].cpu(), any_size)
    try:
        with _quiet():
            torch.export.export(copied(model).cpu().eval(), (pair,), dynamic_shapes=(dict.fromkeys(free, Dim.DYNAMIC),))
    except Exception:  # of many kinds; the exporter to ONNX has further ways to follow a network
        serialize(model, example, any_size=any_size)


def session(file: Path | bytes, *, threads: int | None = None, name: Path | None = None) -> "InferenceSession":
    """ONNX Runtime on the CPU.

    Args:
        file: where the network is, or its content.
        threads: None: as many as PyTorch uses.
        name: where content was read from, for messages.

    Raises:
        ExportError: ONNX Runtime cannot run the file.
    """
    import onnxruntime  # half a second to import: not before an export

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or torch.get_num_threads()
    settings.log_severity_level = 3  # errors only
    source = file if isinstance(file, bytes) else str(file)
    try:
        return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other base
        place = name if isinstance(file, bytes) else file
        named = f"'{place}'" if place else "the network"
        raise ExportError(
            f"ONNX Runtime cannot run {named}: {str(error).splitlines()[0]}; if it is not whole, export it again"
        ) from error


def answer(runtime: "InferenceSession", inputs: Tensor) -> Tensor:
    """The exported network's output for one batch."""
    return torch.from_numpy(runtime.run(None, {INPUT: inputs.cpu().numpy()})[0])


def _pair(image: Tensor, any_size: bool) -> tuple[Tensor, dict[int, str]]:
    """An input to follow a network with, and the names of its free dimensions."""
    pair = image.repeat(2, 1, 1, 1)  # torch.export takes a batch of one for a constant
    return pair, {0: "batch"} | ({2: "height", 3: "width"} if any_size else {})


def _graph(model: nn.Module, image: Tensor, output: str | Sequence[str], opset: int | None, any_size: bool) -> Any:
    pair, free = _pair(image, any_size)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (pair,),
                input_names=[INPUT],
                output_names=[output] if isinstance(output, str) else list(output),
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=(free,),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ExportError(
            f"{type(model).__name__} has no ONNX form: {reason} Replace that operation by one that ONNX has"
        ) from error
    assert program is not None
    return program.model_proto


def _strip(graph: Any) -> None:
    """Drop the exporter's notes: stack traces of this machine, a tenth of a small network's file."""
    del graph.graph.metadata_props[:], graph.graph.value_info[:]
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _entries(metadata: Mapping[str, str]) -> list[Any]:
    from onnx import StringStringEntryProto

    return [StringStringEntryProto(key=key, value=value) for key, value in metadata.items()]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and its libraries' deprecations; neither helps who runs a recipe."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
