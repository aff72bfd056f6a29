"""Lebedev et al.: Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition. arXiv:1412.6553.

A k x k convolution becomes a 1 x 1 one to as many channels as the rank, a k x 1 and a 1 x k one of each channel by
itself, and a 1 x 1 one back. Departs from the paper: alternating least squares from a fixed start in place of
non-linear least squares, with a little ridge against factors that grow and cancel (Phan et al., arXiv:2008.05441,
section 2); ranks follow from one number for the network. A 1 x 1 convolution and a linear layer are matrices.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from distill.compress import hook
from distill.compress._decompositions import solve_spd
from distill.compress._layers import Layer
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer
from distill.compress.low_rank._factorise import Factors, factorisation, rebuild
from distill.compress.low_rank._matrices import Cut, pair, part
from distill.registry import surgery

PARTS = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Of the layer's parameters: the sizes that are tried."""
SWEEPS = 20
RIDGE = 1e-6
"""Of the mean diagonal of each least squares problem."""


def build(layer: Layer, spec: Mapping[str, Any]) -> nn.Module:
    """Layers of the given rank, without values."""
    if "scheme" in spec:
        return pair(layer, spec)
    assert isinstance(layer, nn.Conv2d)
    (rank,) = spec["ranks"]
    return nn.Sequential(
        part(layer, layer.in_channels, rank, False, (False, False)),
        part(layer, rank, rank, False, (True, False), groups=rank),
        part(layer, rank, rank, False, (False, True), groups=rank),
        part(layer, rank, layer.out_channels, layer.bias is not None, (False, False)),
    )


@hook("cp")
@factorisation(build)
def cp(traced: TracedLayer, error_weights: ErrorWeights) -> Factors:
    """Convolutions as sums of separable ones; a layer that would not get smaller, or faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`.
    """
    return Separable(traced, error_weights) if traced.kernel != (1, 1) else Cut(traced, error_weights, "channel")


@surgery("cp")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put layers of the planned ranks in place of each one."""
    return rebuild(model, layers, build)


class Separable:
    """Sums of so many separable kernels, for weighted errors."""

    def __init__(self, traced: TracedLayer, error_weights: ErrorWeights) -> None:
        self.traced = traced
        self.rows, self.columns = error_weights.rows(traced, (False, False)), error_weights.columns(traced)
        weight = traced.layer.weight.detach().double()
        self.weight = torch.einsum("oihw,ia,ob->bahw", weight, self.rows.root, self.columns.root)
        self.decomposed = cache(lambda rank: decompose(self.weight, rank))

    @property
    def importance(self) -> float:
        return float(self.weight.square().sum())

    def options(self, _: Aim) -> Sequence[Option]:
        """Some ranks; each has to be tried for its error to be known."""
        return [
            self._option(rank)
            for rank in sorted({int(p * self.weight.numel() / sum(self.weight.shape)) for p in PARTS})
            if rank
        ]

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        outputs, inputs, height, width = self.decomposed(spec["ranks"][0])
        weights = dict(module.named_parameters())
        weights["0.weight"].copy_((self.rows.inverse @ inputs).T[:, :, None, None])
        weights["1.weight"].copy_(height.T[:, None, :, None])
        weights["2.weight"].copy_(width.T[:, None, None, :])
        weights["3.weight"].copy_((self.columns.inverse @ outputs)[:, :, None, None])

    def _option(self, rank: int) -> Option:
        traced = self.traced
        outputs, inputs, height, width = self.weight.shape
        rows, columns = traced.inputs[1:]
        macs = rank * (
            inputs * rows * columns + height * traced.outputs[1] * columns + (width + outputs) * traced.positions
        )
        rest = self.weight - torch.einsum("or,ir,hr,wr->oihw", *self.decomposed(rank))
        error = float(rest.square().sum() / self.weight.square().sum().clamp(min=1e-300))
        return Option({"ranks": [rank]}, rank * sum(self.weight.shape), macs, error)


def decompose(tensor: Tensor, rank: int) -> list[Tensor]:
    """Kolda & Bader: Tensor Decompositions and Applications, 2009, section 3.4: alternating least squares.

    Returns:
        One matrix (size, rank) of each mode; their columns' outer products sum to about the tensor, all scaled alike.
    """
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(size, rank, generator=generator, dtype=tensor.dtype) for size in tensor.shape]
    letters = "oihw"
    for _ in range(SWEEPS):
        for mode in range(len(factors)):
            others = [factor for other, factor in enumerate(factors) if other != mode]
            gram = torch.stack([factor.T @ factor for factor in others]).prod(0)
            rest = ",".join(f"{letter}r" for letter in letters if letter != letters[mode])
            right = torch.einsum(f"{letters},{rest}->{letters[mode]}r", tensor, *others)
            ridge = RIDGE * gram.diagonal().mean() + 1e-300
            solved = solve_spd(gram + ridge * torch.eye(rank, dtype=gram.dtype), right.T).T
            factors[mode] = solved
            if mode < len(factors) - 1:
                factors[mode] = solved / solved.norm(dim=0).clamp(min=1e-150)
    norms = torch.stack([factor.norm(dim=0).clamp(min=1e-150) for factor in factors])
    alike = norms.prod(0) ** (1 / len(factors))
    return [factor / norm * alike for factor, norm in zip(factors, norms, strict=True)]
