"""A network in plain layers, its batch norms folded into them, before anything is rounded.

Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference.
arXiv:1712.05877, section 3.2, equation 14.
"""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.compress._attention import PlainAttention, replaceable
from distill.compress._equalize import equalize, pairs
from distill.compress._layers import Layer, factorable, layer_at, refuse_stored
from distill.compress._places import LAYERS
from distill.compress._same_outputs import same_outputs
from distill.errors import RecipeError
from distill.models.read_elsewhere import read_elsewhere
from distill.models.surgery import exchange
from distill.models.tracing import Trace, trace

Spec = dict[str, dict[str, Any]]


class Plain(NamedTuple):
    """What is left to be rounded."""

    model: nn.Module
    plan: Spec
    """For `restructure`."""
    layers: list[str]
    """Paths of those that can run on integers."""
    unchanged: dict[str, str]
    """Why others cannot."""


def restructure(model: nn.Module, plan: Spec) -> nn.Module:
    """Put plain layers in place of factors and of attention's packed projections, give layers the bias of the ``norm``
    that goes, and make ReLU6 ReLU."""
    for path, spec in plan.items():
        module = model.get_submodule(path) if {"deploy", "attention"} & spec.keys() else None
        if spec.get("deploy"):
            exchange(model, path, module.deploy())  # type: ignore[operator, union-attr]
        elif isinstance(module, nn.MultiheadAttention):
            exchange(model, path, PlainAttention(module))
    for path, spec in plan.items():
        if "norm" in spec:
            layer = layer_at(model, path)
            if layer.bias is None:
                layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
            exchange(model, spec["norm"], nn.Identity())
        if spec.get("relu"):
            exchange(model, path, nn.ReLU())
    return model


@torch.no_grad()
def fold(artifact: Artifact, patterns: list[str] | None, images: list[Tensor], *, even_out: bool) -> Plain:
    """The network that computes the same with fewer parts.

    Args:
        artifact: stays as it is.
        patterns: globs of the layers' paths.
        images: what to run it on.
        even_out: also equalise the channels of neighbouring layers. A ReLU6 between them becomes a ReLU, as in Nagel et
            al. arXiv:1906.04721, section 5.1.1, but only where no image reaches 6.

    Raises:
        RecipeError: a glob matches nothing, the weight of a layer is codes already, a layer is ``unsettled``, or the
            network would compute something else.
        TrainingError: a weight holds values that are not finite.
    """
    plan: Spec = {}
    for path, module in artifact.model.named_modules():
        if unsettled := getattr(module, "unsettled", None):
            raise RecipeError(f"'{path}' {unsettled} before 'int8'")
        if path and callable(getattr(module, "deploy", None)) and not any(path.startswith(f"{p}.") for p in plan):
            plan[path] = {"deploy": True}
    attention, unchanged = replaceable(artifact.model, images[0][:1])
    for path in attention:
        refuse_stored("int8", artifact, [path])
        plan[path] = {"attention": True}
    model = restructure(artifact.copy_model(), plan)
    layers, others = factorable(replace(artifact, model=model), "int8", patterns, grouped=True, pruned=True)
    unchanged |= {path: why for path, why in others.items() if path.rpartition(".")[0] not in unchanged}
    for path in layers:
        _refuse_codes(path, artifact.stored.get(f"{path}.weight"))
    called = layers.keys() - read_elsewhere(model, images[0][:1], layers)  # others keep the weight that is read
    for path, spec in absorb_norms(model, norms_after(model, trace(model, images[0][:1]), called)).items():
        plan[path] = plan.get(path, {}) | spec
    if even_out:
        found = pairs(model, trace(model, images[0][:1]), called)
        cut = _cut(model, {path for pair in found for path in pair.clips}, images)
        found = [pair for pair in found if cut.isdisjoint(pair.clips)]
        plan |= (clips := {path: {"relu": True} for pair in found for path in pair.clips})
        equalize(restructure(model, clips), found)
    refuse_changed("int8", artifact.model, model, images[0])
    return Plain(model, plan, list(layers), unchanged)


def norms_after(model: nn.Module, flow: Trace, layers: Collection[str]) -> dict[str, str]:
    """Layer -> the batch norm of its channels that nothing but its output goes through, and its output nowhere else."""
    readers, times, norms = flow.readers(), flow.times, {}
    for op in flow.ops:
        following = readers.get(op.outputs[0], [])
        if op.name in LAYERS and op.module in layers and [reader.name for reader in following] == ["batch_norm"]:
            norm = following[0].module
            batch_norm = model.get_submodule(norm)
            # A subclass may do more, such as an activation; and axis 1 of tokens is not what a linear layer makes.
            plain = type(batch_norm) in (nn.BatchNorm1d, nn.BatchNorm2d) and batch_norm.running_mean is not None
            channels = len(flow.shapes[op.outputs[0]]) == (4 if op.name == "conv2d" else 2)
            if plain and channels and times[op.module] == times[norm] == 1:
                norms[op.module] = norm
    return norms


@torch.no_grad()
def absorb_norms(model: nn.Module, norms: Mapping[str, str]) -> Spec:
    """Make the batch norm after each layer a part of it, in place; the plan of that, for `restructure`."""
    plan: Spec = {path: {"norm": norm} for path, norm in norms.items()}
    gone = {path: model.get_submodule(norm) for path, norm in norms.items()}
    restructure(model, plan)
    for path, batch_norm in gone.items():
        assert isinstance(batch_norm, nn.BatchNorm1d | nn.BatchNorm2d)
        _absorb(layer_at(model, path), batch_norm)
    return plan


def refuse_changed(hook: str, before: nn.Module, after: nn.Module, images: Tensor) -> None:
    """No trace shows all that a network does with a weight: what was folded is compared.

    Raises:
        RecipeError: the networks compute different things.
    """
    if not same_outputs(before, after, images[:4]):
        raise RecipeError(
            f"{hook} cannot tell what {type(before).__name__} does with its layers: with batch norms folded into them "
            "it would compute something else; name layers that it may fold in 'layers'"
        )


def _cut(model: nn.Module, clips: Collection[str], images: list[Tensor]) -> set[str]:
    """Those of the ReLU6 modules that cut values off at 6."""
    reached: dict[str, float] = {}

    def look(path: str, module: nn.Module, values: tuple[Tensor], output: Tensor) -> None:
        reached[path] = max(reached.get(path, 0.0), float(output.max()))

    with ExitStack() as hooks:
        for path in clips:
            hooks.enter_context(model.get_submodule(path).register_forward_hook(partial(look, path)))
        for batch in images if clips else []:
            model(batch)
    return {path for path, value in reached.items() if value >= 6}


def _absorb(layer: Layer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Give the layer the values that make the batch norm after it superfluous."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert layer.bias is not None
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.sub_(norm.running_mean).mul_(factor)
    if norm.bias is not None:
        layer.bias.add_(norm.bias)


def _refuse_codes(path: str, form: Any) -> None:
    if hasattr(form, "codes"):
        raise RecipeError(
            f"int8 rounds weights itself, but those of '{path}' are codes already: take the hook that made them out "
            "of compress, or leave its layers out of int8.layers"
        )
    if hasattr(form, "inner"):
        _refuse_codes(path, form.inner)
