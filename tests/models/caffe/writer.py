"""Writes what Caffe would: a prototxt and a caffemodel, from layers or from a network trained here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from distill.models.caffe._schema import ENUMS, V1_TYPES, network

OLD = {today: old for old, today in V1_TYPES.items()}
NUMBERS = dict(pair.split() for pair in ENUMS["V1Type"].split(", "))
Blobs = Mapping[str, Sequence[np.ndarray]]


class Files(NamedTuple):
    prototxt: Path
    caffemodel: Path


class Written(NamedTuple):
    """One layer: its name and type, the text of its settings, its blobs."""

    name: str
    type: str
    settings: str = ""
    blobs: Sequence[np.ndarray] = ()
    bottoms: Sequence[str] | None = None
    tops: Sequence[str] | None = None


def write(folder: Path, layers: Sequence[Written], shape: Sequence[int], *, old: bool = False) -> Files:
    """Both files of a network that reads ``image`` of that shape; ``old``: in the V1 format, with four-axis blobs."""
    dims = " ".join(f"dim: {size}" for size in shape)
    if old:
        text = ['input: "image"', *(f"input_dim: {size}" for size in shape)]
    else:
        text = [f'layer {{ name: "image" type: "Input" top: "image" input_param {{ shape {{ {dims} }} }} }}']
    last, message = "image", network()
    for layer in layers:
        bottoms, tops = layer.bottoms or [last], layer.tops or [layer.name]
        kind = OLD[layer.type] if old else f'"{layer.type}"'
        ends = [f'bottom: "{name}"' for name in bottoms] + [f'top: "{name}"' for name in tops]
        text.append(
            f'{"layers" if old else "layer"} {{ name: "{layer.name}" type: {kind} {" ".join(ends)} {layer.settings} }}'
        )
        last = tops[0]
        if old:
            written = message.layers.add(name=layer.name, type=int(NUMBERS[kind]))
        else:
            written = message.layer.add(name=layer.name, type=layer.type)
        for blob in layer.blobs:
            _fill(written.blobs.add(), np.asarray(blob, np.float32), old)
    files = Files(folder / "net.prototxt", folder / "net.caffemodel")
    files.prototxt.write_text("\n".join(text) + "\n")
    files.caffemodel.write_bytes(message.SerializeToString())
    return files


def _fill(blob: Any, values: np.ndarray, old: bool) -> None:
    if old:
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - values.ndim) + values.shape
    else:
        blob.shape.dim.extend(values.shape)
    blob.data.extend(values.ravel().tolist())


def layers_of(model: nn.Sequential) -> list[Written]:
    """The layers of a network in plain order, children named as they are."""
    found = []
    for name, module in model.named_children():
        found += _layers(name, module)
    return found


def _layers(name: str, module: nn.Module) -> list[Written]:
    blobs = [value.detach().numpy() for value in module.parameters()]
    if isinstance(module, nn.Conv2d):
        ends = ("pad", module.padding), ("stride", module.stride), ("dilation", module.dilation)
        sizes = " ".join(f"{key}: {value}" for key, values in ends for value in values)
        kernel = " ".join(f"kernel_size: {size}" for size in module.kernel_size)
        bias = f"bias_term: {str(module.bias is not None).lower()} group: {module.groups}"
        settings = f"convolution_param {{ num_output: {module.out_channels} {kernel} {sizes} {bias} }}"
        return [Written(name, "Convolution", settings, blobs)]
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_mean is not None
        assert module.running_var is not None
        factor = 3.0  # Caffe keeps sums, and of how much
        sums = [module.running_mean.numpy() * factor, module.running_var.numpy() * factor, np.array([factor])]
        return [
            Written(f"{name}/bn", "BatchNorm", f"batch_norm_param {{ eps: {module.eps} }}", sums),
            Written(name, "Scale", "scale_param { bias_term: true }", blobs),
        ]
    if isinstance(module, nn.Linear):
        settings = f"inner_product_param {{ num_output: {module.out_features} }}"
        return [Written(name, "InnerProduct", settings, blobs)]
    if isinstance(module, nn.MaxPool2d):
        assert module.ceil_mode
        settings = f"pooling_param {{ pool: MAX kernel_size: {module.kernel_size} stride: {module.stride} }}"
        return [Written(name, "Pooling", settings)]
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return [Written(name, "Pooling", "pooling_param { pool: AVE global_pooling: true }")]
    kinds = {nn.ReLU: "ReLU", nn.Flatten: "Flatten", nn.Dropout: "Dropout", nn.Softmax: "Softmax"}
    return [Written(name, kinds[type(module)])]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).numpy()
