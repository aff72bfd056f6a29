"""Layers with fewer channels: their shapes, and their values."""

import copy
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.copied import copied
from distill.models.surgery import exchange

Channelwise = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Narrowable = Channelwise | Convolution | Transposed | nn.Linear

Kept = Mapping[str, tuple[list[int], list[int]]]
"""Module path -> positions of the input and output channels that are kept, in the order in which they come to lie."""


def depthwise(layer: nn.Module) -> bool:
    """Whether each channel is filtered by itself."""
    return isinstance(layer, Convolution) and layer.groups == layer.in_channels > 1


def derived(layer: nn.Module) -> bool:
    """Whether a hook computes the weight anew in every forward, as ``torch.nn.utils.weight_norm`` and
    ``torch.nn.utils.prune`` do: what it is given is soon lost."""
    return "weight" not in layer._parameters


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of convolutions and linear layers, by parameter name."""
    for path, layer in model.named_modules():
        if isinstance(layer, Convolution | Transposed | nn.Linear):
            yield f"{path}.weight", layer.weight


def is_weight(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether a layer multiplies with it: a module without others in it, attention and its ``in_proj_weight``, or
    factors. Class tokens, position embeddings and scales of blocks are none."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    if hasattr(module, "deploy") or (isinstance(module, Convolution | Transposed | nn.Linear) and own == "weight"):
        return parameter.dim() > 1
    matrix = sum(size > 1 for size in parameter.shape) > 1  # and no vector in the shape of what it scales
    return matrix and ("weight" in own or not any(module.children()))


def sizes_of(layer: nn.Module) -> tuple[int, int]:
    """Input and output channels."""
    if isinstance(layer, Channelwise):
        return layer.num_features, layer.num_features
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, Convolution | Transposed)
    return layer.in_channels, layer.out_channels


def costs_of(layer: nn.Module, inputs: int, outputs: int) -> tuple[int, int]:
    """How many weights it would multiply with, and how many other parameters it would have, with these channels."""
    if isinstance(layer, Channelwise):
        return 0, inputs * len(list(layer.parameters()))
    per_output = 1 if depthwise(layer) else inputs // getattr(layer, "groups", 1)
    kernel: tuple[int, ...] = getattr(layer, "kernel_size", ())
    return outputs * per_output * prod(kernel), outputs if layer.bias is not None else 0


def shape_after(layer: nn.Module, shape: torch.Size) -> tuple[int, ...]:
    """Of the layer's result, but for the number of channels."""
    if not isinstance(layer, Convolution | Transposed) or layer.padding == "same":
        return shape
    spans = [dilation * (size - 1) + 1 for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    paddings = (0,) * len(spans) if layer.padding == "valid" else tuple(map(int, layer.padding))
    sizes = zip(shape[2:], spans, paddings, layer.stride, layer.output_padding, strict=True)
    if isinstance(layer, Transposed):
        return *shape[:2], *((n - 1) * stride - 2 * pad + span + more for n, span, pad, stride, more in sizes)
    return *shape[:2], *((n + 2 * pad - span) // stride + 1 for n, span, pad, stride, _ in sizes)


def resized(layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    """A layer of these channels that is otherwise alike, with values that mean nothing."""
    layer = copy.deepcopy(layer)
    sizes: Mapping[str, tuple[int, ...]]
    if isinstance(layer, Channelwise):
        layer.num_features = inputs
        sizes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (inputs,))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = inputs, outputs
        sizes = {"weight": (outputs, inputs), "bias": (outputs,)}
    else:
        assert isinstance(layer, Convolution | Transposed)
        layer.groups = inputs if depthwise(layer) else layer.groups
        layer.in_channels, layer.out_channels = inputs, outputs
        ends = (inputs, outputs) if isinstance(layer, Transposed) else (outputs, inputs)
        sizes = {"weight": (ends[0], ends[1] // layer.groups, *layer.kernel_size), "bias": (outputs,)}
    for name, size in sizes.items():
        if (old := getattr(layer, name)) is not None:
            new = old.new_empty(size)
            setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    return layer


def rebuilt(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """The same model with so many channels in its layers, ``{path: {"inputs": ..., "outputs": ...}}``."""
    for path, spec in layers.items():
        exchange(model, path, resized(model.get_submodule(path), spec["inputs"], spec["outputs"]))
    return model


def narrowed(model: nn.Module, layers: Mapping[str, Mapping[str, Any]], kept: Kept) -> nn.Module:
    """A copy that is left with some of its channels.

    Args:
        model: stays as it is.
        layers: the sizes of those that change, for `rebuilt`.
        kept: which channels of all layers are left.
    """
    narrow = rebuilt(copied(model), layers)
    for path, (inputs, outputs) in kept.items():
        fill(narrow.get_submodule(path), model.get_submodule(path), torch.tensor(inputs), torch.tensor(outputs))
    return narrow


def mask_of(positions: list[int], size: int) -> Tensor:
    """True at these positions."""
    return torch.zeros(size, dtype=torch.bool).index_fill(0, torch.tensor(positions, dtype=torch.long), True)


@torch.no_grad()
def fill(narrow: nn.Module, wide: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Give ``narrow`` the values that ``wide`` has for these of its input and output channels."""
    if isinstance(wide, Channelwise):
        for name, value in wide.state_dict().items():
            getattr(narrow, name).copy_(value[inputs] if value.dim() else value)
        return
    assert isinstance(wide, Convolution | Transposed | nn.Linear)
    assert isinstance(narrow, Convolution | Transposed | nn.Linear)
    if isinstance(wide, Transposed):
        narrow.weight.copy_(wide.weight[inputs][:, outputs])
    elif depthwise(wide):
        narrow.weight.copy_(wide.weight[outputs])
    else:
        groups = getattr(wide, "groups", 1)
        columns = (inputs % wide.weight.shape[1]).chunk(groups)  # a position within its group
        rows = wide.weight[outputs].chunk(groups)
        narrow.weight.copy_(torch.cat([row[:, column] for row, column in zip(rows, columns, strict=True)]))
    if wide.bias is not None and narrow.bias is not None:
        narrow.bias.copy_(wide.bias[outputs])


@torch.no_grad()
def mask_channels(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Zero the weights of all channels but these: booleans, one for each input and output channel."""
    if isinstance(layer, Channelwise):
        for parameter in layer.parameters():
            parameter.mul_(inputs)
        return
    assert isinstance(layer, Convolution | Transposed | nn.Linear)
    weight = layer.weight.transpose(0, 1) if isinstance(layer, Transposed) else layer.weight
    weight.mul_(outputs.reshape(-1, *[1] * (weight.dim() - 1)))
    if not depthwise(layer):
        grouped = weight.unflatten(0, (getattr(layer, "groups", 1), -1))  # (groups, out, in, ...)
        grouped.mul_(inputs.reshape(len(grouped), 1, -1, *[1] * (weight.dim() - 2)))
    if layer.bias is not None:
        layer.bias.mul_(outputs)


def per_input(layer: nn.Module, values: Tensor) -> Tensor:
    """The sum over all values, shaped like the layer's weight, that belong to each of its input channels."""
    if isinstance(layer, Transposed):
        return values.flatten(1).sum(1)
    grouped = (
        values.flatten(1).unflatten(1, (values.shape[1], -1)).sum(2).unflatten(0, (getattr(layer, "groups", 1), -1))
    )
    return grouped.sum(1).flatten()
