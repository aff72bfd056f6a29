"""A network's first weights: from a checkpoint file, or torchvision's or a package's by name."""

import json
import logging
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.errors import RecipeError
from distill.models.published import published
from distill.models.state import load_state

log = logging.getLogger(__name__)


RANDOM = "random"
"""Weights that are left as they were initialised."""
NAMED = 3
"""Tensors that a message names."""
AUXILIARY_HEADS = ("aux1", "aux2", "AuxLogits", "aux_classifier")
"""Modules of torchvision's networks that its weights always hold, and networks built without them do not."""


def load_weights(model: nn.Module, weights: str, *, name: str, new_classifier: bool = False) -> None:
    """Fill a network from a checkpoint file, or from the weights of that name: torchvision's, or those of a package.

    Args:
        model: the network to fill.
        weights: a ``.safetensors`` file, a ``.pt``/``.pth`` file of plain tensors, for example ``IMAGENET1K_V1``, or
            ``random``, which changes nothing.
        name: the network's name in the recipe.
        new_classifier: last layers of another size keep their fresh weights instead of being an error.

    Raises:
        RecipeError: the file cannot be read, holds no state dict or values that are not finite, or does not fit.
    """
    if weights == RANDOM:
        return
    state = _state(name, weights)
    own = model.state_dict()
    heads = [key for key in state if key not in own and key.partition(".")[0] in AUXILIARY_HEADS]
    if heads:
        log.info("%s: its weights have auxiliary heads that the network lacks; they are left out", name)
    for key in heads:
        del state[key]
    sizes = {k: (tuple(v.shape), tuple(own[k].shape)) for k, v in state.items() if k in own and v.shape != own[k].shape}
    if sizes and new_classifier and {key.rpartition(".")[0] for key in sizes} <= _classifiers(model):
        log.info("%s: the classifier starts anew (%s)", name, ", ".join(f"{a} -> {b}" for a, b in sizes.values()))
        state.update({key: own[key] for key in sizes})
    try:
        load_state(model, state)
    except (RuntimeError, ValueError) as error:
        lines = [_shortened(line.strip()) for line in str(error).splitlines()]
        raise RecipeError(f"weights '{weights}' do not fit network '{name}': {' '.join(lines[1:4] or lines)}") from None


def _shortened(line: str) -> str:
    """The first names of a long list, and how many there are."""
    names = line.split(", ")
    return line if len(names) <= NAMED + 1 else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more."


def _state(name: str, weights: str) -> dict[str, Tensor]:
    if Path(weights).suffix:
        return _file_state(Path(weights))
    package = published(name, weights)
    return _file_state(package.path()) if package else _torchvision_state(name, weights)


def _file_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RecipeError(f"no checkpoint file '{path}'")
    if not path.stat().st_size:
        raise RecipeError(f"cannot read checkpoint '{path}': the file is empty")
    try:
        compressed = path.suffix == ".safetensors" and _is_compressed(path)
        content: Any = load_file(path) if path.suffix == ".safetensors" else _plain_tensors(path)
    except pickle.UnpicklingError:  # its message runs over a page
        raise RecipeError(f"checkpoint '{path}' holds more than tensors, or is damaged") from None
    except Exception as error:  # what unpickling raises on a text or a damaged file has no bounds
        reason = (str(error) or repr(error)).splitlines()[0].partition(". ")[0]
        raise RecipeError(f"cannot read checkpoint '{path}', it is damaged or none: {reason}") from None
    if compressed:
        raise RecipeError(f"checkpoint '{path}' is a compressed artifact: give that of a step before the hooks")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return _checked(content, path)


def _is_compressed(path: Path) -> bool:
    """Whether a file is an artifact whose layers or tensors hooks have changed."""
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("distill", "{}"))
        names = file.keys()
    return bool(about.get("plans") or about.get("forms") or (about and "packed" in names))


def _plain_tensors(path: Path) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of pickle protocols, before a file turns out to be none
        return torch.load(path, map_location="cpu", weights_only=True)


def _checked(content: Any, path: Path) -> dict[str, Tensor]:
    """A file's content as a state dict, without the prefix of a wrapper around the whole network."""
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"checkpoint '{path}' holds a {type(content).__name__} in place of a state dict with tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise RecipeError(
                f"checkpoint '{path}' holds a {type(value).__name__} under {key!r}, where a state dict has tensors; "
                "save model.state_dict() alone, or under the key 'state_dict'"
            )
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise RecipeError(f"checkpoint '{path}' holds '{key}' in a form that no network here has: save it dense")
        if value.is_floating_point() and not value.isfinite().all():
            raise RecipeError(f"checkpoint '{path}' holds NaN or Inf in '{key}'")
    for prefix in ("_orig_mod.", "module."):  # of torch.compile and DistributedDataParallel
        if all(key.startswith(prefix) for key in content):
            versions = getattr(content, "_metadata", None)
            content = OrderedDict((key.removeprefix(prefix), value) for key, value in content.items())
            if versions is not None:
                versions = {f"{key}.".removeprefix(prefix).rstrip("."): version for key, version in versions.items()}
                setattr(content, "_metadata", versions)  # noqa: B010
    return content


def _torchvision_state(name: str, weights: str) -> dict[str, Tensor]:
    try:
        choices = torchvision.models.get_model_weights(name)
    except ValueError:
        raise RecipeError(f"'{weights}' is no file, and torchvision has no weights for network '{name}'") from None
    if weights != "DEFAULT" and weights not in choices.__members__:
        raise RecipeError(f"torchvision's '{name}' has no weights '{weights}', but: {', '.join(choices.__members__)}")
    try:
        return choices[weights].get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise RecipeError(f"cannot download '{weights}' of '{name}' ({error}); put weights=FILE instead") from None


def _classifiers(model: nn.Module) -> set[str]:
    """Paths of the last layer, and of others with as many outputs: those of auxiliary heads."""
    layers = {
        path: module.weight for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    classes = len(list(layers.values())[-1]) if layers else 0
    return {path for path, weight in layers.items() if len(weight) == classes}
