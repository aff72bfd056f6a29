"""Auxiliary heads: modules that only training needs, because the main output does not depend on them.

Found for any network without a list of names: in evaluation mode, no gradient of the main output reaches them.
"""

import copy
import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.models.adapter import OutputAdapter, adapter_of

log = logging.getLogger(__name__)

Removed = Mapping[str, str]
"""Module path -> what is there instead: "none", or "identity" where the network's code calls the module anyway."""


def auxiliary_weights(model: nn.Module) -> dict[str, float]:
    """Weight of the loss of every auxiliary output, by its name.

    Names are those of the adapter, and the module paths of a network that names its own,
    ``auxiliary = {"head2": 0.3}``.
    """
    own: Mapping[str, float] = getattr(model, "auxiliary", {})
    return {**{name: extra.weight for name, extra in adapter_of(model).auxiliary.items()}, **own}


def auxiliary_paths(model: nn.Module) -> tuple[str, ...]:
    """Module paths of the auxiliary outputs that a network names itself."""
    return tuple(getattr(model, "auxiliary", ()))


@torch.no_grad()
def heads_fit(model: nn.Module, images: Tensor) -> bool:
    """False where a network runs on images of this size, but not in training mode, with its auxiliary heads.

    Args:
        model: in evaluation mode; a copy of it runs in training mode.
        images: at least two.
    """
    if not auxiliary_weights(model):
        return True
    return runs_in_training(model, images) or not _runs(model, images)


@torch.no_grad()
def runs_in_training(model: nn.Module, images: Tensor) -> bool:
    """Whether a copy of the network runs in training mode, with its auxiliary heads; random numbers are left alone."""
    device = images.device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        return _runs(copy.deepcopy(model).train(), images)


def remove_heads(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Remove the modules that the main output does not depend on, in place, and the auxiliary outputs with them.

    Args:
        model: in evaluation mode.
        images: (batch, channels, height, width), on which the output is compared before and after.

    Returns:
        What `without_heads` needs to repeat it.
    """
    if not auxiliary_weights(model):
        return {}
    with torch.no_grad():
        expected = model(images)
    removed: dict[str, str] = {}
    for path in _unused(model, images):
        replacement = next((kind for kind in ("none", "identity") if _same(model, path, kind, images, expected)), None)
        if replacement is None:
            log.warning("auxiliary head '%s' stays: the network does not run without it", path)
        else:
            removed[path] = replacement
    without_heads(model, removed)
    return removed


def without_heads(model: nn.Module, removed: Removed) -> nn.Module:
    """Repeat what `remove_heads` did, in place."""
    for path, kind in removed.items():
        _replace(model, path, kind)
    for key, hook in model._forward_hooks.items():
        if isinstance(hook, OutputAdapter):
            model._forward_hooks[key] = OutputAdapter(hook.output)
    if auxiliary_paths(model):
        model.auxiliary = {}  # type: ignore[assignment]
    return model


def _runs(model: nn.Module, images: Tensor) -> bool:
    try:
        model(images)
    except (RuntimeError, ValueError):  # batch norm raises the latter for maps of one pixel
        return False
    return True


def _unused(model: nn.Module, images: Tensor) -> list[str]:
    """Paths of the outermost modules with parameters none of which the main output depends on."""
    parameters = list(model.parameters())
    wanted = [parameter.requires_grad for parameter in parameters]
    with torch.enable_grad():
        output = model.requires_grad_(True)(images)
        gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    for parameter, flag in zip(parameters, wanted, strict=True):
        parameter.requires_grad_(flag)
    used = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    found: list[str] = []
    for path, module in model.named_modules():
        own = list(module.parameters())
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if own and not inside and not any(id(parameter) in used for parameter in own):
            found.append(path)
    return found


@torch.no_grad()
def _same(model: nn.Module, path: str, kind: str, images: Tensor, expected: Tensor) -> bool:
    """Whether the network gives the same output with the module replaced; the module is put back."""
    module = model.get_submodule(path)
    _replace(model, path, kind)
    try:
        return torch.equal(model(images), expected)
    except (TypeError, AttributeError, RuntimeError):
        return False
    finally:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)


def _replace(model: nn.Module, path: str, kind: str) -> None:
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, None if kind == "none" else nn.Identity().train(owner.training))
