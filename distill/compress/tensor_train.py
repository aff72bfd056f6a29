"""Novikov et al.: Tensorizing Neural Networks. arXiv:1509.06569; Garipov et al.: Ultimate tensorization: compressing
convolutional and FC layers alike. arXiv:1611.03214, for 1 x 1 convolutions.

Departs from the papers: modes are ordered inputs first (see `_trains`), so that a layer runs as two plain ones and is
faster than the dense one, not only smaller; and nobody chooses ranks or shapes, both follow from an error bound.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from distill.artifact import Artifact, Plan, surgery
from distill.compress import hook
from distill.compress._layers import Change, Layer, exchange, explain, factorable, layer_at
from distill.compress._trains import Shape, Trains, contract, decompose
from distill.errors import RecipeError

log = logging.getLogger(__name__)

EVALUATIONS = 6
"""Networks tried to meet ``max_drop``: the error bound is then known to 1/32 of ``max_error``."""


@hook("tensor_train")
def tensor_train(
    artifact: Artifact,
    evaluate: Callable[[nn.Module], float],
    *,
    max_error: float = 0.5,
    max_drop: float | None = None,
    layers: list[str] | None = None,
) -> Artifact:
    """1 x 1 convolutions and linear layers as tensor trains; a layer that would not get smaller stays as it is.

    Args:
        artifact: what to compress.
        evaluate: the task's monitor on the validation split, higher is better; called only for ``max_drop``.
        max_error: largest relative error of a layer's weight, |approximation - weight| / |weight|, above 0, below 1.
        max_drop: largest loss of ``evaluate``, before any fine-tuning: the largest error bound up to ``max_error``
            that meets it is searched for.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: a setting is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if not 0 < max_error < 1 or (max_drop is not None and not max_drop >= 0):
        raise RecipeError(f"tensor_train needs 0 < max_error < 1, max_drop >= 0; not {max_error} and {max_drop}")
    weights, unfit = _matrices(artifact, layers)
    trains = {path: Trains(weight) for path, weight in weights.items()}

    def within(error: float) -> Artifact:
        shapes = {path: options.smallest(error) for path, options in trains.items()}
        smaller = {path: shape for path, shape in shapes.items() if shape.size < weights[path].numel()}
        return _factorised(artifact, smaller, weights)

    result = within(max_error) if max_drop is None else _search(artifact, within, evaluate, max_error, max_drop)
    changed = _changes(result, weights)
    explain("tensor_train", changed, unfit | {path: "would get no smaller" for path in weights if path not in changed})
    return result


