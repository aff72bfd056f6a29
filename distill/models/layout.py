"""Where a feature has its channels, found by running the network, and features brought to channels first.

Convolutional networks compute on (batch, channels, height, width). Swin and its kin compute on (batch, height, width,
channels), and vision transformers on tokens, (batch, tokens, channels). Losses read the first form.
"""

import logging
from collections.abc import Collection, Mapping
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.models.called import first_input
from distill.models.channels.narrow import Narrowable
from distill.models.channels.propagation import Propagation, varying
from distill.models.cost import evaluating

log = logging.getLogger(__name__)

Layout = Literal["channels_first", "channels_last", "tokens"]

LEADING = (0, 1, 2, 5)
"""How many tokens may stand before those of the patches: a class token, one for distillation, or four registers."""


def layouts(model: nn.Module, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Layout]:
    """The layout of each feature. Tokens are taken as they are: "tokens" is never found, only written in a recipe.

    Args:
        model: a network.
        images: a batch; the first image is run.
        features: what the network gives at each path.
    """
    known = {path for path, _ in model.named_modules()}
    maps = [path for path, feature in features.items() if feature.dim() == 4 and path in known]
    # Only where channels come last are 4-D features normalised or multiplied along the last axis.
    if not maps or not any(isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.Linear) for module in _inner(model)):
        return dict.fromkeys(features, "channels_first")
    axes = channel_axes(model, images[:1], maps)
    return {path: "channels_last" if axes.get(path) == 3 else "channels_first" for path in features}


@torch.no_grad()
def channel_axes(model: nn.Module, image: Tensor, paths: Collection[str]) -> dict[str, int]:
    """The axis of the channels in what the modules at ``paths`` return.

    A path is missing where no single axis is known: nothing in it was made by a convolution or a linear layer, or the
    network cannot run on zeros.
    """
    run, axes = Propagation({}), dict[str, int]()

    def note(path: str, output: Any) -> None:
        if isinstance(output, Tensor) and len(axis := varying(run.ids_of(output))) == 1:
            axes[path] = axis.pop()

    def normalised(inputs: Tensor, output: Tensor) -> None:
        run.ids[output] = run.ids_of(inputs)

    modules = dict(model.named_modules())
    layers = {path: module for path, module in modules.items() if isinstance(module, Narrowable)}
    hooks = [
        module.register_forward_hook(
            lambda _, arguments, named, output: normalised(first_input(arguments, named), output), with_kwargs=True
        )
        for module in modules.values()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm)
    ]
    hooks += [modules[path].register_forward_hook(lambda _, i, out, path=path: note(path, out)) for path in paths]
    try:
        with evaluating(model):
            run.on(model, image, layers)
    except Exception:  # whatever a network raises that cannot run on zeros
        log.debug("the channels of %s cannot be traced", type(model).__name__, exc_info=True)
    finally:
        for hook in hooks:
            hook.remove()
    return axes


def channels_first(features: Tensor, layout: Layout) -> Tensor:
    """(batch, channels, height, width), as a view; vectors, and tokens that are not to become a map, as they are.

    Raises:
        ValueError: tokens do not make a square map.
    """
    if layout == "channels_last" and features.dim() == 4:
        return features.permute(0, 3, 1, 2)
    if layout == "tokens" and features.dim() == 3:
        side = isqrt(features.shape[1])
        leading = features.shape[1] - side * side
        if leading not in LEADING:
            raise ValueError(f"{features.shape[1]} tokens make no square map: tap a module that returns maps")
        return features[:, leading:].transpose(1, 2).unflatten(2, (side, side))
    return features


def _inner(model: nn.Module) -> Collection[nn.Module]:
    """All modules but the last one with weights: classifiers of every network are linear layers."""
    return [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None][:-1]
