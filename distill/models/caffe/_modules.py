"""Caffe's layers that PyTorch has no module for, and the table of all that a network from Caffe may consist of."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.caffe._detection import DetectionOutput, PriorBox


class Scale(nn.Module):
    """Multiplies by a learned factor for each value along some axes, and adds a learned bias."""

    def __init__(self, shape: Sequence[int], *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))
        self.bias = nn.Parameter(torch.zeros(*shape)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = inputs * self.weight
        return scaled if self.bias is None else scaled + self.bias


class Multiply(nn.Module):
    """A `Scale` by a second map, to which ``trailing`` axes are added."""

    def __init__(self, trailing: int) -> None:
        super().__init__()
        self.trailing = trailing

    def forward(self, inputs: Tensor, factors: Tensor) -> Tensor:
        return inputs * factors[(..., *[None] * self.trailing)]


class Eltwise(nn.Module):
    """Sum (weighted), product or maximum of maps of one shape."""

    def __init__(self, operation: str = "SUM", coefficients: Sequence[float] = ()) -> None:
        super().__init__()
        if operation not in ("SUM", "PROD", "MAX"):
            raise ValueError(f"operation is SUM, PROD or MAX, not {operation}")
        self.operation, self.coefficients = operation, tuple(coefficients)

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        maps = [first, *others]
        if self.coefficients:
            maps = [c * one if c != 1 else one for c, one in zip(self.coefficients, maps, strict=True)]
        result = maps[0]
        for one in maps[1:]:
            if self.operation == "SUM":
                result = result + one
            else:
                result = result * one if self.operation == "PROD" else torch.maximum(result, one)
        return result


class Concat(nn.Module):
    """Maps side by side."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, self.axis)


class Slice(nn.Module):
    """A map in parts of these sizes."""

    def __init__(self, sizes: Sequence[int], axis: int = 1) -> None:
        super().__init__()
        self.sizes, self.axis = list(sizes), axis

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(inputs, self.sizes, self.axis)


class Split(nn.Module):
    """A map under several names."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs,) * self.count


class Crop(nn.Module):
    """The part of a map that has the size of a second one along the last axes, one for each offset."""

    def __init__(self, axis: int, offsets: Sequence[int]) -> None:
        super().__init__()
        self.axis, self.offsets = axis, tuple(offsets)

    def forward(self, inputs: Tensor, like: Tensor) -> Tensor:
        for axis, offset in enumerate(self.offsets, start=self.axis):
            inputs = inputs.narrow(axis, offset, like.shape[axis])
        return inputs


class Reshape(nn.Module):
    """Another shape: 0 keeps the size of that axis, -1 is what is left."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.reshape([inputs.shape[axis] if size == 0 else size for axis, size in enumerate(self.shape)])


class Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.permute(self.order)


class Power(nn.Module):
    """(shift + scale x) ^ power"""

    def __init__(self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, inputs: Tensor) -> Tensor:
        moved = self.shift + self.scale * inputs
        return moved if self.power == 1 else moved**self.power


class Absolute(nn.Module):
    """|x|"""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.abs()


class LRNWithin(nn.Module):
    """Local response normalisation over a window of each channel by itself."""

    def __init__(self, size: int = 5, alpha: float = 1.0, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, inputs: Tensor) -> Tensor:
        energy = F.avg_pool2d(inputs.square(), self.size, 1, self.size // 2)
        return inputs * (1 + self.alpha * energy) ** -self.beta


class Normalize(nn.Module):
    """Liu et al.: ParseNet. arXiv:1506.04579, section 3.3: each position, or each image, to L2 norm 1, then scaled."""

    def __init__(self, channels: int, across_spatial: bool = True, eps: float = 1e-10) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.axes, self.eps = [1, 2, 3] if across_spatial else [1], eps

    def forward(self, inputs: Tensor) -> Tensor:
        norm = (inputs.square().sum(self.axes, keepdim=True) + self.eps).sqrt()
        return inputs / norm * self.weight


MODULES: Mapping[str, Callable[..., nn.Module]] = {
    "AbsVal": Absolute,
    "AveragePool": nn.AvgPool2d,
    "BNLL": nn.Softplus,
    "BatchNorm": nn.BatchNorm2d,
    "BatchNorm1d": nn.BatchNorm1d,
    "Concat": Concat,
    "Convolution": nn.Conv2d,
    "Crop": Crop,
    "Deconvolution": nn.ConvTranspose2d,
    "DetectionOutput": DetectionOutput,
    "Dropout": nn.Dropout,
    "ELU": nn.ELU,
    "Eltwise": Eltwise,
    "Flatten": nn.Flatten,
    "GlobalAveragePool": nn.AdaptiveAvgPool2d,
    "GlobalMaxPool": nn.AdaptiveMaxPool2d,
    "InnerProduct": nn.Linear,
    "LRN": nn.LocalResponseNorm,
    "LRNWithin": LRNWithin,
    "LeakyReLU": nn.LeakyReLU,
    "MaxPool": nn.MaxPool2d,
    "Multiply": Multiply,
    "Normalize": Normalize,
    "PReLU": nn.PReLU,
    "Permute": Permute,
    "Power": Power,
    "PriorBox": PriorBox,
    "ReLU": nn.ReLU,
    "Reshape": Reshape,
    "Scale": Scale,
    "Sigmoid": nn.Sigmoid,
    "Slice": Slice,
    "Softmax": nn.Softmax,
    "Split": Split,
    "TanH": nn.Tanh,
}
"""What a layer of a network's entry may be; nothing else is ever built."""
