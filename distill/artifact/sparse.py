"""Sparsity masks: how pruned tensors are stored, and how masks outlive later hooks and fine-tuning."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.artifact.storage import Encoded, Shared, Stored, need, validate
from distill.errors import RecipeError
from distill.registry import form


@form("sparse")
@dataclass(frozen=True, eq=False, kw_only=True)
class Sparse:
    """A mask and the values that it keeps; fitted to other values, it keeps those at the same positions."""

    bitmap: Tensor
    """uint8: eight positions to a byte, the first in the lowest bit, 1 where a value is kept."""
    values: Tensor
    """The kept ones, in the tensor's order."""
    shape: list[int]

    @classmethod
    def of(cls, tensor: Tensor, keep: Tensor) -> "Sparse":
        """The tensor where the mask ``keep`` is true, zeros elsewhere."""
        bits = F.pad(keep.flatten().to(torch.uint8), (0, -keep.numel() % 8)).view(-1, 8)
        bitmap = (bits << _places(bits)).sum(1, dtype=torch.uint8)
        return cls(bitmap=bitmap, values=tensor[keep], shape=list(tensor.shape))

    def mask(self, device: torch.device | None = None) -> Tensor:
        """True where a value is kept."""
        bitmap = self.bitmap.to(device)
        bits = (bitmap[:, None] >> _places(bitmap)) & 1
        return bits.flatten()[: prod(self.shape)].view(self.shape).bool()

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.shape == list(shape), f"a mask of shape {self.shape}")
        need(self.bitmap.dtype == torch.uint8 and self.bitmap.shape == (-(-prod(shape) // 8),), "another mask's size")
        need(self.values.is_floating_point() and self.values.dim() == 1, "values of a sparse tensor that are no floats")
        need(int(self.mask().sum()) == len(self.values), "a mask that keeps another number of values than there are")

    def nbytes(self) -> int:
        return self.bitmap.nbytes + self.values.nbytes

    def decode(self) -> Tensor:
        tensor = self.values.new_zeros(self.shape)
        tensor[self.mask(tensor.device)] = self.values
        return tensor

    def requantize(self, tensor: Tensor) -> "Sparse":
        return replace(self, values=tensor[self.mask(tensor.device)])


@form("spliced")
@dataclass(frozen=True, eq=False, kw_only=True)
class Spliced:
    """Guo, Yao & Chen: Dynamic Network Surgery for Efficient DNNs. arXiv:1608.04493: a mask that is chosen anew from
    whatever values it is fitted to, so that fine-tuning brings back what it needs.

    Departs from the paper: as many values as before are kept, the largest, in place of two thresholds.
    """

    inner: Sparse
    pattern: list[int]
    """[n, m, axis]: among every m neighbours along the axis the n largest come first; empty without such a rule."""

    def validate(self, shape: tuple[int, ...]) -> None:
        self.inner.validate(shape)
        if self.pattern:
            need(len(self.pattern) == 3, f"a pattern of {self.pattern}")
            n, m, axis = self.pattern
            need(0 < n < m and 0 <= axis < len(shape) and shape[axis] % m == 0, f"a pattern of {self.pattern}")

    def nbytes(self) -> int:
        return self.inner.nbytes()

    def decode(self) -> Tensor:
        return self.inner.decode()

    def requantize(self, tensor: Tensor) -> "Spliced":
        size = tensor.abs()
        if self.pattern:
            size = size.masked_fill(n_of_m(size, *self.pattern), torch.inf)
        return replace(self, inner=Sparse.of(tensor, largest(size, len(self.inner.values))))


@form("pruned")
@dataclass(frozen=True, eq=False, kw_only=True)
class Pruned:
    """Another form with a sparsity mask: the zeros of what it decodes to are the mask, which costs no bytes."""

    inner: Stored

    def validate(self, shape: tuple[int, ...]) -> None:
        validate(self.inner, shape)

    def nbytes(self) -> int:
        return self.inner.nbytes()

    def decode(self) -> Tensor:
        return self.inner.decode()

    def requantize(self, tensor: Tensor) -> "Pruned":
        zeros = (self.decode() == 0).to(tensor.device)
        return replace(self, inner=self.inner.requantize(tensor.masked_fill(zeros, 0)))


@form("pruned_shared")
@dataclass(frozen=True, eq=False, kw_only=True)
class PrunedShared(Pruned):
    """Another form in which positions share values: training moves the values, while codes and zeros stay."""

    inner: Any

    @property
    def common(self) -> bool:
        return self.inner.common

    def shared(self) -> Tensor:
        return self.inner.shared()

    def with_shared(self, values: Tensor) -> "PrunedShared":
        return replace(self, inner=self.inner.with_shared(values))


def keeps_zeros(stored: Stored | None) -> bool:
    """Whether it is the form of a pruned tensor."""
    return isinstance(stored, Sparse | Spliced | Pruned)


def inherit_zeros(old: Stored | None, new: Stored) -> Stored:
    """``new``, made to keep the zeros that it finds if ``old``, whose place it takes, did so.

    Raises:
        RecipeError: it has no zeros where ``old`` has them.
    """
    if old is None or not keeps_zeros(old) or keeps_zeros(new) or isinstance(new, Encoded):
        return new
    if new.decode()[old.decode() == 0].any():
        kind = type(new).__name__
        raise RecipeError(f"'{kind}' has other values in place of pruned weights: its hook cannot follow 'prune'")
    return PrunedShared(inner=new) if isinstance(new, Shared) else Pruned(inner=new)


def largest(values: Tensor, count: int) -> Tensor:
    """A mask of that many values, the largest; the same for the same values."""
    flat = values.flatten()
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.topk(count, sorted=False).indices] = True
    return mask.view_as(values)


def n_of_m(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    """Mishra et al.: Accelerating Sparse Deep Neural Networks. arXiv:2104.08378: a mask of the ``n`` largest among
    every ``m`` neighbours along an axis, whose size is a multiple of ``m``."""
    groups = values.movedim(axis, -1).unflatten(-1, (-1, m))
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(n).indices, True)
    return keep.flatten(-2).movedim(-1, axis)


def _places(bits: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=bits.device)
