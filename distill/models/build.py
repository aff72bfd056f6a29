"""Networks from recipe entries: from ``students``, from torchvision, or code of the user."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.errors import ArtifactError, RecipeError
from distill.models.adapter import adapt
from distill.models.auxiliary import without_heads
from distill.models.input_transform import INPUT_TRANSFORM, InputTransform
from distill.recipe.schema import Network
from distill.registry import imported, options
from students import student

OUTPUT, AUXILIARY = "output", "auxiliary"
"""Where an entry keeps what `adapt` needs."""
REMOVED_HEADS = "removed_heads"
"""Where an entry keeps which auxiliary heads are removed, for `without_heads`."""

OWN_KEYS = ("name", INPUT_TRANSFORM, OUTPUT, AUXILIARY, REMOVED_HEADS)

INCEPTIONS = ("googlenet", "inception_v3")
"""Networks of torchvision whose present default initialisation takes seconds, and whose weights were trained on images
from -1 to 1 in place of ImageNet's mean and standard deviation."""


def network_entry(spec: Network, inferred: Mapping[str, Any]) -> dict[str, Any]:
    """All that rebuilds a network: its name and every setting.

    Args:
        spec: the recipe entry.
        inferred: arguments that follow from data and task; they fill in what the network accepts and the entry leaves
            open.
    """
    component = student.find(spec.name)
    if spec.name in student.names():
        # One that neither the recipe nor the task decides, as anchors in classification, has the network's own value.
        settings = {key: v for key, v in options(component, spec).items() if v is not None or key in inferred}
    else:
        settings = dict(spec.arguments)
        settings |= {key: None for key in inferred if key not in settings and _accepts(component, key)}
        if ":" not in spec.name:
            settings = _torchvision_settings(component, spec) | settings
    for key, value in inferred.items():
        if key in settings and settings[key] is None:
            settings[key] = value
    adapted = {OUTPUT: spec.output, AUXILIARY: dict(spec.auxiliary)}
    return {"name": spec.name, **settings, **{key: value for key, value in adapted.items() if value}}


def build_network(entry: Mapping[str, Any], allow: Collection[str] = ()) -> nn.Module:
    """The network of an entry, with fresh weights; it maps one tensor to one tensor.

    Raises:
        ArtifactError: the entry names code outside ``students`` whose module is not in ``allow``.
        RecipeError: the network refuses its settings, or does not fit into this machine's memory.
    """
    name, settings = entry["name"], {key: value for key, value in entry.items() if key not in OWN_KEYS}
    module = name.partition(":")[0]
    if ":" in name and module not in allow:
        raise ArtifactError(
            f"network '{name}' is code from outside; if you trust it, pass allow=['{module}'] or --allow {module}"
        )
    try:
        if name in student.names():
            _refuse_oversized(student.find(name), settings)
        model = (imported if name in imported.names() else student).find(name)(**settings)
    except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        if isinstance(error, NotImplementedError) and torch.get_default_device().type == "meta":
            raise  # the builder computes with values of tensors, as RegNet does: memory is needed to build it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RecipeError(f"network '{name}' cannot be built: {reason}") from error
    if entry.get(INPUT_TRANSFORM):
        model.register_forward_pre_hook(InputTransform(**entry[INPUT_TRANSFORM]))
    if name in imported.names():
        return model
    if name not in student.names() or OUTPUT in entry or AUXILIARY in entry:
        adapt(model, entry.get(OUTPUT), entry.get(AUXILIARY))
    return without_heads(model, entry[REMOVED_HEADS]) if entry.get(REMOVED_HEADS) else model


def without_published_weights(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same network without weights that torchvision would fetch: what a file holds takes their place at once."""
    if entry["name"] not in student.foreign():
        return entry
    parameters = inspect.signature(student.find(entry["name"])).parameters
    return {**entry, **{key: None for key in ("weights", "weights_backbone") if key in parameters}}


def _refuse_oversized(builder: Callable[..., nn.Module], settings: Mapping[str, Any]) -> None:
    """Build on the meta device, where tensors take no memory, before any is asked for.

    Raises:
        ValueError: the parameters alone take more memory than this machine has.
    """
    if torch.get_default_device().type == "meta":
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            size = sum(parameter.nbytes for parameter in builder(**settings).parameters())
    except NotImplementedError:  # a builder that reads values
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(
            f"its parameters take {size / 2**30:,.0f} GiB, this machine has {memory / 2**30:,.0f}; "
            f"settings: {dict(settings)}"
        )


def _torchvision_settings(component: Any, spec: Network) -> dict[str, Any]:
    """What torchvision's networks need unless the recipe says otherwise."""
    settings: dict[str, Any] = {}
    if "weights_backbone" in inspect.signature(component).parameters:
        settings["weights_backbone"] = None  # the default is a download
    if spec.name in INCEPTIONS:
        settings["init_weights"] = False  # which torchvision announces as its future default
        settings["transform_input"] = bool(spec.weights) and not Path(spec.weights or "").suffix
    return settings


def _accepts(component: Any, key: str) -> bool:
    parameters = inspect.signature(component).parameters.values()
    # Builders of torchvision pass any other argument on to a class, which knows this one.
    return any(p.name == key or (p.kind is p.VAR_KEYWORD and key == "num_classes") for p in parameters)
