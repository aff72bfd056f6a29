"""Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction. arXiv:1906.04721: what evens
weights out before they are rounded (section 4.1), and what rounding shifted (section 4.2).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.compress._layers import Layer, layer_at
from distill.compress._places import LAYERS
from distill.models.tracing import Trace

HOMOGENEOUS = frozenset(["relu", "relu6", "hardtanh", "dropout", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])
"""Functions of each channel with f(s * x) = s * f(x) for s > 0; a ReLU6 once it is a ReLU."""
SWEEPS = 50


class Pair(NamedTuple):
    """Two layers with nothing but homogeneous functions between them."""

    first: str
    second: str
    clips: tuple[str, ...]
    """Paths of ReLU6 modules between them."""


def pairs(model: nn.Module, flow: Trace, layers: Collection[str]) -> list[Pair]:
    """All pairs among the ``layers``, in the order of computation."""
    readers, times = flow.readers(), flow.times
    once = {path for path in layers if times[path] == 1}
    found = []
    for op in flow.ops:
        if op.module in once and op.name in LAYERS:
            between, end = [], op
            while len(following := readers.get(end.outputs[0], [])) == 1 and following[0].name in HOMOGENEOUS:
                end = following[0]
                between.append(end)
            clips = [step.module for step in between if step.name in ("relu6", "hardtanh")]
            follows = len(following) == 1 and following[0].module in once and following[0].name == op.name
            if follows and all(isinstance(model.get_submodule(path), nn.ReLU6) for path in clips):
                found.append(Pair(op.module, following[0].module, tuple(clips)))
    return found


@torch.no_grad()
def equalize(model: nn.Module, found: Iterable[Pair]) -> None:
    """Scale the channels between each pair, equation 11, pair after pair until nothing moves; in place.

    The network computes what it did if its ReLU6 modules between pairs are ReLUs, which is the caller's business.
    """
    layers = [(layer_at(model, pair.first), layer_at(model, pair.second)) for pair in found]
    for _ in range(SWEEPS):
        moved = 0.0
        for first, second in layers:
            ends, starts = first.weight.flatten(1).abs().amax(1), _by_input(second).abs().amax(1)
            scale = torch.where((ends > 0) & (starts > 0), (ends / starts).sqrt(), 1.0)
            first.weight.div_(_rows(scale, first.weight))
            if first.bias is not None:
                first.bias.div_(scale)
            _scale_inputs(second, scale)
            moved = max(moved, float((scale.log()).abs().max()))
        if moved < 1e-3:
            return


@torch.no_grad()
def correct_biases(model: nn.Module, exact: nn.Module, layers: Iterable[str], images: Tensor) -> None:
    """Give the ``layers`` of ``model`` the mean outputs, per channel, that those of ``exact`` have on ``images``.

    Layer after layer in one pass: each reads the outputs of the corrected ones before it. Layers without bias are left,
    and so are those that run several times: one bias cannot mend several means.
    """
    means: dict[str, list[Tensor]] = defaultdict(list)

    def remember(path: str, layer: Layer, arguments: Any, output: Tensor) -> None:
        means[path].append(_mean(layer, output))

    def correct(path: str, layer: Layer, arguments: Any, output: Tensor) -> Tensor:
        if len(means[path]) > 1:
            return output
        shift = means[path][0] - _mean(layer, output)
        assert layer.bias is not None
        layer.bias.add_(shift)
        return output + (shift[:, None, None] if isinstance(layer, nn.Conv2d) else shift)

    with ExitStack() as hooks:
        for path in layers:
            one, other = layer_at(model, path), layer_at(exact, path)
            if one.bias is not None:
                hooks.enter_context(other.register_forward_hook(partial(remember, path)))
                # Before the hook that rounds the output.
                hooks.enter_context(one.register_forward_hook(partial(correct, path), prepend=True))
        exact(images)
        model(images)


def _mean(layer: Layer, output: Tensor) -> Tensor:
    channel = 1 if isinstance(layer, nn.Conv2d) else output.dim() - 1
    return output.mean([axis for axis in range(output.dim()) if axis != channel])


def _by_input(layer: Layer) -> Tensor:
    """The weight as (input channels, the rest)."""
    if isinstance(layer, nn.Linear):
        return layer.weight.T
    grouped = layer.weight.unflatten(0, (layer.groups, -1))  # (groups, outputs, inputs, height, width)
    return grouped.transpose(1, 2).flatten(0, 1).flatten(1)


def _scale_inputs(layer: Layer, scale: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.weight.mul_(scale)
    else:
        grouped = layer.weight.unflatten(0, (layer.groups, -1))
        grouped.mul_(scale.reshape(layer.groups, 1, -1, 1, 1))


def _rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (weight.dim() - 1))
