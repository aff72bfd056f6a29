"""Novikov et al.: Tensorizing Neural Networks. arXiv:1509.06569, the TT-matrix of two cores, run without transposes.

Channels are split into two digits, slow and fast. The two cores pair slow with slow and fast with fast: the weight is a
sum of ``rank`` Kronecker products, and the best one of a rank follows from one singular value decomposition: Van Loan &
Pitsianis: Approximation with Kronecker products (1993). The slow digit is contracted by a 1 x 1 convolution over an
image that has the fast digit for its height, the fast digit by a convolution as high as it: nothing is ever moved.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.compress import hook
from distill.compress._decompositions import svd
from distill.compress._layers import Layer
from distill.compress.low_rank._allocation import Aim, Option
from distill.compress.low_rank._error_weighting import ErrorWeights, Root, TracedLayer
from distill.compress.low_rank._factorise import Factors, factorisation, rebuild
from distill.registry import surgery

RANKS = (1, 2, 4, 8, 16, 32)
SPLITS = 3
"""Tried of each number of channels: those whose digits are most alike."""


class Digits(NamedTuple):
    """How channels are split: their number is ``slow * fast``."""

    slow: int
    fast: int


class TTMatrix(nn.Module):
    """A linear layer or a 1 x 1 convolution whose weight is a sum of Kronecker products.

    In place of a linear layer it acts on the last dimension of (..., inputs), in place of a convolution on the channels
    of (batch, inputs, height, width).

    Args:
        layer: what it takes the place of.
        spec: ``inputs`` and ``outputs``, slow and fast digit of each, and ``ranks`` with the only one.
    """

    def __init__(self, layer: Layer, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.inputs, self.outputs = Digits(*spec["inputs"]), Digits(*spec["outputs"])
        (self.rank,) = spec["ranks"]
        new = layer.weight.new_empty
        self.slow = nn.Parameter(new(self.outputs.slow * self.rank, self.inputs.slow, 1, 1))
        self.fast = nn.Parameter(new(self.outputs.fast, self.rank, self.inputs.fast, 1))
        self.bias = layer.bias
        self.stride = layer.stride if isinstance(layer, nn.Conv2d) else None

    def forward(self, input: Tensor) -> Tensor:
        if self.stride is None:
            outputs = self._contracted(input, 1).reshape(*input.shape[:-1], self._channels)
            return outputs if self.bias is None else outputs + self.bias
        if set(self.stride) != {1}:
            input = input[:, :, :: self.stride[0], :: self.stride[1]]
        height, width = input.shape[2:]
        outputs = self._contracted(input, height * width).reshape(-1, self._channels, height, width)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def geometry(self, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], ...]:
        """What it runs as, for `_layer_timing`, on inputs of that shape without the batch; nothing where it skips
        pixels."""
        if self.stride is None:
            pixels, last = 1, (-1, *shape[:-1], self._channels)
        elif set(self.stride) == {1}:
            pixels, last = torch.Size(shape[1:]).numel(), (-1, self._channels, *shape[1:])
        else:
            return ((),)
        return (
            ("Reshape", (-1, *self.inputs, pixels)),
            ("Conv", tuple(self.slow.shape)),
            ("Reshape", (-1, self.rank, self.inputs.fast, pixels)),
            ("Conv", tuple(self.fast.shape)),
            ("Reshape", last),
        )

    @property
    def _channels(self) -> int:
        return self.outputs.slow * self.outputs.fast

    def _contracted(self, inputs: Tensor, pixels: int) -> Tensor:
        """The products of both cores with images whose channels are followed by so many pixels."""
        columns = F.conv2d(inputs.reshape(-1, *self.inputs, pixels), self.slow)
        return F.conv2d(columns.reshape(-1, self.rank, self.inputs.fast, pixels), self.fast)


@hook("tt_matrix")
@factorisation(TTMatrix)
def tt_matrix(traced: TracedLayer, error_weights: ErrorWeights) -> Factors | str:
    """Linear layers and 1 x 1 convolutions as sums of Kronecker products: far fewer parameters at a time that is saved
    from about three times fewer MACs on; a layer that would not get smaller, or faster, stays as it is.

    Settings: see `distill.compress.low_rank._factorise.factorisation`.
    """
    layer = traced.layer
    if traced.kernel != (1, 1) or (isinstance(layer, nn.Conv2d) and any(_padding(layer))):
        return "no 1x1 convolution"
    if not _splits(layer.weight.shape[0]) or not _splits(layer.weight.shape[1]):
        return "a prime number of channels"
    return Products(traced, error_weights)


@surgery("tt_matrix")
def apply(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Put layers of the planned ranks in place of each one."""
    return rebuild(model, layers, TTMatrix)


