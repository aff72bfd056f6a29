"""Which classes are taken for which, where a confusion matrix would be too large to store and to look at."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

PAIRS = 30
"""Pairs of classes that are listed."""


class ConfusedPairs(Metric):
    """How often one class was taken for another: {"7 taken for 1": 12}, the most frequent pairs first.

    Memory grows with the mistakes, not with the square of the classes.

    Args:
        class_names: of all classes.
    """

    full_state_update = False
    pairs: list[Tensor]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = class_names
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, output: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> None:
        predicted = output.argmax(1)
        self.pairs.append((labels * len(self.class_names) + predicted)[predicted != labels])

    def compute(self) -> Any:
        every = torch.cat(self.pairs) if isinstance(self.pairs, list) else self.pairs
        codes, counts = every.unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:PAIRS]
        pairs = zip(codes[order].tolist(), counts[order].tolist(), strict=True)
        return {self._named(*divmod(code, len(self.class_names))): count for code, count in pairs}

    def _named(self, true: int, predicted: int) -> str:
        return f"{self.class_names[true]} taken for {self.class_names[predicted]}"
