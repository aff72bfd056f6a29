"""Networks from recipe entries: ours, torchvision's, or a user's own."""

import inspect
import logging
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from distill.errors import ArtifactError, RecipeError
from distill.models.input_transform import INPUT_TRANSFORM, InputTransform
from distill.recipe.schema import Network
from distill.registry import options
from students import student

log = logging.getLogger(__name__)


def network_entry(spec: Network, inferred: Mapping[str, Any]) -> dict[str, Any]:
    """All that rebuilds a network: its name and every setting.

    Args:
        spec: the recipe entry.
        inferred: arguments that follow from data and task; they fill in what the network accepts and the entry leaves
            open.
    """
    component = student.find(spec.name)
    if spec.name in student.names():
        settings = options(component, spec)
    else:
        settings = dict(spec.arguments)
        settings |= {key: None for key in inferred if key not in settings and _accepts(component, key)}
    for key, value in inferred.items():
        if key in settings and settings[key] is None:
            settings[key] = value
    return {"name": spec.name, **settings}


def build_network(entry: Mapping[str, Any], allow: Collection[str] = ()) -> nn.Module:
    """The network of an entry, with fresh weights.

    Raises:
        ArtifactError: the entry names code outside ``students`` whose module is not in ``allow``.
        RecipeError: the network refuses its settings.
    """
    name, settings = entry["name"], {key: value for key, value in entry.items() if key not in ("name", INPUT_TRANSFORM)}
    module = name.partition(":")[0]
    if ":" in name and module not in allow:
        raise ArtifactError(
            f"network '{name}' is code from outside; if you trust it, pass allow=['{module}'] or --allow {module}"
        )
    try:
        model = student.find(name)(**settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"network '{name}' cannot be built: {error}") from error
    if entry.get(INPUT_TRANSFORM):
        model.register_forward_pre_hook(InputTransform(**entry[INPUT_TRANSFORM]))
    return model


def _accepts(component: Any, key: str) -> bool:
    parameters = inspect.signature(component).parameters.values()
    # Builders of torchvision pass any other argument on to a class, which knows this one.
    return any(p.name == key or (p.kind is p.VAR_KEYWORD and key == "num_classes") for p in parameters)
