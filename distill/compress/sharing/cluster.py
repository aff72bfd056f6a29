"""Han, Mao & Dally: Deep Compression. arXiv:1510.00149, section 3: weight sharing by k-means.

Departs from the paper: zeros, as pruning leaves them, have a code of their own and stay zero.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.storage import need
from distill.compress import hook
from distill.compress._weights import adopt, weights_of
from distill.errors import RecipeError
from distill.registry import form
from distill.registry.ranges import Seed

Bits = Literal[1, 2, 3, 4, 5, 6, 7, 8]
Initialisation = Literal["optimal", "linear", "density", "random"]
ITERATIONS = 300
BORDERS = 1024
"""Places between sorted values that ``optimal`` considers for the borders of clusters."""
ROUNDED = 1.01
"""Times the squared error that a table in bfloat16 may cost; else it is kept in float32."""


@hook("cluster")
def cluster(
    artifact: Artifact,
    *,
    bits: Bits = 4,
    initialisation: Initialisation = "optimal",
    shared: bool = False,
    seed: Seed = 0,
    layers: list[str] | None = None,
) -> Artifact:
    """A table of 2**bits values per weight, and a code for each position; `finetune` trains the tables.

    Args:
        artifact: what to compress.
        bits: of each code. Below 8, bytes are saved only by `encode` after it: codes are kept one to a byte. No table
            has more than half as many values as its weight.
        initialisation: where k-means starts: evenly over the range (``linear``, the paper's choice, so that the few
            large weights have values near them), evenly over the weights (``density``), at ``random`` weights, or so
            that the squared error ends least (``optimal``).
        shared: one table for all layers, in units of each layer's root mean square: many small layers cost less.
        seed: of ``random``.
        layers: globs of module paths; without any, every layer.

    Raises:
        RecipeError: ``bits`` is out of range, a glob matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    if bits not in get_args(Bits):
        raise RecipeError(f"cluster has codes of 1 to 8 bits, not {bits}")
    weights = {name: weight.cpu() for name, weight in weights_of(artifact, "cluster", layers).items()}

    start = initialisation, torch.Generator().manual_seed(seed)
    if not shared:
        stored = {
            name: Clustered.near(weight, *_table(weight.flatten(), bits, *start)) for name, weight in weights.items()
        }
        return adopt("cluster", artifact, stored)
    scales = {name: _rms(weight) for name, weight in weights.items()}
    pool = torch.cat([(weight / scales[name].float()).flatten() for name, weight in weights.items()])
    values, zero = _table(pool, bits, *start)
    stored = {name: Clustered.near(weight, values, zero, scales[name]) for name, weight in weights.items()}
    return adopt("cluster", artifact, stored)


@form("clustered")
@dataclass(frozen=True, eq=False, kw_only=True)
class Clustered:
    """Codes into a table of values."""

    codes: Tensor
    """uint8, in the tensor's own shape."""
    values: Tensor
    """bfloat16 or float32, in ascending order until they are trained."""
    scale: Tensor | None = None
    """bfloat16: what values are multiplied by."""
    zero: bool
    """Whether code 0 is zero, and 1 the first value; else 0 is the first value."""
    common: bool = False
    """Whether forms that hold equal values train them together."""

    @classmethod
    def near(cls, tensor: Tensor, values: Tensor, zero: bool, scale: Tensor | None = None) -> "Clustered":
        """The code of the nearest value at each position; where there is a code for zero, zeros have it."""
        places = tensor if scale is None else tensor / scale.float()
        ordered, order = values.float().sort()
        codes = order[torch.bucketize(places, (ordered[1:] + ordered[:-1]) / 2)] + zero
        codes = codes.masked_fill(tensor == 0, 0) if zero else codes
        return cls(codes=codes.to(torch.uint8), values=values, scale=scale, zero=zero, common=scale is not None)

    def validate(self, shape: tuple[int, ...]) -> None:
        need(self.codes.dtype == torch.uint8 and self.codes.shape == shape, "codes of another type or shape")
        kinds = (torch.bfloat16, torch.float32)
        need(self.values.dtype in kinds and self.values.dim() == 1, "values of another type or shape")
        need(0 < len(self.values) <= 256, f"{len(self.values)} values")
        need(self.scale is None or (self.scale.dtype == torch.bfloat16 and self.scale.shape == (1,)), "no single scale")

    def nbytes(self) -> int:
        return self.codes.nbytes + self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def decode(self) -> Tensor:
        table = F.pad(self.values.float(), (int(self.zero), 0))
        decoded = table.index_select(0, self.codes.flatten().long()).view(self.codes.shape)
        return decoded if self.scale is None else decoded * self.scale.float()

    def requantize(self, tensor: Tensor) -> "Clustered":
        return self.near(tensor, self.values, self.zero, self.scale)

    def shared(self) -> Tensor:
        return self.values.float()

    def with_shared(self, values: Tensor) -> "Clustered":
        return replace(self, values=values.to(self.values.dtype))


