"""Subsets, the same for every seed, and stratified where samples have classes."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from distill.errors import RecipeError


def stratified(labels: Int64[Tensor, " samples"]) -> Int64[Tensor, " samples"]:
    """All positions, shuffled so that every stretch of them holds each class in proportion.

    The j-th of n samples of a class, in random order, comes (j + 1/2) / n of the way through.
    """
    random = _random()
    positions = random.permutation(len(labels))
    _, classes, counts = np.unique(labels.numpy()[positions], return_inverse=True, return_counts=True)
    by_class = classes.argsort(kind="stable")
    rank = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    progress = (rank + 0.5) / np.repeat(counts, counts)
    order = np.lexsort((random.random_sample(len(labels)), progress))  # ties at random, not the first class first
    return torch.from_numpy(positions[by_class[order]])


def shuffled(samples: int, classes: Int64[Tensor, " samples"] | None) -> Int64[Tensor, " samples"]:
    """All positions in random order: `stratified` where samples have classes."""
    return torch.from_numpy(_random().permutation(samples)) if classes is None else stratified(classes)


def split(
    order: Int64[Tensor, " samples"], limit: int | None, val: float
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " val"]]:
    """Positions to train on and to validate with, each ascending; ``val`` is a fraction of the (limited) set.

    A smaller limit's positions are among a larger one's, and so are those held out for validation.

    Args:
        order: all positions, as `shuffled` gives them.
        limit: how many of them to use, None for all.
        val: at least 0 and below 1; above 0, at least one sample is held out.

    Raises:
        RecipeError: limit or val is out of range, or nothing is left to train on.
    """
    if limit is not None and limit < 1:
        raise RecipeError(f"data.limit={limit}: at least 1 training sample, or none for all of them")
    if not 0 <= val < 1:
        raise RecipeError(f"data.val={val}: a fraction of the training set, at least 0 and below 1")
    order = order[:limit]
    held_out = max(1, round(val * len(order))) if val else 0
    if held_out >= len(order):
        raise RecipeError(
            f"data.val={val} leaves none of {len(order)} samples to train on: lower it or raise data.limit"
        )
    return order[held_out:].sort().values, order[:held_out].sort().values


def _random() -> np.random.RandomState:
    # Not the run's seed: runs with different seeds must train on, and be judged by, the same images. RandomState and
    # not a Generator: NumPy keeps its numbers as they are for good (NEP 19), so a new version draws the same split.
    return np.random.RandomState(0)
