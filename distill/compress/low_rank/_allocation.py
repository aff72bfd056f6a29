"""Ranks for every layer from one number for the whole network.

Each layer has options: what it may become, what that costs, what is lost. A budget is spread over layers
along their convex hulls, least loss per saving first: Everett, Generalized Lagrange Multiplier Method. Operations
Research 11(3), 1963.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from distill.errors import RecipeError

log = logging.getLogger("distill.compress")

Aim = Literal["size", "speed"]
EVALUATIONS = 7
"""Networks tried to meet ``max_drop``: the budget is then known to a hundredth of what can be saved."""


@dataclass(frozen=True)
class Option:
    """One thing that a layer may become."""

    spec: Mapping[str, Any]
    """Its entry in the plan."""
    params: int
    """Without bias."""
    macs: int
    """For one image."""
    error: float
    """Squared, as a part of the whole squared weight; both weighted."""
    seconds: float = 0.0
    """For one image; 0: not timed."""
    widths: tuple[int, ...] = ()
    """Channels between the layers that it runs as, where they are not its ranks."""


@dataclass(frozen=True)
class LayerOptions:
    """What may become of one layer."""

    dense: Option
    options: tuple[Option, ...]
    """Each better than the dense layer in what is aimed at."""
    importance: float = 1.0
    """What losing the whole weight would cost, in the same unit for every layer."""

    def loss(self, option: Option) -> float:
        return self.importance * option.error

    def repeated(self, times: int) -> "LayerOptions":
        """What each costs where one image runs through the layer so many times."""
        dense, *options = (
            replace(option, macs=times * option.macs, seconds=times * option.seconds)
            for option in (self.dense, *self.options)
        )
        return replace(self, dense=dense, options=tuple(options))


LayersOptions = Mapping[str, LayerOptions]
Allocation = Mapping[str, Option]
Cost = Callable[[Option], float]
COSTS: dict[str, Cost] = {
    "params": lambda option: option.params,
    "macs": lambda option: option.macs,
    "seconds": lambda option: option.seconds,
}


@dataclass(frozen=True)
class Goal:
    """One of four numbers, and whether layers are to become smaller or faster."""

    max_error: float | None = None
    max_params: float | None = None
    max_macs: float | None = None
    max_drop: float | None = None
    aim: Aim = "size"

    def __post_init__(self) -> None:
        given = {name: value for name in LIMITS if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(given)}: give one of them, ranks follow from it")
        for name, value in given.items():
            if not LIMITS[name][0](value):
                raise RecipeError(f"{name} is {value}, but {LIMITS[name][1]}")

    def choose(
        self, by_layer: LayersOptions, total: Mapping[str, int], evaluate: Callable[[Allocation], float]
    ) -> Allocation:
        """What becomes of each layer; layers that stay as they are are left out.

        Args:
            by_layer: the options of each layer.
            total: the network's parameters and MACs, "params" and "macs".
            evaluate: the task's monitor of an allocation, higher is better; called only for ``max_drop``.

        Raises:
            RecipeError: a budget that no allocation meets, with the nearest possible.
        """
        cost = COSTS["seconds" if self.aim == "speed" else "params"]
        if self.max_error is not None:
            return _within(by_layer, self.max_error, cost)
        for kind, limit in (("params", self.max_params), ("macs", self.max_macs)):
            if limit is not None:
                return _budgeted(by_layer, kind, limit, total[kind])
        return _searched(by_layer, cost, evaluate, 0.01 if self.max_drop is None else self.max_drop)


LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "max_error": (lambda value: 0 < value < 1, "it is a part of the weight: above 0, below 1"),
    "max_params": (lambda value: value > 0, "it is a part of the network's parameters, or above 1 their number"),
    "max_macs": (lambda value: value > 0, "it is a part of the network's MACs, or above 1 their number"),
    "max_drop": (lambda value: value >= 0, "it is the largest loss of the task's monitor: 0 or more"),
}


def spread(by_layer: LayersOptions, cost: Cost, budget: float) -> Allocation:
    """The options of least loss, as far as convex hulls tell, that cost no more than ``budget`` in all.

    Where nothing meets the budget: the cheapest options.
    """
    steps = sorted(
        (
            (
                (layer.loss(after) - layer.loss(before)) / (cost(before) - cost(after)),
                path,
                position,
                after,
            )
            for path, layer in by_layer.items()
            for position, (before, after) in enumerate(_steps(layer, cost))
        ),
        key=lambda step: step[:3],
    )
    chosen = {path: layer.dense for path, layer in by_layer.items()}
    spent = sum(map(cost, chosen.values()))
    for _, path, _, option in steps:
        if spent <= budget:
            break
        spent += cost(option) - cost(chosen[path])
        chosen[path] = option
    # The last step saved more than it had to: what is left over buys the options that help most.
    for path in sorted(by_layer, key=lambda path: -by_layer[path].loss(chosen[path])):
        layer, left = by_layer[path], budget - spent + cost(chosen[path])
        better = [
            o for o in (layer.dense, *layer.options) if cost(o) <= left and layer.loss(o) < layer.loss(chosen[path])
        ]
        if better:
            option = min(better, key=lambda o: (layer.loss(o), cost(o)))
            spent += cost(option) - cost(chosen[path])
            chosen[path] = option
    return chosen


def _steps(layer: LayerOptions, cost: Cost) -> Iterable[tuple[Option, Option]]:
    """Neighbours on the lower convex hull of loss over cost, from dense to cheapest."""
    hull = [layer.dense]
    for option in sorted(layer.options, key=lambda o: (-cost(o), layer.loss(o))):
        if cost(option) >= cost(hull[-1]):
            continue
        while len(hull) > 1 and _slope(layer, cost, hull[-2], hull[-1]) >= _slope(layer, cost, hull[-1], option):
            hull.pop()
        hull.append(option)
    return pairwise(hull)


def _slope(layer: LayerOptions, cost: Cost, before: Option, after: Option) -> float:
    return (layer.loss(after) - layer.loss(before)) / (cost(before) - cost(after))


def _changed(by_layer: LayersOptions, chosen: Allocation) -> Allocation:
    return {path: option for path, option in chosen.items() if option is not by_layer[path].dense}


def _within(by_layer: LayersOptions, max_error: float, cost: Cost) -> Allocation:
    fit = {path: [o for o in layer.options if o.error <= max_error**2] for path, layer in by_layer.items()}
    return {path: min(some, key=lambda o: (cost(o), o.error)) for path, some in fit.items() if some}


def _budgeted(by_layer: LayersOptions, kind: str, limit: float, total: int) -> Allocation:
    """A budget for the whole network, of which layers without options have taken their part already."""
    cost = COSTS[kind]
    budget = limit * total if limit <= 1 else limit
    fixed = total - sum(cost(layer.dense) for layer in by_layer.values())
    chosen = spread(by_layer, cost, budget - fixed)
    spent = fixed + sum(map(cost, chosen.values()))
    if spent > budget:
        raise RecipeError(
            f"max_{kind} allows {budget:,.0f} {kind} of {total:,}, but the least possible here is {spent:,.0f}: "
            f"max_{kind} of {spent / total + 5e-4:.3f} or more, or more layers"
        )
    return _changed(by_layer, chosen)


def _searched(
    by_layer: LayersOptions, cost: Cost, evaluate: Callable[[Allocation], float], max_drop: float
) -> Allocation:
    """The smallest budget that loses no more than ``max_drop``, by bisection."""
    most = sum(cost(layer.dense) for layer in by_layer.values())
    least = sum(min(map(cost, (layer.dense, *layer.options))) for layer in by_layer.values())
    floor = evaluate({}) - max_drop
    best: Allocation = {}
    low, high, part = 0.0, 1.0, 0.5  # of what can be saved, as far as it is known
    for _ in range(EVALUATIONS if least < most else 0):
        choice = _changed(by_layer, spread(by_layer, cost, most - part * (most - least)))
        value = evaluate(choice)
        log.info("%.1f %% of what could be saved: %.4f, at least %.4f wanted", 100 * part, value, floor)
        if value >= floor:
            best, low = choice, part
        else:
            high = part
        part = (low + high) / 2
    return best