def k_means(values: Tensor, count: int, initialisation: Initialisation, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm on a line, until nothing moves: clusters are intervals of the sorted values.

    ``optimal`` starts at the best of all clusters with borders at no more than 1024 places, by dynamic programming
    (Wang & Song: Ckmeans.1d.dp. The R Journal 3(2), 2011, equation 1). The places are as dense as the cube root of the
    values' density, as the best borders are (Panter & Dite: Quantization Distortion in Pulse-Count Modulation.
    Proceedings of the IRE 39(1), 1951).

    Args:
        values: what to cluster.
        count: of clusters.
        initialisation: see `cluster`.
        generator: for ``random``.

    Returns:
        The means, ascending; one whose cluster is empty stays where it was.
    """
    line = _Line(values)
    ordered = line.ordered
    if initialisation == "optimal":
        return line.settle(line.best(count))
    if initialisation == "linear":
        means = torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=torch.float64)
    elif initialisation == "density":
        means = ordered[((torch.arange(count) + 0.5) / count * len(ordered)).long()]
    else:
        means = ordered[torch.randint(len(ordered), (count,), generator=generator)].sort().values
    return line.settle(means)


class _Line:
    """Sorted values, and the sums that give the mean of any interval of them at once."""

    def __init__(self, values: Tensor) -> None:
        self.ordered = values.double().sort().values
        self.sums = F.pad(self.ordered.cumsum(0), (1, 0))

    def edges(self, means: Tensor) -> Tensor:
        """Where the cluster of each mean begins, and the end."""
        inner = torch.searchsorted(self.ordered, (means[1:] + means[:-1]) / 2)
        return F.pad(F.pad(inner, (1, 0)), (0, 1), value=len(self.ordered))

    def settle(self, means: Tensor) -> Tensor:
        """Lloyd's algorithm."""
        for _ in range(ITERATIONS):
            edges = self.edges(means)
            sizes = edges.diff()
            moved = torch.where(sizes > 0, self.sums[edges].diff() / sizes, means)
            if torch.equal(moved, means):
                break
            means = moved
        return means

    def best(self, count: int) -> Tensor:
        """The means of the clusters with the least squared error, of those with borders at `_borders`."""
        borders = self._borders()
        count = min(count, len(borders) - 1)
        costs = self._costs(borders)
        error, before = costs[0], []
        for _ in range(count - 1):
            error, chosen = (error[:, None] + costs).min(0)
            before.append(chosen)
        cuts = [len(borders) - 1]
        for chosen in reversed(before):
            cuts.append(int(chosen[cuts[-1]]))
        edges = borders[[0, *reversed(cuts)]]
        return self.sums[edges].diff() / edges.diff().clamp(min=1)

    def _borders(self) -> Tensor:
        """Positions from 0 to the number of values, ascending."""
        size = len(self.ordered)
        mass = self.ordered.diff() ** (2 / 3)  # a density is one over the gap between two values
        inner = mass.nonzero()[:, 0] + 1
        if len(inner) > BORDERS:
            mass = mass.clamp(max=_cap(mass)).cumsum(0)
            wanted = (torch.arange(BORDERS, dtype=torch.float64) + 0.5) / BORDERS * mass[-1]
            inner = torch.searchsorted(mass, wanted) + 1
        return F.pad(F.pad(inner, (1, 0)), (0, 1), value=size).unique()

    def _costs(self, borders: Tensor) -> Tensor:
        """[a, b]: the squared error of one cluster from border a to border b, infinite unless a < b."""
        centred = self.ordered - self.ordered.mean()
        sums, squares = (F.pad(some.cumsum(0), (1, 0))[borders] for some in (centred, centred.square()))
        sizes = (borders[None] - borders[:, None]).double()
        costs = (squares[None] - squares[:, None]) - (sums[None] - sums[:, None]).square() / sizes.clamp(min=1)
        return costs.clamp(min=0).masked_fill(sizes <= 0, torch.inf)


def _cap(mass: Tensor) -> float:
    """The most mass that a gap may have if none is to get more than one of `BORDERS` places: outliers would get all."""
    cap = float(mass.sum()) / BORDERS
    while (lower := float(mass.clamp(max=cap).sum()) / BORDERS) < 0.999 * cap:
        cap = lower
    return cap


def _table(
    values: Tensor, bits: int, initialisation: Initialisation, generator: torch.Generator
) -> tuple[Tensor, bool]:
    """Means of the values that are not zero, and whether zero needs a code."""
    present = values[values != 0]
    zero = len(present) < len(values)
    count = min(2**bits - zero, len(values) // 2)
    if not len(present):
        return torch.zeros(1, dtype=torch.bfloat16), zero
    exact = k_means(present, max(1, count), initialisation, generator).float()
    rounded = exact.bfloat16()
    return rounded if _error(present, rounded) <= ROUNDED * _error(present, exact) else exact, zero


def _error(values: Tensor, means: Tensor) -> float:
    """The sum of squared distances from the nearest mean."""
    return float((Clustered.near(values, means, False).decode() - values).double().square().sum())


def _rms(weight: Tensor) -> Tensor:
    """(1,) bfloat16"""
    rms = weight.square().mean().sqrt()
    return (rms if rms > 0 else torch.ones(())).bfloat16()[None]
