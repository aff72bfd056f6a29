"""How much a network would miss its channels."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.models.channels.narrow import Channelwise, Transposed, per_input
from distill.models.channels.propagation import Ends

Saliency = Literal["magnitude", "taylor", "bn_scale"]
Scores = dict[int, float]


def magnitudes(model: nn.Module, ends: Mapping[str, Ends]) -> Scores:
    """Li et al.: Pruning Filters for Efficient ConvNets. arXiv:1608.08710: the L1 norm of a filter.

    Relative to the layer's mean, so that layers compare; the mean over all layers that make the channel.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for path, end in ends.items():
        if end.groups:
            layer = model.get_submodule(path)
            weight = _weight(layer).detach()
            norms = (weight.transpose(0, 1) if isinstance(layer, Transposed) else weight).flatten(1).abs().sum(1)
            for i, norm in zip(end.outputs, (norms / norms.mean().clamp(min=1e-30)).tolist(), strict=True):
                found[i].append(norm)
    return _means(found)


def bn_scales(model: nn.Module, ends: Mapping[str, Ends]) -> Scores:
    """Liu et al.: Learning Efficient Convolutional Networks through Network Slimming. arXiv:1708.06519.

    Channels that no batch normalisation scales have no score.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for path, end in ends.items():
        layer = model.get_submodule(path)
        if isinstance(layer, Channelwise) and layer.affine:
            for i, scale in zip(end.inputs, layer.weight.detach().abs().tolist(), strict=True):
                found[i].append(scale)
    return _means(found)


def taylor(
    model: nn.Module, ends: Mapping[str, Ends], batches: Sequence[Batch], loss: Callable[[Any, Batch], Tensor]
) -> Scores:
    """Molchanov et al.: Importance Estimation for Neural Network Pruning. arXiv:1906.10771: the squared
    first-order change of the loss, averaged over batches.

    The weights summed over are those that read a channel, in all layers that do: zeroing them is what its removal
    comes to, whatever normalisation lies between.

    Args:
        model: a copy, in eval mode; its gradients change.
    """
    readers = {path: model.get_submodule(path) for path, end in ends.items() if end.groups}
    weights = [_weight(layer).requires_grad_() for layer in readers.values()]
    total: Scores = defaultdict(float)
    for batch in batches:
        with torch.enable_grad():
            value = loss(model(batch.inputs.to(weights[0].device)), batch)
            gradients = torch.autograd.grad(value, weights, allow_unused=True)
        change: Scores = defaultdict(float)
        for (path, layer), weight, gradient in zip(readers.items(), weights, gradients, strict=True):
            if gradient is not None:
                sums = per_input(layer, (weight.detach() * gradient).double()).tolist()
                for i, part in zip(ends[path].inputs, sums, strict=True):
                    change[i] += part
        for i, part in change.items():
            total[i] += part**2 / len(batches)
    return dict(total)


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _means(found: Mapping[int, Sequence[float]]) -> Scores:
    return {i: sum(values) / len(values) for i, values in found.items()}
