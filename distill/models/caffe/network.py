"""A network from Caffe as plain data, and the module that it describes."""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.models.caffe._detection import DetectionOutput
from distill.models.caffe._modules import MODULES
from distill.registry import did_you_mean, imported

LARGEST = 2**24
"""Characters of the layers' JSON; a network of a thousand layers has a hundred thousand."""
LARGEST_WEIGHTS = 2**29
"""Values of float32 in the 2 GiB that one message of protobuf holds."""
Layer = Mapping[str, Any]
"""``{"name": "conv1", "type": "Convolution", "inputs": ["data"], "outputs": 1, **settings of the module}``. Without
``inputs``, it reads what the layer before it computes."""


class Step(NamedTuple):
    """A layer, and the values that it reads and computes. A value is called like its layer, or NAME:1, NAME:2, ..."""

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class CaffeNet(nn.Module):
    """Layers in order, each a child module of the name that Caffe knows it by.

    ``forward`` gives what Caffe's network does: the one map that no layer reads, or a dict of them by name. With
    ``joined`` it stops before `DetectionOutput` and gives one tensor, of shape (batch, values) if several end there:
    differentiable and of fixed size, which is what compression hooks and exporters work on.

    Args:
        layers: see `Layer`.
        inputs: name -> (channels, height, width).
        joined: whether to give one tensor; may be set later.

    Attributes:
        layers: as they were given.
        entry: rebuilds the network, with other weights, by `caffe`; plain data, its layers packed.

    Raises:
        ValueError: a layer that is not known, or that reads what no layer before it computes.
    """

    def __init__(self, layers: Sequence[Layer], inputs: Mapping[str, Sequence[int]], *, joined: bool = False) -> None:
        super().__init__()
        if not inputs:
            raise ValueError("a network needs an input")
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.joined = joined
        self.layers = tuple(dict(layer) for layer in layers)
        self.entry: dict[str, Any] = {"name": "caffe", "layers": pack(self.layers), "inputs": dict(inputs)}
        known, last = set(self.inputs), next(iter(self.inputs))
        steps = []
        for layer in layers:
            step = _step(layer, last)
            if missing := [name for name in step.inputs if name not in known]:
                raise ValueError(f"layer '{step.layer}' reads '{missing[0]}', which no layer before it computes")
            known.update(step.outputs)
            last = step.outputs[0]
            self.add_module(step.layer, build(layer))
            steps.append(step)
        self._whole = _ending(steps, _unread(steps))
        self._head = _ending(steps, _before_detection(self, steps))

    def deploy(self) -> "CaffeNet":
        """As other runtimes can have it: joined."""
        self.joined = True
        return self

    @property
    def detects(self) -> bool:
        """Whether it ends in detections alone."""
        return self._whole[1] != self._head[1] and len(self._whole[1]) == 1

    @property
    def several(self) -> bool:
        """Whether several values are joined when they are."""
        return len(self._head[1]) > 1

    def forward(self, images: Tensor | Mapping[str, Tensor]) -> Any:
        steps, ends = self._head if self.joined else self._whole
        values = self.values(images, steps)
        if not self.joined or len(ends) == 1:
            return values[ends[0]] if len(ends) == 1 else {name: values[name] for name in ends}
        return torch.cat([values[name].flatten(1) for name in ends], 1)

    def values(self, images: Tensor | Mapping[str, Tensor], steps: Sequence[Step] | None = None) -> dict[str, Tensor]:
        """All that is computed, by name. Images are a tensor, or a dict of them where a network has several inputs."""
        given = images if isinstance(images, Mapping) else {next(iter(self.inputs)): images}
        values = {name: given[name] for name in self.inputs}
        for step in self._whole[0] if steps is None else steps:
            result = self.get_submodule(step.layer)(*[values[name] for name in step.inputs])
            results = (result,) if len(step.outputs) == 1 and not isinstance(result, tuple) else result
            values |= dict(zip(step.outputs, results, strict=True))
        return values


@imported("caffe")
def caffe(*, layers: Sequence[Layer] | str, inputs: Mapping[str, Sequence[int]], joined: bool = False) -> CaffeNet:
    """The network of an entry ``{"name": "caffe", "layers": ..., "inputs": ...}``, with fresh weights.

    Args:
        layers: see `Layer`; or what `pack` makes of them.
        inputs: name -> (channels, height, width).
        joined: whether to give one tensor.

    Raises:
        ValueError: a layer that is not known, or that reads what no layer before it computes; sizes that no network
            has; a text that `pack` did not make.
    """
    layers = unpack(layers) if isinstance(layers, str) else layers
    try:
        with torch.device("meta"):  # sizes are an artifact's word: counted before there is memory for them
            values = sum(tensor.numel() for tensor in CaffeNet(layers, inputs).state_dict().values())
    except (AttributeError, RuntimeError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    if values > LARGEST_WEIGHTS:
        raise ValueError(f"its layers have {values:,} weights, more than a caffemodel can hold")
    return CaffeNet(layers, inputs, joined=joined)


def pack(layers: Sequence[Layer]) -> str:
    """Layers as a short text (JSON, zlib, base 85): a tenth of the JSON, which is half of a small network's file."""
    return base64.b85encode(zlib.compress(json.dumps(layers, separators=(",", ":")).encode(), 9)).decode()


def unpack(text: str) -> list[Layer]:
    """The layers in a text that `pack` made.

    Raises:
        ValueError: it is another text, or its JSON is longer than any network's.
    """
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b85decode(text), LARGEST)
        layers = json.loads(data) if stream.eof else None
    except (zlib.error, ValueError, RecursionError):
        layers = None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("its layers are damaged, or longer than they may be")
    return layers


def build(layer: Layer) -> nn.Module:
    """The module of a layer.

    Raises:
        ValueError: the layer's type is not known.
        TypeError: its module has no such setting.
    """
    settings = {key: value for key, value in layer.items() if key not in ("name", "type", "inputs", "outputs")}
    if layer["type"] not in MODULES:
        raise ValueError(f"unknown layer type {did_you_mean(str(layer['type']), MODULES)}")
    return MODULES[layer["type"]](**settings)


def values_of(layer: Layer) -> tuple[str, ...]:
    """Names of what a layer computes."""
    name, count = layer["name"], layer.get("outputs", 1)
    return (name,) if count == 1 else tuple(f"{name}:{position}" for position in range(1, count + 1))


def _step(layer: Layer, last: str) -> Step:
    return Step(layer["name"], tuple(layer.get("inputs", [last])), values_of(layer))


def _unread(steps: Iterable[Step]) -> list[str]:
    read = {name for step in steps for name in step.inputs}
    return [name for step in steps for name in step.outputs if name not in read]


def _before_detection(net: nn.Module, steps: Sequence[Step]) -> list[str]:
    """The values that detections are made from, in place of these: locations and confidences, which follow from the
    image; default boxes do not."""
    detectors = {s.outputs[0]: s.inputs[:2] for s in steps if isinstance(net.get_submodule(s.layer), DetectionOutput)}
    ends = [end for name in _unread(steps) for end in detectors.get(name, (name,))]
    return list(dict.fromkeys(ends))


def _ending(steps: Sequence[Step], ends: list[str]) -> tuple[tuple[Step, ...], list[str]]:
    """Only those steps that the ``ends`` follow from, in order."""
    wanted, kept = set(ends), []
    for step in reversed(steps):
        if wanted.intersection(step.outputs):
            wanted.update(step.inputs)
            kept.append(step)
    return tuple(reversed(kept)), ends
