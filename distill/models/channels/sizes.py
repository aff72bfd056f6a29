"""What a network costs at any widths, and how many channels to remove, and where, to meet a budget."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from distill.errors import RecipeError
from distill.models import cost
from distill.models.channels.groups import Widths
from distill.models.channels.narrow import Narrowable, Transposed, costs_of, derived, sizes_of
from distill.models.channels.propagation import Channels, trace_channels
from distill.models.copied import copied
from distill.models.read_elsewhere import read_elsewhere

NEAR = 0.99
"""A budget that is used up to this part is left at that."""


class Budget(NamedTuple):
    """What to keep at most, and how much of it: a part up to 1, or a number."""

    of: Literal["channels", "params", "macs"]
    amount: float


def traceable(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers whose channels can be traced, and why those of other convolutions and linear layers cannot."""
    users: Counter[Tensor] = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    fit: dict[str, nn.Module] = {}
    unfit = {}
    for path, layer in model.named_modules():
        if not isinstance(layer, Narrowable):
            continue
        if type(layer) not in get_args(Narrowable):
            unfit[path] = f"a {type(layer).__name__}"
        elif derived(layer):
            unfit[path] = "weight computed from others"
        elif any(users[parameter] > 1 for parameter in layer.parameters()):
            unfit[path] = "shared weight"
        elif isinstance(layer, Transposed) and layer.groups > 1:
            unfit[path] = "transposed, in groups"
        else:
            fit[path] = layer
    return fit, unfit


class Sizes:
    """What becomes of a network's channels, and what it costs, at any widths.

    Args:
        model: one of its own, in eval mode.
        image: one.
        paths: the layers whose channels are traced, but for those in ``elsewhere``, see `read_elsewhere`.
    """

    def __init__(self, model: nn.Module, image: Tensor, paths: Collection[str]) -> None:
        self.model, self.image = model, image
        self.elsewhere = read_elsewhere(model, image, paths)
        self.paths = [path for path in paths if path not in self.elsewhere]
        self.whole = self._whole()
        counted = self._counted(self.whole)
        self.rest = {
            "params": cost.params(model) - counted["params"],
            "macs": cost.macs(model, image) - counted["macs"],
        }

    def _whole(self) -> Channels:
        try:
            return self.trace({})
        except Exception as error:  # whatever a network does that cannot be done with zeros
            return Channels({}, frozenset(), (), (f"{type(self.model).__name__} ({type(error).__name__}: {error})",))

    def trace(self, outputs: Mapping[str, int]) -> Channels:
        return trace_channels(self.model, self.image, self.paths, outputs)

    def plan(self, channels: Channels) -> dict[str, dict[str, Any]]:
        """Layers that have other numbers of channels then."""
        found = {}
        for path, ends in channels.ends.items():
            sizes = (len(ends.inputs), len(ends.outputs or ends.inputs))
            if sizes != sizes_of(self.model.get_submodule(path)):
                found[path] = dict(zip(("inputs", "outputs"), sizes, strict=True))
        return found

    def cost(self, channels: Channels) -> dict[str, int]:
        """Parameters, and multiply-accumulates for one image."""
        return {of: count + self.rest[of] for of, count in self._counted(channels).items()}

    def _counted(self, channels: Channels) -> dict[str, int]:
        """Of the layers that are traced."""
        params = macs = 0
        for path, ends in channels.ends.items():
            weights, others = costs_of(self.model.get_submodule(path), len(ends.inputs), len(ends.outputs))
            params, macs = params + weights + others, macs + weights * ends.positions
        return {"params": params, "macs": macs}


def sizes_of_copy(model: nn.Module, image: Tensor) -> Sizes:
    """Of a copy of the model on the CPU, in evaluation mode."""
    model = copied(model).cpu().eval()
    return Sizes(model, image.detach().cpu().contiguous(), traceable(model)[0])


def choose(
    widths: Widths, sizes: Sizes, budget: Budget, scope: str, ranking: Mapping[int, float] | None = None
) -> Channels:
    """The channels that are left when as few are removed as the budget asks for.

    Args:
        scope: "global" removes the channels that rank lowest, "layer" the same part of each family.
        ranking: a number for every channel that may go; without it, its saliency.

    Raises:
        RecipeError: the budget cannot be met; names the least that could.
    """
    order = [i for family in widths.families for atom in family.atoms for i in atom]
    rank = widths.scores if ranking is None else ranking
    order.sort(key=lambda i: (rank[i], i))

    def shares(count: int) -> list[float]:
        if scope == "layer":
            return [1 - count / max(1, len(order))] * len(widths.families)
        gone = set(order[:count])
        return [1 - len(gone.intersection(chain(*family.atoms))) / family.size for family in widths.families]

    def without(count: int) -> tuple[list[int], Channels]:
        near = zip(widths.families, shares(count), strict=True)
        return widths.fit([family.nearest(share) for family, share in near])

    if budget.of == "channels":
        return without(round((1 - budget.amount) * len(order)))[1]

    whole = sizes.cost(sizes.whole)[budget.of]
    limit = budget.amount * whole if budget.amount <= 1 else budget.amount

    def used(channels: Channels) -> float:
        return sizes.cost(channels)[budget.of] / limit

    if (least := used(without(len(order))[1])) > 1:
        raise RecipeError(
            f"prune_channels cannot meet max_{budget.of}={budget.amount}: with these layers, round_to and "
            f"min_channels, {least * limit / whole:.3f} of them is the least"
        )
    count = bisect_left(range(len(order)), True, key=lambda n: used(without(n)[1]) <= 1)
    levels, channels = without(count)
    return _filled(widths, levels, channels, shares(count), used)


def _filled(
    widths: Widths, levels: list[int], channels: Channels, shares: list[float], used: Callable[[Channels], float]
) -> Channels:
    """The same with channels put back that the budget has room for, first where rounding took most."""
    taken = [share - family.kept(level) for family, level, share in zip(widths.families, levels, shares, strict=True)]
    for family in sorted(range(len(levels)), key=lambda f: -taken[f]):
        while levels[family] and used(channels) < NEAR:
            fuller = widths.fit([level - (f == family) for f, level in enumerate(levels)])
            if used(fuller[1]) > 1:
                break
            levels, channels = fuller
    return channels
