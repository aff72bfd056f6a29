"""Chen et al.: Compressing Neural Networks with the Hashing Trick. arXiv:1504.04788, sections 4 and 4.3: HashedNets.

A weight at a position is one of a few values, chosen and signed by a hash of the position; only the values are stored.
"""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._weights import adopt, weights_of
from distill.errors import RecipeError
from distill.registry import form
from distill.registry.ranges import Seed, Share

MASK = 2**32 - 1


@hook("hash_weights")
def hash_weights(
    artifact: Artifact, *, ratio: Share = 0.25, seed: Seed = 0, layers: list[str] | None = None
) -> Artifact:
    """Few values per weight, shared at random; they begin as good as they can be, and `finetune` has to train them.

    Args:
        artifact: what to compress.
        ratio: the number of values, as a part of each weight's size, above 0 and below 1.
        seed: of the hash.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``ratio`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if not 0 < ratio < 1:
        raise RecipeError(f"hash_weights keeps a part of the values: 0 < ratio < 1, not {ratio}")
    weights = weights_of(artifact, "hash_weights", layers)
    stored = {
        name: Hashed.fit(weight.cpu(), max(1, int(ratio * weight.numel())), seed + place)
        for place, (name, weight) in enumerate(weights.items())
    }
    return adopt("hash_weights", artifact, stored)


@form("hashed")
@dataclass(frozen=True, eq=False, kw_only=True)
class Hashed:
    """Values that positions share by a hash."""

    values: Tensor
    """bfloat16"""
    shape: list[int]
    """Of the tensor."""
    seed: int
    common: bool = False

    @classmethod
    def fit(cls, tensor: Tensor, count: int, seed: int) -> "Hashed":
        """The least squares: each value is the mean of its positions' signed weights."""
        places, signs = hashed(tensor.numel(), count, seed, tensor.device)
        sums = torch.zeros(count, dtype=torch.float64, device=tensor.device)
        sums.index_add_(0, places, (tensor.flatten() * signs).double())
        means = sums / torch.bincount(places, minlength=count).clamp(min=1)
        return cls(values=means.bfloat16(), shape=list(tensor.shape), seed=seed)

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.shape == list(shape), f"positions of shape {self.shape}")
        need(self.values.dtype == torch.bfloat16 and self.values.dim() == 1, "values of another type or shape")
        need(0 < len(self.values) <= max(1, prod(shape)), f"{len(self.values)} values")

    def nbytes(self) -> int:
        return self.values.nbytes

    def parameters(self) -> int:
        return len(self.values)

    def decode(self) -> Tensor:
        places, signs = hashed(prod(self.shape), len(self.values), self.seed, self.values.device)
        return (self.values.float().index_select(0, places) * signs).view(self.shape)

    def requantize(self, tensor: Tensor) -> "Hashed":
        return self.fit(tensor, len(self.values), self.seed)

    def shared(self) -> Tensor:
        return self.values.float()

    def with_shared(self, values: Tensor) -> "Hashed":
        return replace(self, values=values.bfloat16())


def hashed(positions: int, count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For every position one of ``count`` places, and a sign."""
    start = _mixed(torch.tensor(seed & MASK))
    bits = _mixed(torch.arange(positions, device=device) ^ start.to(device))
    return (bits >> 1) % count, 1.0 - 2.0 * (bits & 1)


def _mixed(numbers: Tensor) -> Tensor:
    """MurmurHash3's finalizer (Appleby, 2011): every bit of 32 depends on all of the number's 32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = ((numbers ^ (numbers >> shift)) * factor) & MASK
    return numbers ^ (numbers >> 16)
