"""Soft assignments of channels and classes to groups (SplitNet, section 3.1): how far they overlap, and in the end one
group for each."""

from jaxtyping import Float
from torch import Tensor

Assigned = Float[Tensor, "groups channels"]
"""How much of each channel, or class, is in each group; columns sum to 1."""


def overlap(assigned: Assigned) -> Float[Tensor, ""]:
    """The sum of products of each two groups, relative to that of equal shares."""
    groups, channels = assigned.shape
    return (1 - assigned.square().sum() / channels) * groups / (groups - 1)


def imbalance(assigned: Assigned) -> Float[Tensor, ""]:
    """The sum of squares of the groups' sizes, relative to that of equal sizes."""
    groups, channels = assigned.shape
    return assigned.sum(1).square().sum() * groups / channels**2


def assigned_to(assigned: Assigned) -> list[int]:
    """A group for every channel, the most certain first, until a group is full."""
    groups, channels = assigned.shape
    room = [channels // groups + (group < channels % groups) for group in range(groups)]
    found = [0] * channels
    for channel in assigned.max(0).values.argsort(descending=True).tolist():
        best = max((g for g in range(groups) if room[g]), key=lambda g: float(assigned[g, channel]))
        room[best] -= 1
        found[channel] = best
    return found


def group_sizes(groups: list[int]) -> list[int]:
    """How many members each group has."""
    return [groups.count(group) for group in range(max(groups) + 1)]
