"""The two files of a network from Caffe, as messages of protobuf; bytes are read up to a stated limit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from distill.errors import ArtifactError
from distill.models.caffe._layer import Layer
from distill.models.caffe._schema import ENUMS, PACKAGE, V1_TYPES, network

LARGEST_TEXT = 16 * 2**20
"""Bytes of a prototxt; that of a network of a thousand layers has a quarter of a megabyte."""
LARGEST_BINARY = 2**31 - 1
"""Bytes of one message that protobuf reads."""
LARGEST_NETWORK = 10_000
"""Layers."""
TEST = 1
OLD_TYPES = {int(number): name for name, number in (pair.split() for pair in ENUMS["V1Type"].split(", "))}


class Network(NamedTuple):
    """What a prototxt says."""

    inputs: Mapping[str, tuple[int, ...]]
    layers: Sequence[Layer]
    complaint: str | None
    """The first setting that is not known, and its line."""


def read_network(path: Path) -> Network:
    """The layers that run outside training.

    Raises:
        ArtifactError: the file is missing or no prototxt, or does not say the shape of its inputs.
    """
    message, complaint = _parse(path, _text(path))
    layers = _layers(path, message)
    if not layers:
        raise ArtifactError(f"{path} has no layers: it is not the prototxt of a network")
    return Network(_inputs(path, message), layers, complaint)


def read_weights(path: Path) -> dict[str, Sequence[Any]]:
    """Layer -> its blobs; layers without any are left out.

    Raises:
        ArtifactError: the file is missing, truncated, something else, or holds no weights.
    """
    data = _bytes(path, LARGEST_BINARY)
    if data.startswith(b"\x89HDF"):
        raise ArtifactError(f"{path} is an HDF5 file: let Caffe write it with snapshot_format: BINARYPROTO")
    message = network()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise ArtifactError(f"{path} is truncated, damaged or not a caffemodel") from None
    found: dict[str, Sequence[Any]] = {}
    for layer in (*message.layer, *message.layers):
        if layer.blobs:
            if layer.name in found:
                raise ArtifactError(f"{path} has two layers '{layer.name}' with weights")
            found[layer.name] = layer.blobs
    if not found:
        raise ArtifactError(f"{path} holds no weights: it is not a caffemodel, or one of the oldest format (V0)")
    return found


def _bytes(path: Path, largest: int) -> bytes:
    try:
        if path.stat().st_size > largest:
            raise ArtifactError(f"{path} has {path.stat().st_size:,} bytes, more than the {largest:,} that are read")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return _bytes(path, LARGEST_TEXT).decode()
    except UnicodeDecodeError:
        raise ArtifactError(f"{path} is not text: give the prototxt first, then the caffemodel") from None


def _parse(path: Path, text: str) -> tuple[Any, str | None]:
    """The message, and what in it is not known; read again without that, so that unknown layers can be named."""
    try:
        return text_format.Parse(text, network()), None
    except (text_format.ParseError, RecursionError, ValueError) as error:
        complaint = str(error).splitlines()[0].replace(f"{PACKAGE}.", "")
    try:
        return text_format.Parse(text, network(), allow_unknown_field=True), complaint
    except (text_format.ParseError, RecursionError, ValueError):
        raise ArtifactError(f"{path} is not a prototxt, or damaged: line {complaint}") from None


def _inputs(path: Path, message: Any) -> dict[str, tuple[int, ...]]:
    """Inputs that are said outside layers, and those of Input layers."""
    dims = list(message.input_dim)
    shapes = [tuple(shape.dim) for shape in message.input_shape] or [
        tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)
    ]
    found = _named(path, "input", message.input, shapes)
    for layer in message.layer:
        if layer.type == "Input" and _runs(layer):
            shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
            found |= _named(path, layer.name, layer.top, shapes * len(layer.top) if len(shapes) == 1 else shapes)
    if not found:
        raise ArtifactError(f"{path} has no input with a shape: add a layer of type Input")
    for name, shape in found.items():
        if len(shape) < 2 or min(shape) < 1:
            raise ArtifactError(f"{path}: input '{name}' has shape {list(shape)}, but a batch and channels are needed")
    return found


def _named(
    path: Path, where: str, names: Sequence[str], shapes: Sequence[tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    if len(names) != len(shapes):
        raise ArtifactError(f"{path}: '{where}' has {len(names)} names and {len(shapes)} shapes: give each its shape")
    return dict(zip(names, shapes, strict=True))


def _layers(path: Path, message: Any) -> list[Layer]:
    if message.layer and message.layers:
        raise ArtifactError(f"{path} has layers of the old format ('layers') beside new ones ('layer')")
    if len(message.layer) + len(message.layers) > LARGEST_NETWORK:
        raise ArtifactError(f"{path} has more than {LARGEST_NETWORK:,} layers")
    if any(layer.HasField("layer") for layer in message.layers):
        raise ArtifactError(f"{path} has the oldest format (V0): let Caffe's upgrade_net_proto_text rewrite it")
    return [
        Layer(layer, layer.name, _type(layer), tuple(layer.bottom), tuple(layer.top))
        for layer in (*message.layer, *message.layers)
        if _runs(layer)
    ]


def _type(layer: Any) -> str:
    """Today's name of a layer's type, or the old one where there is none."""
    if isinstance(layer.type, str):
        return layer.type
    name = OLD_TYPES.get(layer.type, str(layer.type))
    return V1_TYPES.get(name, name)


def _runs(layer: Any) -> bool:
    """Whether the layer is there outside training."""
    if layer.include:
        return any(map(_met, layer.include))
    return not any(map(_met, layer.exclude))


def _met(rule: Any) -> bool:
    phase = not rule.HasField("phase") or rule.phase == TEST
    level = rule.min_level <= 0 and (not rule.HasField("max_level") or rule.max_level >= 0)
    return phase and level and not rule.stage