@surgery("tensor_train")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Put trains of the given shapes in place of layers."""
    for path, spec in layers.items():
        exchange(model, path, TensorTrain(layer_at(model, path), Shape(**{k: tuple(v) for k, v in spec.items()})))
    return model


class TensorTrain(nn.Module):
    """A linear layer or a 1 x 1 convolution that keeps the cores of a train and runs as two plain layers.

    ``core0`` is kept with its axes reversed: every core then begins with a bond, along which its values differ in size.
    """

    def __init__(self, layer: Layer, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.geometry = {k: getattr(layer, k) for k in ("stride", "padding")} if isinstance(layer, nn.Conv2d) else None
        modes, ranks = shape.inputs + shape.outputs, (1, *shape.ranks, 1)
        for position, (before, mode, after) in enumerate(zip(ranks, modes, ranks[1:], strict=False)):
            sizes = (before, mode, after) if position else (after, mode, before)
            self.register_parameter(f"core{position}", nn.Parameter(layer.weight.new_empty(sizes)))
        self.bias = layer.bias

    @property
    def cores(self) -> list[Tensor]:
        """From the first input mode to the last output mode, each (rank, mode, rank)."""
        first, *others = (getattr(self, f"core{k}") for k in range(len(self.shape.ranks) + 1))
        return [first.transpose(0, 2), *others]

    def weights(self) -> list[Tensor]:
        """The two matrices (out, in) that the cores multiply to or, where that is less work, their one product."""
        first, second = contract(self.cores, len(self.shape.inputs))
        return [second @ first] if first.numel() + second.numel() >= len(second) * first.shape[1] else [first, second]

    def forward(self, inputs: Tensor) -> Tensor:
        for weight, bias, geometry in self._layers():
            if self.geometry is None:
                inputs = F.linear(inputs, weight, bias)
            else:
                inputs = F.conv2d(inputs, weight[:, :, None, None], bias, **geometry)
        return inputs

    @torch.no_grad()
    def deploy(self) -> nn.Module:
        """The same function in plain layers."""
        plain = []
        for weight, bias, geometry in self._layers():
            like: dict[str, Any] = {"bias": bias is not None, "device": weight.device, "dtype": weight.dtype}
            ends = (weight.shape[1], weight.shape[0])
            if self.geometry is None:
                plain.append(skip_init(nn.Linear, *ends, **like))
            else:
                plain.append(skip_init(nn.Conv2d, *ends, kernel_size=1, **geometry, **like))
            plain[-1].weight.copy_(weight.reshape(plain[-1].weight.shape))
            if bias is not None:
                plain[-1].bias.copy_(bias)
        return nn.Sequential(*plain) if len(plain) > 1 else plain[0]

    def _layers(self) -> Iterator[tuple[Tensor, Tensor | None, dict[str, Any]]]:
        """Weight, bias and geometry of each layer it runs as."""
        weights = self.weights()
        for position, weight in enumerate(weights):
            last = position == len(weights) - 1
            yield weight, self.bias if last else None, (self.geometry or {}) if position == 0 else {}


def _matrices(artifact: Artifact, patterns: list[str] | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights (inputs, outputs) that trains can take the place of; and why others are not among them."""
    layers, unfit = factorable(artifact, "tensor_train", patterns)
    unfit |= {path: why for path, layer in layers.items() if (why := _unfit(layer))}
    return {path: layer.weight.detach().flatten(1).T for path, layer in layers.items() if path not in unfit}, unfit


def _unfit(layer: Layer) -> str:
    """Why a train cannot take the place of a layer."""
    if isinstance(layer, nn.Linear):
        return ""
    if layer.kernel_size != (1, 1):
        return "not 1 x 1"
    return "" if layer.padding_mode == "zeros" else f"{layer.padding_mode} padding"


def _factorised(artifact: Artifact, shapes: Mapping[str, Shape], weights: Mapping[str, Tensor]) -> Artifact:
    """The artifact with these layers as trains that approximate their weights."""
    if not shapes:
        return artifact
    plan = {path: {key: list(value) for key, value in shape._asdict().items()} for path, shape in shapes.items()}
    model = apply(artifact.copy_model(), plan)
    with torch.no_grad():
        for path, shape in shapes.items():
            train = model.get_submodule(path)
            assert isinstance(train, TensorTrain)
            for core, values in zip(train.cores, decompose(weights[path], shape), strict=True):
                core.copy_(values)
    return artifact.with_model(model, Plan("tensor_train", plan))


def _search(
    artifact: Artifact,
    within: Callable[[float], Artifact],
    evaluate: Callable[[nn.Module], float],
    max_error: float,
    max_drop: float,
) -> Artifact:
    """The artifact of the largest error bound that loses no more than ``max_drop``, by bisection."""
    floor = evaluate(artifact.model) - max_drop
    best, low, high, error = artifact, 0.0, max_error, max_error
    for _ in range(EVALUATIONS):
        candidate = within(error)
        value = evaluate(candidate.model)
        log.info("tensor_train: error bound %.3f: %.4f, at least %.4f wanted", error, value, floor)
        if value >= floor:
            best, low = candidate, error
        else:
            high = error
        if low == high:
            break
        error = (low + high) / 2
    return best


@torch.no_grad()
def _changes(result: Artifact, weights: Mapping[str, Tensor]) -> dict[str, Change]:
    """What became of the layers that are trains now."""
    changes = {}
    for path, weight in weights.items():
        train = result.model.get_submodule(path)
        if isinstance(train, TensorTrain):
            first, second = contract(train.cores, len(train.shape.inputs))
            error = float(((second @ first).T - weight).norm() / weight.norm())
            changes[path] = Change(train.shape.ranks, weight.numel(), train.shape.size, error)
    return changes