class Products:
    """The sums of Kronecker products that a weight may become.

    They are the best where second moments are Kronecker products too, of what the digits' own moments are; the error of
    each is the weighted one.
    """

    def __init__(self, traced: TracedLayer, error_weights: ErrorWeights) -> None:
        self.traced, self.error_weights = traced, error_weights
        self.weight = traced.layer.weight.detach().double().flatten(1)
        self.roots = error_weights.rows(traced, (False, False)).root, error_weights.columns(traced).root
        self.cuts: dict[tuple[Digits, Digits], tuple[Tensor, Tensor]] = {}

    @cached_property
    def importance(self) -> float:
        return self._cost(self.weight)

    def options(self, _: Aim) -> Sequence[Option]:
        """Every split at every rank."""
        outputs, inputs = self.weight.shape
        splits = [(i, o) for i in _splits(inputs) for o in _splits(outputs)]
        return [self._option(i, o, rank) for i, o in splits for rank in RANKS if rank <= _full(i, o)]

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        assert isinstance(module, TTMatrix)
        inputs, outputs, (rank,) = Digits(*spec["inputs"]), Digits(*spec["outputs"]), spec["ranks"]
        slow, fast = (factor[:rank] for factor in self._cut(inputs, outputs))
        module.slow.copy_(slow.transpose(0, 1).reshape(module.slow.shape))  # (rank, outputs, inputs) of slow digits
        module.fast.copy_(fast.transpose(0, 1)[..., None])

    def _option(self, inputs: Digits, outputs: Digits, rank: int) -> Option:
        slow, fast = (factor[:rank] for factor in self._cut(inputs, outputs))
        product = torch.einsum("rab,rcd->acbd", slow, fast).reshape(self.weight.shape)
        first = rank * outputs.slow * self.weight.shape[1]
        second = rank * inputs.fast * self.weight.shape[0]
        return Option(
            {"inputs": list(inputs), "outputs": list(outputs), "ranks": [rank]},
            slow.numel() + fast.numel(),
            (first + second) * self.traced.positions,
            self._cost(product - self.weight) / max(self.importance, 1e-300),
            widths=(rank * outputs.slow,),
        )

    def _cut(self, inputs: Digits, outputs: Digits) -> tuple[Tensor, Tensor]:
        """All factors of one split, (rank, outputs, inputs) of its slow and of its fast digits, the best first."""
        if (inputs, outputs) not in self.cuts:
            slow, fast = self._roots(inputs, outputs, 0), self._roots(inputs, outputs, 1)
            digits = self.weight.reshape(*outputs, *inputs)
            weighted = torch.einsum(
                "abcd,Aa,Bb,Cc,Dd->ACBD", digits, slow[0].root, fast[0].root, slow[1].root, fast[1].root
            )
            u, s, vh = svd(weighted.flatten(2).flatten(0, 1))
            u, v = (u * s.sqrt()).T, s.sqrt()[:, None] * vh
            self.cuts[inputs, outputs] = (
                slow[0].inverse @ u.reshape(-1, outputs.slow, inputs.slow) @ slow[1].inverse,
                fast[0].inverse @ v.reshape(-1, outputs.fast, inputs.fast) @ fast[1].inverse,
            )
        return self.cuts[inputs, outputs]

    def _roots(self, inputs: Digits, outputs: Digits, digit: int) -> tuple[Root, Root]:
        """Of the second moments of one digit of the outputs and of the inputs."""
        moments = (self.error_weights.outputs, outputs), (self.error_weights.inputs, inputs)
        first, second = (Root.of(_marginal(m, digits, digit), digits[digit]) for m, digits in moments)
        return first, second

    def _cost(self, error: Tensor) -> float:
        """Squared, of an error (outputs, inputs) of the weight, weighted."""
        rows, columns = self.roots
        return float((columns @ error @ rows).square().sum())


def _marginal(moments: Tensor | None, digits: Digits, digit: int) -> Tensor | None:
    """Second moments of one digit, summed over the other."""
    if moments is None:
        return None
    return torch.einsum("abcb->ac" if digit == 0 else "abad->bd", moments.reshape(*digits, *digits))


def _splits(channels: int) -> list[Digits]:
    """Into two digits above 1, the most even first."""
    splits = [Digits(channels // fast, fast) for fast in range(2, channels // 2 + 1) if channels % fast == 0]
    return sorted(splits, key=lambda digits: abs(digits.slow - digits.fast))[:SPLITS]


def _full(inputs: Digits, outputs: Digits) -> int:
    """The largest rank there is."""
    return min(outputs.slow * inputs.slow, outputs.fast * inputs.fast)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    """What is added around an image; by name, a 1 x 1 convolution adds nothing."""
    return (0,) if isinstance(layer.padding, str) else layer.padding
