"""The rules for hooks, checked where hooks are called, so that no hook has to.

Before: an entropy-coded artifact is refused, and so are weights with NaN or infinite values. After: the artifact given
is what it was; the result is an artifact of the same network, in eval mode, whose weights are finite and equal to what
its storage formats decode to. A file that did not get smaller is said, with what to do about it.
"""

import logging
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.artifact import Artifact
from distill.artifact.raw import to_raw
from distill.compress._layers import refuse_broken, refuse_encoded
from distill.errors import DistillError, RecipeError

log = logging.getLogger(__name__)


def call_hook(name: str, hook: Callable[[], Any], artifact: Artifact) -> Artifact:
    """The result of a hook that keeps the rules.

    Args:
        name: of the hook, for messages.
        hook: calls it on the artifact.
        artifact: what it is called on.

    Raises:
        RecipeError: the artifact is entropy-coded or runs on integers already, or the hook breaks a rule.
        TrainingError: a weight has NaN or infinite values, before or after.
    """
    refuse_encoded(artifact, name)
    _refuse_extra_state(name, artifact)
    _refuse_not_finite(name, artifact)
    before = _fingerprint(artifact)
    result = _result(name, hook, artifact)
    if not isinstance(result, Artifact):
        raise RecipeError(f"hook '{name}' returned a {type(result).__name__}: a hook returns an Artifact")
    if _fingerprint(artifact) != before:
        raise RecipeError(f"hook '{name}' changed the artifact that it was given: it has to change `copy_model()`")
    if result.network != artifact.network or result.plans[: len(artifact.plans)] != artifact.plans:
        raise RecipeError(
            f"hook '{name}' lost how the network is built: it has to use `with_model`, `store` or `replace`"
        )
    if result.model.training:
        raise RecipeError(f"hook '{name}' returned a network in training mode: call `eval()`")
    _refuse_not_finite(name, result)
    _check_stored(name, result)
    _say_size(name, artifact, result)
    return result


def _result(name: str, hook: Callable[[], Any], artifact: Artifact) -> Any:
    """Of the hook; one that fails where a network is unusual says at what."""
    try:
        return hook()
    except DistillError:
        raise
    except Exception as error:
        for parameter, values in artifact.model.named_parameters():
            kind = str(values.dtype).removeprefix("torch.") if values.numel() else "empty"
            if kind != "float32":
                remedy = "take its layer out of the network" if kind == "empty" else "convert the network to float32"
                why = str(error).partition("\n")[0]
                raise RecipeError(f"hook '{name}' fails where '{parameter}' is {kind} ({why}): {remedy}") from error
        raise


def _refuse_extra_state(name: str, artifact: Artifact) -> None:
    for key, value in artifact.model.state_dict().items():
        if not isinstance(value, Tensor):
            raise RecipeError(f"{name}: no file can hold '{key}', a {type(value).__name__}: make a buffer of it")


def _refuse_not_finite(name: str, artifact: Artifact) -> None:
    for parameter, values in artifact.model.named_parameters():
        refuse_broken(name, parameter, values.detach())


def _fingerprint(artifact: Artifact) -> object:
    """Changes when a tensor, a module or a storage format does."""
    model = artifact.model
    sums = {name: zlib.crc32(to_raw(tensor).data) for name, tensor in model.state_dict().items()}
    forms = {name: id(form) for name, form in artifact.stored.items()}
    return sums, [(path, id(module), module.training) for path, module in model.named_modules()], forms, artifact.plans


def _check_stored(name: str, artifact: Artifact) -> None:
    parameters = dict(artifact.model.named_parameters())
    for key, form in artifact.stored.items():
        if key not in parameters:
            raise RecipeError(f"hook '{name}' stores '{key}', but the network has no parameter of that name")
        values = parameters[key].detach().cpu()
        if not torch.equal(form.decode().to(values.dtype), values):
            raise RecipeError(f"hook '{name}' stores '{key}' in a form that decodes to other values: use `store`")


def _say_size(name: str, before: Artifact, after: Artifact) -> None:
    old, new = before.nbytes(), after.nbytes()
    if after is before:
        log.warning("%s: nothing to do for this network", name)
    elif new >= old:
        log.warning(
            "%s: the file is not smaller, %d -> %d bytes: leave it out, unless it is for speed or for a later hook",
            *(name, old, new),
        )
