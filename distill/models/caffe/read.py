"""Networks that Caffe wrote: MODEL.prototxt says which layers there are, MODEL.caffemodel holds their weights.

Jia et al.: Caffe: Convolutional Architecture for Fast Feature Embedding. arXiv:1408.5093
"""

import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import ArtifactError
from distill.models.caffe import _plain, _weighted
from distill.models.caffe._files import read_network, read_weights
from distill.models.caffe._fusion import join_scales
from distill.models.caffe._layer import Layer, Part
from distill.models.caffe.network import CaffeNet, build, values_of

CONVERTERS: Mapping[str, Callable[[Layer], list[Part]]] = {
    "AbsVal": _plain.pointwise,
    "BNLL": _plain.pointwise,
    "BatchNorm": _weighted.batch_norm,
    "Concat": _plain.concat,
    "Convolution": _weighted.convolution,
    "Crop": _plain.crop,
    "Deconvolution": _weighted.convolution,
    "DetectionOutput": _plain.detection_output,
    "Dropout": _plain.dropout,
    "ELU": _plain.elu,
    "Eltwise": _plain.eltwise,
    "Flatten": _plain.flatten,
    "InnerProduct": _weighted.inner_product,
    "LRN": _plain.lrn,
    "Normalize": _weighted.normalize,
    "PReLU": _weighted.prelu,
    "Permute": _plain.permute,
    "Pooling": _plain.pooling,
    "Power": _plain.power,
    "PriorBox": _plain.prior_box,
    "ReLU": _plain.relu,
    "Reshape": _plain.reshape,
    "Scale": _weighted.scale,
    "Sigmoid": _plain.pointwise,
    "Slice": _plain.slice_,
    "Softmax": _plain.softmax,
    "Split": _plain.split,
    "TanH": _plain.pointwise,
}
RESERVED = frozenset([*dir(nn.Module()), *dir(CaffeNet), "entry", "inputs", "joined", "layers", *keyword.kwlist])
"""Names that no child module may have, or that torch.export cannot write down."""
NOTHING = ("Input", "Silence")
"""Layers that compute nothing."""


def read(prototxt: Path | str, caffemodel: Path | str) -> CaffeNet:
    """The network of two files, in eval mode, with the outputs that Caffe's network has.

    Args:
        prototxt: in text, with Input layers or ``input`` and its shape: what Caffe users call the deploy prototxt.
        caffemodel: in protobuf's binary form.

    Raises:
        ArtifactError: a file is missing, truncated, damaged or something else, the two do not belong together, or
            layers have a type or a setting that is not known; all unknown types are named.
    """
    network = read_network(Path(prototxt))
    _refuse_unknown(Path(prototxt), network.layers)
    if network.complaint:
        raise ArtifactError(f"{prototxt}: line {network.complaint}; remove what does not change the outputs")
    blobs = read_weights(Path(caffemodel))
    _refuse_unrelated(Path(prototxt), Path(caffemodel), network.layers, blobs)
    reading = _Reading(network.inputs)
    for layer in network.layers:
        try:
            reading.add(replace(layer, blobs=blobs.get(layer.name, ())))
        except ArtifactError as error:
            raise ArtifactError(f"{prototxt}: {error}") from None
    return reading.finish(Path(prototxt))


