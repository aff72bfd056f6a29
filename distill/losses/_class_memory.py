"""The latest embeddings of every class."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from distill.processes import gathered


class ClassMemory(nn.Module):
    """A ring of unit vectors for each class: random ones until there have been enough.

    Buffers, so that checkpoints hold them; the same in all processes, each of which remembers what any has seen.

    Args:
        num_classes: rings.
        length: of each ring.
        dimension: of an embedding.
    """

    same_everywhere = True
    rows: Tensor
    oldest: Tensor

    def __init__(self, num_classes: int, length: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(num_classes, length, dimension), dim=2))
        self.register_buffer("oldest", torch.zeros(num_classes, dtype=torch.int64))

    def draw(self, count: int) -> Float[Tensor, "drawn dimension"]:
        """Equally many of each class, without repetition; all in all ``count`` or, to divide evenly, a few more."""
        classes, length = self.rows.shape[:2]
        chosen = torch.randperm(length, device=self.rows.device)[: -(-count // classes)]
        return self.rows[:, chosen].flatten(0, 1)

    def remember(self, embedded: Float[Tensor, "new dimension"], classes: Int64[Tensor, " new"]) -> None:
        """Put each embedding of any process in the place of the oldest one of its class; of too many, the last stay."""
        embedded, classes = gathered(embedded, classes)
        length = self.rows.shape[1]
        counts = classes.bincount(minlength=len(self.oldest))
        rank = rank_within(classes)
        kept = rank >= counts[classes] - length
        embedded, classes, rank = embedded[kept], classes[kept], rank[kept]
        self.rows[classes, (self.oldest[classes] + rank) % length] = F.normalize(embedded, dim=1)
        self.oldest.copy_((self.oldest + counts) % length)


def rank_within(groups: Int64[Tensor, " members"]) -> Int64[Tensor, " members"]:
    """How many members before each one are of the same group."""
    order, counts = groups.argsort(stable=True), groups.bincount()
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(groups)
    rank[order] = torch.arange(len(groups), device=groups.device) - first[groups[order]]
    return rank


def some_of_each(groups: Int64[Tensor, " members"], most: int) -> Bool[Tensor, " members"]:
    """Which members are chosen if of every group at most ``most`` are, at random."""
    order = torch.randperm(len(groups), device=groups.device)
    chosen = torch.empty_like(groups, dtype=torch.bool)
    chosen[order] = rank_within(groups[order]) < most
    return chosen
