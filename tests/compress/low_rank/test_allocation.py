"""Budgets: met, spread as well as an exhaustive search would, and searched for by what is lost."""

import logging
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.compress.low_rank._allocation import COSTS, Goal, LayerOptions, Option, spread
from distill.errors import RecipeError

PARAMS = COSTS["params"]


def layer_options(losses: list[float], importance: float = 1.0) -> LayerOptions:
    """One parameter less for each of the losses in turn."""
    count = len(losses)
    options = [Option({"ranks": [k]}, count - k - 1, 10 * (count - k - 1), losses[k]) for k in range(count)]
    return LayerOptions(Option({}, count, 10 * count, 0.0), tuple(options), importance)


convex = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4).map(
    lambda steps: [sum(sorted(steps)[: k + 1]) for k in range(len(steps))]
)


def exhaustive(by_layer: list[LayerOptions], budget: float) -> float:
    """The least loss within a budget, by trying everything."""
    tried = product(*[(one.dense, *one.options) for one in by_layer])
    fit = [choice for choice in tried if sum(map(PARAMS, choice)) <= budget]
    return min(sum(one.loss(o) for one, o in zip(by_layer, choice, strict=True)) for choice in fit)


@settings(max_examples=150, deadline=None)
@given(
    losses=st.lists(convex, min_size=1, max_size=3),
    part=st.floats(0, 1),
    weights=st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
)
def test_nothing_is_better_where_menus_are_convex(losses: list[list[float]], part: float, weights: list[float]) -> None:
    by_layer = {str(k): layer_options(one, weights[k]) for k, one in enumerate(losses)}
    budget = part * sum(map(len, losses))
    chosen = spread(by_layer, PARAMS, budget)
    assert sum(map(PARAMS, chosen.values())) <= budget
    found = sum(by_layer[path].loss(option) for path, option in chosen.items())
    assert found == pytest.approx(exhaustive(list(by_layer.values()), budget))


@settings(max_examples=100, deadline=None)
@given(losses=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=3), part=st.floats(0, 1))
def test_any_budget_that_can_be_met_is(losses: list[list[float]], part: float) -> None:
    by_layer = {str(k): layer_options(one) for k, one in enumerate(losses)}
    budget = part * sum(map(len, losses))
    assert sum(map(PARAMS, spread(by_layer, PARAMS, budget).values())) <= budget


def test_what_is_left_over_is_spent() -> None:
    """The hull's next step is one of five parameters at once; a worse deal that fits saves the rest of the loss."""
    steps = (Option({"ranks": [2]}, 6, 0, 0.7), Option({"ranks": [1]}, 1, 0, 0.8))
    by_layer = {"a": LayerOptions(Option({}, 10, 0, 0.0), steps)}
    assert spread(by_layer, PARAMS, 7)["a"].params == 6


def test_a_budget_counts_the_layers_that_stay() -> None:
    by_layer = {"a": layer_options([0.1, 0.2, 0.3])}
    total = {"params": 103, "macs": 1030}
    goal = Goal(max_params=102)
    assert goal.choose(by_layer, total, lambda choice: 1.0)["a"].params == 2
    assert Goal(max_macs=0.98).choose(by_layer, total, lambda choice: 1.0)["a"].macs == 0
    assert not Goal(max_params=1.0).choose(by_layer, total, lambda choice: 1.0)
    with pytest.raises(RecipeError, match=r"max_params allows 52 params of 103, but the least possible here is 100"):
        Goal(max_params=0.5).choose(by_layer, total, lambda choice: 1.0)


def test_max_error_is_of_each_layer() -> None:
    by_layer = {"a": layer_options([0.01, 0.04, 0.09]), "b": layer_options([0.2])}
    chosen = Goal(max_error=0.2).choose(by_layer, {"params": 4, "macs": 40}, lambda choice: 1.0)
    assert {path: option.error for path, option in chosen.items()} == {"a": 0.04}


def test_max_drop_finds_the_most_that_may_be_saved(caplog: pytest.LogCaptureFixture) -> None:
    by_layer = {"a": layer_options([0.01 * k for k in range(1, 101)])}
    calls = []

    def judge(choice: dict[str, Option]) -> float:
        calls.append(choice)
        return 0.9 - (choice["a"].error if choice else 0.0)

    with caplog.at_level(logging.INFO, logger="distill"):
        chosen = Goal(max_drop=0.305).choose(by_layer, {"params": 100, "macs": 1000}, judge)
    assert 0.28 < chosen["a"].error <= 0.305
    assert len(calls) == 8
    assert "at least 0.5950 wanted" in caplog.messages[-1]


def test_a_drop_that_cannot_be_met_changes_nothing() -> None:
    by_layer = {"a": layer_options([0.5, 0.6])}
    goal = Goal(max_drop=0.01)
    assert not goal.choose(by_layer, {"params": 2, "macs": 20}, lambda choice: 0.5 if choice else 0.9)


def test_without_a_number_a_hundredth_may_be_lost() -> None:
    by_layer = {"a": layer_options([0.01 * k for k in range(1, 101)])}
    chosen = Goal().choose(by_layer, {"params": 100, "macs": 1000}, lambda c: 0.9 - (c["a"].error if c else 0.0))
    assert chosen["a"].error == pytest.approx(0.01)
