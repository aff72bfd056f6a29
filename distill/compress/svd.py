"""Jaderberg et al.: Speeding up Convolutional Neural Networks with Low Rank Expansions. arXiv:1405.3866, scheme 2;
Denton et al.: Exploiting Linear Structure Within Convolutional Networks. arXiv:1404.0736, for whole kernels.

A weight becomes a matrix that is cut to low rank. A k x k convolution becomes a k x 1 one and a 1 x k one
(``spatial``), or a k x k one with few outputs and a 1 x 1 one (``channel``); a linear layer becomes two. Departs from
the papers: singular value decomposition of the weight, both halves scaled alike; the rest is left to fine-tuning.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from distill.artifact import Artifact, Plan, surgery
from distill.compress import hook
from distill.compress._layers import Change, Layer, exchange, explain, factorable, layer_at, rank_within
from distill.errors import RecipeError

Scheme = Literal["spatial", "channel"]
AXES = {"spatial": ((True, False), (False, True)), "channel": ((True, True), (False, False))}
"""Whether height and width belong to the first and to the second layer."""


@hook("svd")
def svd(
    artifact: Artifact,
    *,
    ratio: float = 0.5,
    energy: float | None = None,
    scheme: Scheme = "spatial",
    layers: list[str] | None = None,
) -> Artifact:
    """Low-rank convolutions and linear layers; a layer that would not get smaller stays as it is.

    Args:
        artifact: what to compress.
        ratio: the part of its parameters that each layer keeps, above 0 and below 1.
        energy: instead of ``ratio``: the part of the squared singular values' sum to keep, above 0 and up to 1.
        scheme: how k x k kernels are cut.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``ratio`` or ``energy`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if not 0 < ratio < 1 or (energy is not None and not 0 < energy <= 1):
        raise RecipeError(f"svd keeps a part: 0 < ratio < 1 and 0 < energy <= 1, not ratio={ratio}, energy={energy}")
    plan: dict[str, dict[str, Any]] = {}
    halves: dict[str, tuple[Tensor, Tensor]] = {}
    changed: dict[str, Change] = {}
    fit, unchanged = factorable(artifact, "svd", layers)
    for path, layer in fit.items():
        matrix = unfold(layer.weight.detach(), scheme)
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        rank = max(1, int(ratio * matrix.numel() / sum(matrix.shape))) if energy is None else rank_within(s, 1 - energy)
        size = rank * sum(matrix.shape)
        if size >= matrix.numel():
            unchanged[path] = "would get no smaller"
            continue
        plan[path] = {"rank": rank, "scheme": scheme}
        halves[path] = u[:, :rank] * s[:rank].sqrt(), s[:rank, None].sqrt() * vh[:rank]
        changed[path] = Change((rank,), matrix.numel(), size, float(s[rank:].norm() / s.norm()))
    explain("svd", changed, unchanged)
    if not plan:
        return artifact
    model = apply(artifact.copy_model(), plan)
    for path, (first, second) in halves.items():
        fill(model.get_submodule(path), layer_at(artifact.model, path), first, second)
    return artifact.with_model(model, Plan("svd", plan))


@surgery("svd")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Put two layers in place of each one, of the given rank."""
    for path, spec in layers.items():
        exchange(model, path, pair(layer_at(model, path), spec["rank"], spec["scheme"]))
    return model


def pair(layer: Layer, rank: int, scheme: Scheme) -> nn.Sequential:
    """Two layers that compute what a layer of low rank does, yet without its values."""
    ends = (layer.in_channels, layer.out_channels) if isinstance(layer, nn.Conv2d) else layer.weight.shape[::-1]
    sizes = ((ends[0], rank, False), (rank, ends[1], layer.bias is not None))
    return nn.Sequential(*(_half(layer, *size, axes) for size, axes in zip(sizes, AXES[scheme], strict=True)))


def _half(layer: Layer, inputs: int, outputs: int, bias: bool, axes: tuple[bool, bool]) -> nn.Module:
    like: dict[str, Any] = {"bias": bias, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return skip_init(nn.Linear, inputs, outputs, **like)

    def part(values: tuple[int, ...], otherwise: int) -> tuple[int, ...]:
        return tuple(value if has else otherwise for value, has in zip(values, axes, strict=True))

    return skip_init(
        nn.Conv2d,
        inputs,
        outputs,
        part(layer.kernel_size, 1),
        stride=part(layer.stride, 1),
        dilation=part(layer.dilation, 1),
        padding=layer.padding if isinstance(layer.padding, str) else part(layer.padding, 0),
        padding_mode=layer.padding_mode,
        **like,
    )


def unfold(weight: Tensor, scheme: Scheme) -> Tensor:
    """The weight as the matrix that is cut: rows belong to the first half, columns to the second."""
    if weight.dim() == 2:
        return weight.T
    if scheme == "spatial":
        return weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)  # (in * height, out * width)
    return weight.flatten(1).T  # (in * height * width, out)


@torch.no_grad()
def fill(pair: nn.Module, layer: Layer, first: Tensor, second: Tensor) -> None:
    """Give the two layers their values: ``first`` (rows, rank) and ``second`` (rank, columns)."""
    parameters = dict(pair.named_parameters())
    one, two = parameters["0.weight"], parameters["1.weight"]
    one.copy_(first.T.reshape(one.shape))
    two.copy_(second.unflatten(1, (len(two), -1)).transpose(0, 1).reshape(two.shape))
    if layer.bias is not None:
        parameters["1.bias"].copy_(layer.bias)
