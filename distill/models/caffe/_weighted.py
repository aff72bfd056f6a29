"""Layers with weights, in PyTorch's terms."""

from collections.abc import Sequence
from typing import Any

import torch

from distill.models.caffe._layer import Layer, Part


def convolution(layer: Layer) -> list[Part]:
    """Groups and dilation included; `Deconvolution` has the same settings, and its inputs first in its weight."""
    settings = layer.message.convolution_param
    layer.need(settings.axis in (1, -3) and layer.rank == 4, "convolves other than (batch, channels, height, width)")
    kernel = pair(layer, settings.kernel_size, "kernel", settings)
    stride = pair(layer, settings.stride, "stride", settings, 1)
    layer.need(min(*kernel, *stride) > 0, f"has kernel {kernel} and stride {stride}")
    groups, inputs, outputs = settings.group, layer.channels, settings.num_output
    layer.need(
        groups > 0 and outputs > 0 and inputs % groups == outputs % groups == 0,
        f"has {inputs} channels for {outputs} in {groups} groups",
    )
    sizes = (outputs, inputs // groups) if layer.type == "Convolution" else (inputs, outputs // groups)
    shapes: list[tuple[int, ...]] = [(*sizes, *kernel), (outputs,)]
    values = layer.weights(*shapes[: 1 + settings.bias_term])
    options = {
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": kernel,
        "stride": stride,
        "padding": pair(layer, settings.pad, "pad", settings, 0),
        "dilation": pair(layer, settings.dilation, "dilation", None, 1),
        "groups": groups,
        "bias": settings.bias_term,
    }
    plain = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "bias": True}
    kept = {key: value for key, value in options.items() if plain.get(key) != value}
    return [Part(layer.type, kept, dict(zip(("weight", "bias"), values, strict=False)))]


def inner_product(layer: Layer) -> list[Part]:
    """A linear layer, after a flattening where it reads a map."""
    settings = layer.message.inner_product_param
    axis = layer.axis(settings.axis)
    inputs, outputs = torch.Size(layer.shapes[0][axis:]).numel(), settings.num_output
    layer.need(outputs > 0, "has no num_output")
    size = (inputs, outputs) if settings.transpose else (outputs, inputs)
    values = layer.weights(*[size, (outputs,)][: 1 + settings.bias_term])
    values[0] = values[0].T.contiguous() if settings.transpose else values[0]
    options = {"in_features": inputs, "out_features": outputs} | ({} if settings.bias_term else {"bias": False})
    linear = Part("InnerProduct", options, dict(zip(("weight", "bias"), values, strict=False)))
    flat = axis == layer.rank - 1
    return [linear] if flat else [Part("Flatten", {"start_dim": axis} if axis != 1 else {}, suffix="/flatten"), linear]


def batch_norm(layer: Layer) -> list[Part]:
    """With the mean and variance of training; scaling is a layer of its own in Caffe, and is joined later."""
    settings = layer.message.batch_norm_param
    layer.need(
        settings.use_global_stats or not settings.HasField("use_global_stats"),
        "normalises by the statistics of each batch, which only training does: remove use_global_stats: false",
    )
    layer.need(layer.rank in (2, 4), "normalises other than (batch, channels) or (batch, channels, height, width)")
    mean, variance, count = layer.weights((layer.channels,), (layer.channels,), (1,))
    factor = 1 / count if float(count) else count  # sums are stored, and of how much
    values = {"running_mean": mean * factor, "running_var": variance * factor}
    options = {"num_features": layer.channels, "eps": plain(settings.eps), "affine": False}
    values["num_batches_tracked"] = torch.tensor(0)
    return [Part("BatchNorm" if layer.rank == 4 else "BatchNorm1d", options, values)]


def scale(layer: Layer) -> list[Part]:
    """By learned factors, or by a second map."""
    settings = layer.message.scale_param
    axis = layer.axis(settings.axis)
    if len(layer.bottoms) == 2:
        layer.need(not settings.bias_term, "scales by a map and adds a bias")
        return [Part("Multiply", {"trailing": layer.rank - axis - len(layer.shapes[1])} if axis else {"trailing": 0})]
    count = layer.rank - axis if settings.num_axes < 0 else settings.num_axes
    size = tuple(layer.shapes[0][axis : axis + count])
    shape = (*size, *[1] * (layer.rank - axis - count))
    names = ("weight", "bias")[: 1 + settings.bias_term]
    values = [value.reshape(shape) for value in layer.weights(*[size] * len(names))]
    options = {"shape": list(shape)} | ({"bias": True} if settings.bias_term else {})
    return [Part("Scale", options, dict(zip(names, values, strict=True)))]


def prelu(layer: Layer) -> list[Part]:
    """A slope for each channel, or one."""
    count = 1 if layer.message.prelu_param.channel_shared else layer.channels
    (slopes,) = layer.weights((count,))
    return [Part("PReLU", {"num_parameters": count}, {"weight": slopes})]


def normalize(layer: Layer) -> list[Part]:
    """With a factor for each channel, or one."""
    settings = layer.message.norm_param
    layer.need(layer.rank == 4, "normalises other than (batch, channels, height, width)")
    (factors,) = layer.weights((1 if settings.channel_shared else layer.channels,))
    options: dict[str, Any] = {"channels": layer.channels, "eps": plain(settings.eps)}
    options |= {} if settings.across_spatial else {"across_spatial": False}
    return [Part("Normalize", options, {"weight": factors.expand(layer.channels).reshape(-1, 1, 1).clone()})]


def pair(layer: Layer, repeated: Sequence[int], name: str, settings: Any, default: int | None = None) -> list[int]:
    """Height and width of a setting that is written once for both, once for each, or as NAME_h and NAME_w."""
    if settings is not None and (settings.HasField(f"{name}_h") or settings.HasField(f"{name}_w")):
        return [getattr(settings, f"{name}_h"), getattr(settings, f"{name}_w")]
    values = list(repeated) or ([] if default is None else [default])
    layer.need(len(values) in (1, 2), f"has {len(values)} values of {name}, but 1 or 2 are possible")
    return values if len(values) == 2 else values * 2


def plain(value: float) -> float:
    """A float32 without the digits that only its widening adds."""
    return float(f"{value:.9g}")
