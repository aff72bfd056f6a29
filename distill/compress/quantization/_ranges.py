"""From which value to which an activation's codes reach, chosen on calibration images.

``minmax``: all that was seen (Jacob et al. arXiv:1712.05877, section 3.1). The others cut rare large values off, for
finer steps: ``percentile`` as many as it says (Wu et al. arXiv:2004.09602, section 4.2); ``entropy`` where the
distribution changes least (Migacz: 8-bit Inference with TensorRT, GTC 2017); ``mse`` where the squared error is least.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.compress._places import Place, Spot
from distill.errors import TrainingError
from distill.models.called import first_input
from distill.models.fake_quantize import LEVELS, QuantizationParams

Method = Literal["minmax", "percentile", "entropy", "mse"]

BINS = 2048
CUTS = torch.linspace(1, 0.125, 106).tolist()
"""How much of the whole range the tried ones keep, on either side of 0; no less, that bins stay finer than steps."""


LEAST = 1e-6
"""The frequency that `entropy` gives to a value that the coded distribution lacks: an outlier without neighbours."""


class Histogram:
    """What values were seen: first their range, then, with that known, how many in each of equal bins."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def widen(self, values: Tensor) -> None:
        """First look."""
        low, high = values.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise TrainingError("int8: an activation on calibration images is not finite: train the network again")
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def count(self, values: Tensor) -> None:
        """Second look."""
        self.counts += torch.histc(values.float(), BINS, self.low, self.high).double()

    def grid(self, method: Method, percentile: float) -> QuantizationParams:
        """The grid that the method chooses.

        Args:
            method: see above.
            percentile: of ``percentile`` alone, the part of the values that stays, in percent.
        """
        low, high = self.low, self.high
        if method == "percentile":
            centres, part = self._centres(), self.counts.cumsum(0) / self.counts.sum()
            left_out = (1 - percentile / 100) / (2 if low < 0 < high else 1)
            low = float(centres[part > left_out][0]) if low < 0 else low
            high = float(centres[part >= 1 - left_out][0]) if high > 0 else high
        elif method in ("mse", "entropy"):
            grids = [QuantizationParams.over(cut * low, cut * high) for cut in CUTS]
            costs = self._squared_errors(grids) if method == "mse" else [self._divergence(grid) for grid in grids]
            return grids[int(np.argmin(costs))]
        return QuantizationParams.over(low, high)

    def _centres(self) -> Tensor:
        return self.low + (torch.arange(BINS, dtype=torch.float64) + 0.5) * (self.high - self.low) / BINS

    def _squared_errors(self, grids: Sequence[QuantizationParams]) -> list[float]:
        centres = self._centres()
        scale, zero = (torch.tensor(part, dtype=torch.float64)[:, None] for part in zip(*grids, strict=True))
        codes = (centres / scale + zero).round().clamp(0, LEVELS)
        return ((codes - zero) * scale - centres).square().mul(self.counts).sum(1).tolist()

    def _without_zeros(self) -> Tensor:
        """The counts, where 0 is no more frequent than its neighbours: every grid has it, so it tells nothing."""
        counts = self.counts.clone()
        zero = int(self._centres().abs().argmin())
        counts[zero] = 0
        counts[zero] = counts[max(zero - 1, 0) : zero + 2].max()
        return counts

    def _divergence(self, grid: QuantizationParams) -> float:
        """Of what the grid can tell of the distribution (each step's share, spread over the step's bins) from the
        distribution itself, whose values beyond the grid count at its ends."""
        centres = self._centres()
        counts = self._without_zeros()
        inside = ((centres / grid.scale + grid.zero) - LEVELS / 2).abs() <= (LEVELS + 1) / 2
        ends = inside.nonzero()[[0, -1], 0].tolist()
        kept = counts * inside
        seen = kept.clone()
        seen[ends[0]] += counts[: ends[0]].sum()
        seen[ends[1]] += counts[ends[1] + 1 :].sum()
        codes = (centres / grid.scale + grid.zero).round().clamp(0, LEVELS).long()
        share = torch.bincount(codes, kept, LEVELS + 1) / torch.bincount(codes, (kept > 0).double(), LEVELS + 1)
        coded = torch.where(kept > 0, share[codes], 0)
        coded, seen = coded[seen > 0] / coded.sum(), seen[seen > 0] / seen.sum()
        return float((seen * (seen / coded.clamp(min=LEAST)).log()).sum())


@torch.no_grad()
def histograms(
    model: nn.Module, places: Sequence[Place], images: Iterable[Tensor], *, counted: bool
) -> list[Histogram]:
    """What is seen at each of the places.

    Raises:
        TrainingError: something that is not finite.
    """
    seen = [Histogram() for _ in places]
    for look in (Histogram.widen, Histogram.count)[: 1 + counted]:
        with ExitStack() as hooks:
            for place, histogram in zip(places, seen, strict=True):
                for spots in place.spots:
                    hooks.enter_context(_watching(model, spots[0], partial(look, histogram)))
            for batch in images:
                model(batch)
    return seen


def _watching(model: nn.Module, spot: Spot, see: Callable[[Tensor], None]) -> RemovableHandle:
    module = model.get_submodule(spot.path)
    if spot.end == "input":
        return module.register_forward_pre_hook(lambda _, *given: see(first_input(*given)), with_kwargs=True)
    return module.register_forward_hook(lambda _, values, value: see(value))
