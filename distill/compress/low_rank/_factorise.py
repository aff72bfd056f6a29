"""What all factorisations share: which layers, how errors are weighted, which ranks, and the surgery at the end."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from distill.artifact import Artifact, Plan
from distill.batch import Batch
from distill.compress import _layer_timing
from distill.compress._layers import Change, Layer, explain, factorable, layer_at
from distill.compress.low_rank._allocation import Aim, Allocation, Goal, LayerOptions, Option
from distill.compress.low_rank._error_weighting import TracedLayer, Weighting, error_weights, trace_layers
from distill.errors import RecipeError
from distill.models import cost
from distill.models.surgery import deployable, exchange
from distill.registry.ranges import NonNegative, Positive, Share

Evaluate = Callable[[nn.Module], float]
"""The task's monitor of a network on the validation split, higher is better."""
Build = Callable[[Layer, Mapping[str, Any]], nn.Module]
"""What takes a layer's place, built as one entry of a plan says, without its values."""
TIMED = 12
"""Options of a layer that are timed."""


@runtime_checkable
class Factors(Protocol):
    """All factorisations of one kind that one layer may become."""

    @property
    def importance(self) -> float:
        """The weighted squared norm of the weight: what losing all of it would cost."""

    def options(self, aim: Aim) -> Sequence[Option]:
        """Each with its ranks (``spec["ranks"]``), cost and error; those that serve the aim."""

    def fill(self, module: nn.Module, spec: Mapping[str, Any]) -> None:
        """Give what was built for that option its values, all but the bias."""


FactorsOf = Callable[..., Factors | str]
"""``(traced, error_weights, *, own settings)`` -> all factorisations that a layer may become, or why it may not."""


def factorisation(build: Build) -> Callable[[FactorsOf], Callable[..., Artifact]]:
    """Decorator: makes a hook of a function that finds the factorisations of one layer.

    The hook has the function's name and docstring, the function's own keyword-only settings, and these:

    - ``max_error``: largest relative error of each layer, above 0 and below 1.
    - ``max_params``: the network's parameters afterwards: a part of those before up to 1, or their number.
    - ``max_macs``: the same for its multiply-accumulates.
    - ``max_drop``: largest loss of the task's monitor, before any fine-tuning, in the monitor's own unit (0.01 is one
      percentage point of accuracy); 0.01 if no other of the four is given.
    - ``aim``: ``speed`` changes only layers that ONNX Runtime then runs faster on one thread and on two, timed here.
    - ``weighting``: which errors count: of the weight (``none``), of the layer's output on calibration images
      (``inputs``), or of the network's output (``outputs``), which alone compares the errors of different layers.
    - ``layers``: globs of module paths; without any, every layer.

    Args:
        build: makes the factors of one layer.
    """

    def decorate(factors: FactorsOf) -> Callable[..., Artifact]:
        def compress(
            artifact: Artifact,
            evaluate: Evaluate,
            calibration: Sequence[Batch],
            *,
            max_error: Share | None = None,
            max_params: Positive | None = None,
            max_macs: Positive | None = None,
            max_drop: NonNegative | None = None,
            aim: Aim = "size",
            weighting: Weighting = "outputs",
            layers: list[str] | None = None,
            **own: Any,
        ) -> Artifact:
            goal = Goal(max_error, max_params, max_macs, max_drop, aim)
            kind = Factorisation(factors.__name__, partial(factors, **own), build)
            return kind.compress(artifact, evaluate, calibration, goal, weighting, layers)

        return _presented_as(factors, compress)

    return decorate


def _presented_as(factors: FactorsOf, hook: Any) -> Callable[..., Artifact]:
    """The hook with the name and docstring of ``factors``, and its keyword-only parameters in place of ``**own``."""
    shared = inspect.signature(hook)
    own = [p for p in inspect.signature(factors).parameters.values() if p.kind is p.KEYWORD_ONLY]
    parameters = [p for p in shared.parameters.values() if p.kind is not p.VAR_KEYWORD]
    update_wrapper(hook, factors, ("__module__", "__name__", "__qualname__", "__doc__"), ())
    hook.__signature__ = shared.replace(parameters=[*parameters, *own])
    hook.__annotations__ |= {p.name: p.annotation for p in own}
    return hook