class _Reading:
    """Layers one after another, each tried on the shapes that it reads, without memory for values."""

    def __init__(self, inputs: Mapping[str, tuple[int, ...]]) -> None:
        self.inputs = inputs
        self.values = {name: torch.empty(shape, device="meta") for name, shape in inputs.items()}
        self.named = {name: name for name in inputs}
        """Name of a map in Caffe, where a layer may overwrite what it reads -> value that it is now."""
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, Tensor] = {}
        self.names: set[str] = set()
        self.weighted: set[str] = set()
        """Names that Caffe knows weights by."""

    def add(self, layer: Layer) -> None:
        missing = [bottom for bottom in layer.bottoms if bottom not in self.named]
        layer.need(not missing, f"reads {missing}, which no layer before it computes")
        if layer.type in NOTHING:
            return
        layer.need(len(layer.bottoms) > 0 and len(layer.tops) > 0, "has no bottom or no top")
        names = [self.named[bottom] for bottom in layer.bottoms]
        shapes = [tuple(self.values[name].shape) for name in names]
        try:
            for part in CONVERTERS[layer.type](replace(layer, shapes=shapes)):
                names = self._append(layer, part, names, 1 if part.suffix else len(layer.tops))
        except ArtifactError:
            raise
        except Exception as error:  # PyTorch's shape functions refuse impossible sizes in many ways
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            layer.need(False, f"cannot read maps of {', '.join(str(list(shape)) for shape in shapes)}: {reason}")
        layer.need(len(names) == len(layer.tops), f"has {len(layer.tops)} tops, but computes {len(names)}")
        self.named |= dict(zip(layer.tops, names, strict=True))

    def _append(self, layer: Layer, part: Part, inputs: list[str], outputs: int) -> list[str]:
        name = self._free(f"{layer.name}{part.suffix}", bool(part.weights))
        entry = {"name": name, "type": part.type, "inputs": inputs, "outputs": outputs, **part.settings}
        with torch.device("meta"):
            module = build(entry).eval()
        if part.type == "DetectionOutput":  # how many it finds depends on the image
            results: tuple[Tensor, ...] = (torch.empty(1, 1, 1, 7, device="meta"),)
        else:
            result = module(*[self.values[value] for value in inputs])
            results = result if isinstance(result, tuple) else (result,)
        self.values |= dict(zip(values_of(entry), results, strict=True))
        self.layers.append(entry)
        self.weights |= {f"{name}.{key}": value for key, value in part.weights.items()}
        return list(values_of(entry))

    def _free(self, name: str, weighted: bool) -> str:
        """A name that a child module may have and that no other has."""
        base = name.replace(".", "_").replace(":", "_") or "layer"
        if weighted and base in self.weighted:
            raise ValueError("has the name of another layer with weights")
        free, number = base, 1
        while free in self.values or free in self.names or free in RESERVED:
            number += 1
            free = f"{base}_{number}"
        self.names.add(free)
        self.weighted |= {base} if weighted else set()
        return free

    def finish(self, prototxt: Path) -> CaffeNet:
        if not self.layers:
            raise ArtifactError(f"{prototxt} has no layers that compute anything")
        layers, weights = join_scales(self.layers, self.weights)
        inputs = {name: list(shape[1:]) for name, shape in self.inputs.items()}
        with torch.device("meta"):
            net = CaffeNet([_short(before, layer) for before, layer in zip([None, *layers], layers)], inputs)
        net.load_state_dict(weights, assign=True)
        return net.eval()


def _short(before: dict[str, Any] | None, layer: dict[str, Any]) -> dict[str, Any]:
    """The entry without keys that have their default: reading the layer before, and one output."""
    if before and layer["inputs"] == [values_of(before)[0]]:
        layer = {key: value for key, value in layer.items() if key != "inputs"}
    return layer if layer["outputs"] != 1 else {key: value for key, value in layer.items() if key != "outputs"}


def _refuse_unknown(prototxt: Path, layers: Iterable[Layer]) -> None:
    unknown = [layer for layer in layers if layer.type not in CONVERTERS and layer.type not in NOTHING]
    if unknown:
        named = ", ".join(f"'{layer.name}' ({layer.type or 'no type'})" for layer in unknown)
        raise ArtifactError(
            f"{prototxt} has layers of unknown types: {named}; known are {', '.join(CONVERTERS)} "
            "(layers that read data or compute a loss belong to training: give the deploy prototxt)"
        )


def _refuse_unrelated(
    prototxt: Path, caffemodel: Path, layers: Sequence[Layer], blobs: Mapping[str, Sequence[Any]]
) -> None:
    if not {layer.name for layer in layers} & blobs.keys():
        some = ", ".join(f"'{name}'" for name in list(blobs)[:3])
        raise ArtifactError(f"{caffemodel} and {prototxt} do not belong together: {some} is in the former alone")
