"""What all factorisations share: which layers, how errors are felt, which ranks, and the surgery at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from distill.artifact import Artifact, Plan
from distill.batch import Batch
from distill.compress._layers import Change, Layer, explain, factorable, layer_at
from distill.compress.low_rank import _layer_timing
from distill.compress.low_rank._allocation import Aim, Allocation, Goal, LayerOptions, Option
from distill.compress.low_rank._error_weighting import ErrorWeights, TracedLayer, Weighting, error_weights, trace_layers
from distill.errors import RecipeError
from distill.models import cost
from distill.models.surgery import deployable, exchange

Judge = Callable[[nn.Module], float]
Build = Callable[[Layer, Mapping[str, Any]], nn.Module]
"""What takes a layer's place, built as one entry of a plan says, without its values."""
TIMED = 12
"""Options of a layer that are timed."""


@runtime_checkable
class Factors(Protocol):
    """All factorisations of one kind that one layer may become."""

    @property
    def importance(self) -> float:
        """What losing the whole weight would cost, as it is felt."""

    def options(self, aim: Aim) -> Sequence[Option]:
        """Each with its ranks (``spec["ranks"]``), cost and error; those that serve the aim."""

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        """Give what was built for that option its values, all but the bias."""


Ways = Callable[[TracedLayer, ErrorWeights], Factors | str]
"""All factorisations that a layer may become, or why it may not."""


def factorisation(name: str, ways: Ways, build: Build) -> Callable[..., Artifact]:
    """The hook of a factorisation that has no settings of its own.

    Args:
        name: of the hook and of its structural change.
        ways: all factorisations that a layer may become; its docstring and its file are the hook's.
        build: makes the factors of one layer.
    """

    def factorised(
        artifact: Artifact,
        evaluate: Judge,
        calibration: Sequence[Batch],
        *,
        max_error: float | None = None,
        max_params: float | None = None,
        max_macs: float | None = None,
        max_drop: float | None = None,
        aim: Aim = "size",
        weighting: Weighting = "outputs",
        layers: list[str] | None = None,
    ) -> Artifact:
        goal = Goal(max_error, max_params, max_macs, max_drop, aim)
        return factorise(name, artifact, evaluate, calibration, goal, weighting, layers, ways, build)

    factorised.__name__, factorised.__module__, factorised.__doc__ = name, ways.__module__, ways.__doc__
    return factorised


def rebuilding(build: Build) -> Callable[[nn.Module, Mapping[str, Mapping[str, Any]]], nn.Module]:
    """The structural change of a factorisation: factors in place of the layers that a plan names."""
    return lambda model, layers: rebuild(model, layers, build)


def factorise(
    name: str,
    artifact: Artifact,
    evaluate: Judge,
    calibration: Sequence[Batch],
    goal: Goal,
    weighting: Weighting,
    layers: list[str] | None,
    ways: Ways,
    build: Build,
) -> Artifact:
    """The artifact with factors in place of those layers that they make smaller, or faster.

    Args:
        name: of the hook, for messages and for the plan.
        artifact: what to compress.
        evaluate: the task's monitor on the validation split, higher is better.
        calibration: a few batches.
        goal: what decides ranks.
        weighting: which errors count.
        layers: globs of module paths; without any, every layer.
        ways: what may become of a layer.
        build: makes it.

    Raises:
        RecipeError: a budget that cannot be met, a glob that matches nothing, or the artifact is encoded.
        TrainingError: a weight holds values that are not finite.
    """
    fit, unchanged = factorable(artifact, name, layers)
    if not calibration:
        raise RecipeError(f"{name} looks at images to choose ranks, but the data set has none to look at")
    images = calibration[0].inputs
    where = trace_layers(artifact.model, fit, images)
    feeling = error_weights(
        artifact.model, {path: traced.layer for path, traced in where.items()}, calibration, weighting
    )
    possible = {path: ways(traced, feeling[path]) for path, traced in where.items()}
    made = {path: some for path, some in possible.items() if not isinstance(some, str)}
    by_layer = {path: layer_options(where[path], some, weighting, goal, build) for path, some in made.items()}
    total = {"params": cost.params(artifact.model), "macs": cost.macs(deployable(artifact.model), images)}
    choice = goal.choose(
        {path: layer_options for path, layer_options in by_layer.items() if layer_options.options},
        total,
        lambda choice: evaluate(_carried_out(name, artifact, choice, made, build).model),
    )
    unchanged |= dict.fromkeys(fit.keys() - where.keys(), "not used, or at several sizes")
    unchanged |= {path: why for path, why in possible.items() if isinstance(why, str)}
    better = "would get no smaller" if goal.aim == "size" else "would get no faster"
    unchanged |= dict.fromkeys(made.keys() - choice.keys(), better)
    changed = {path: _change(where[path], option) for path, option in choice.items()}
    explain(name, changed, {path: unchanged[path] for path, _ in artifact.model.named_modules() if path in unchanged})
    return _carried_out(name, artifact, choice, made, build)


def _carried_out(
    name: str, artifact: Artifact, choice: Allocation, factors: Mapping[str, Factors], build: Build
) -> Artifact:
    """The artifact with the chosen options in place of layers."""
    if not choice:
        return artifact
    plan = {path: dict(option.spec) for path, option in choice.items()}
    model = rebuild(artifact.copy_model(), plan, build)
    for path, spec in plan.items():
        _fill(model.get_submodule(path), layer_at(artifact.model, path), factors[path], spec)
    return artifact.with_model(model, Plan(name, plan))


def rebuild(model: nn.Module, plan: Mapping[str, Mapping[str, Any]], build: Build) -> nn.Module:
    """Surgery: put in place of layers what a plan says."""
    for path, spec in plan.items():
        exchange(model, path, build(layer_at(model, path), spec))
    return model


def layer_options(
    traced: TracedLayer, factors: Factors, weighting: Weighting, goal: Goal, build: Build
) -> LayerOptions:
    """What may become of a layer: options that are smaller or, where speed is the aim, faster."""
    dense = Option({}, traced.layer.weight.numel(), traced.macs, 0.0)
    options = factors.options(goal.aim)
    # Errors of a layer's weight or of its output say how much of it is lost; only the network's output is one for all.
    importance = factors.importance if weighting == "outputs" else 1.0
    if goal.aim == "size":
        return LayerOptions(dense, tuple(o for o in options if o.params < dense.params), importance)
    eights = [option for option in options if not any(n % 8 for n in option.widths or option.spec["ranks"])]
    options = eights or options
    options = options[:: -(-len(options) // TIMED)] if options else options
    before = _layer_timing.seconds(traced.layer, traced.inputs)
    timed = []
    for option in options if before else ():
        after = _layer_timing.seconds(deployable(build(traced.layer, option.spec)), traced.inputs)
        if before and after and all(a < b for a, b in zip(after, before, strict=True)):
            timed.append(replace(option, seconds=sum(after)))
    return LayerOptions(replace(dense, seconds=sum(before or ())), tuple(timed), importance)


@torch.no_grad()
def _fill(module: nn.Module, layer: Layer, factors: Factors, spec: Mapping[str, Any]) -> None:
    factors.fill(module, spec)
    if layer.bias is not None and isinstance(module, nn.Sequential):
        last = module[-1]
        assert isinstance(last.bias, nn.Parameter)
        last.bias.copy_(layer.bias)


def _change(traced: TracedLayer, option: Option) -> Change:
    return Change(tuple(option.spec["ranks"]), traced.layer.weight.numel(), option.params, option.error**0.5)