@dataclass(frozen=True)
class Factorisation:
    """One kind of factorisation, which puts factors in place of those layers that they make smaller, or faster."""

    name: str
    """Of the hook, for messages and for the plan."""
    factors: FactorsOf
    """What a layer may become, or why it may not."""
    build: Build
    """Makes it."""

    def compress(
        self,
        artifact: Artifact,
        evaluate: Evaluate,
        calibration: Sequence[Batch],
        goal: Goal,
        weighting: Weighting,
        layers: list[str] | None,
    ) -> Artifact:
        """The artifact with factors in place of layers.

        Args:
            artifact: what to compress.
            evaluate: the task's monitor on the validation split, higher is better; called only for ``max_drop``.
            calibration: a few batches.
            goal: what decides ranks.
            weighting: which errors count.
            layers: globs of module paths; without any, every layer.

        Raises:
            RecipeError: a budget that cannot be met, a glob that matches nothing, or the artifact is encoded.
            TrainingError: a weight has NaN or infinite values.
        """
        if not calibration:
            raise RecipeError(f"{self.name} chooses ranks by images, but there are no calibration images")
        images = calibration[0].inputs
        fit, unchanged = factorable(artifact, self.name, layers, images[:1])
        traced = trace_layers(artifact.model, fit, images)
        weights = error_weights(artifact.model, {p: t.layer for p, t in traced.items()}, calibration, weighting)
        found = {path: self.factors(one, weights[path]) for path, one in traced.items()}
        factors = {path: some for path, some in found.items() if not isinstance(some, str)}
        options = {
            p: layer_options(traced[p], f, weighting, goal, self.build).repeated(traced[p].uses)
            for p, f in factors.items()
        }
        allocation = goal.choose(
            {path: layer for path, layer in options.items() if layer.options},
            {"params": cost.params(artifact.model), "macs": cost.macs(deployable(artifact.model), images)},
            lambda allocation: evaluate(self._replaced(artifact, allocation, factors).model),
        )
        unchanged |= dict.fromkeys(fit.keys() - traced.keys(), "not used, or at several sizes")
        unchanged |= {path: why for path, why in found.items() if isinstance(why, str)}
        better = "would get no smaller" if goal.aim == "size" else "would get no faster"
        unchanged |= dict.fromkeys(factors.keys() - allocation.keys(), better)
        changed = {path: _change(traced[path], option) for path, option in allocation.items()}
        in_order = [path for path, _ in artifact.model.named_modules() if path in unchanged]
        explain(self.name, changed, {path: unchanged[path] for path in in_order})
        return self._replaced(artifact, allocation, factors)

    def _replaced(self, artifact: Artifact, allocation: Allocation, factors: Mapping[str, Factors]) -> Artifact:
        """The artifact with the chosen options in place of layers."""
        if not allocation:
            return artifact
        plan = {path: dict(option.spec) for path, option in allocation.items()}
        model = rebuild(artifact.copy_model(), plan, self.build)
        for path, spec in plan.items():
            _fill(model.get_submodule(path), layer_at(artifact.model, path), factors[path], spec)
        return artifact.with_model(model, Plan(self.name, plan))


def rebuild(model: nn.Module, plan: Mapping[str, Mapping[str, Any]], build: Build) -> nn.Module:
    """Surgery: build what a plan says in place of layers, without values."""
    for path, spec in plan.items():
        exchange(model, path, build(layer_at(model, path), spec))
    return model


def layer_options(
    traced: TracedLayer, factors: Factors, weighting: Weighting, goal: Goal, build: Build
) -> LayerOptions:
    """What may become of a layer, with costs of one run: options that are smaller or, for speed, faster."""
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
