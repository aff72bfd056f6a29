"""Read feature maps out of a network without changing its code."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import TapError
from distill.models.adapter import OutputAdapter, adapter_of
from distill.models.auxiliary import auxiliary_paths
from distill.registry import did_you_mean

Features = dict[str, Tensor]
Captured = dict[str, tuple[Tensor, int]]
"""A map, and how often it had been written to when its module returned it."""


class Taps(nn.Module):
    """Runs ``model`` and also returns the outputs of the submodules at ``paths``.

    >>> tapped = Taps(resnet, ["layer2", "layer3"])
    >>> logits, features = tapped(images)      # features["layer2"]: (batch, 128, 8, 8)

    The empty path ``""`` is the model's own output. In training mode the features also hold the model's auxiliary
    outputs, by the names of their losses. Hooks live only as long as one forward pass, so a tapped model stays an
    ordinary model: nothing to detach, copy or forget.

    Raises:
        TapError: a path that the model does not have, a module that does not return one tensor, or a map that a
            later in-place layer overwrites.
    """

    def __init__(self, model: nn.Module, paths: Collection[str]) -> None:
        super().__init__()
        self.model = model
        self.paths = tuple(paths)
        self._observe = observe
        known = dict(model.named_modules())
        for path in self.paths:
            if path not in known:
                raise TapError(f"{type(model).__name__} has no module {did_you_mean(path, _outline(known))}")

    def compile(self, *arguments: Any, **settings: Any) -> None:
        """From now on runs as compiled code, with ``torch.compile``'s arguments; ``model`` called alone does not.

        Run once uncompiled before: compiled code no longer notices a map that is overwritten.
        """
        self._observe = torch.compile(observe, *arguments, **settings)

    def forward(self, inputs: Tensor) -> tuple[Any, Features]:
        captured: Captured = {}
        paths = self.paths
        if self.model.training:
            paths = tuple(dict.fromkeys((*paths, *auxiliary_paths(self.model))))
        with ExitStack() as hooks:
            for path in paths:
                hooks.enter_context(self.model.get_submodule(path).register_forward_hook(_keep(captured, path)))
            adapter = adapter_of(self.model)
            if self.model.training and adapter.auxiliary:  # before the adapter's own hook drops them
                keep = _keep_auxiliary(captured, adapter)
                hooks.enter_context(self.model.register_forward_hook(keep, prepend=True))
            return self._observe(self.model, captured, paths, inputs)


def observe(model: nn.Module, captured: Captured, paths: tuple[str, ...], inputs: Tensor) -> tuple[Any, Features]:
    """The model's output, and what the hooks that fill ``captured`` saw meanwhile.

    A plain function of all that it depends on, because compiled code is used again for equal arguments: it would not
    notice other hooks, but does notice other paths.
    """
    output = model(inputs)
    if not torch.compiler.is_compiling():
        _check(captured, paths)
    return output, {path: captured[path][0] for path in dict.fromkeys((*paths, *captured))}


def stages(model: nn.Module) -> list[str]:
    """The stages that a network names, early to late.

    Raises:
        TapError: the network names none.
    """
    paths = getattr(model, "stages", None)
    if not paths:
        raise TapError(f"{type(model).__name__} names no stages: write student: [...] and teacher: [...] instead")
    return list(paths)


def _keep(captured: Captured, path: str) -> Callable[..., None]:
    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TapError(
                f"'{path}' ({type(module).__name__}) returns a {type(output).__name__}; "
                "tap a module that returns one tensor"
            )
        captured[path] = output, _version(output)

    return hook


def _keep_auxiliary(captured: Captured, adapter: OutputAdapter) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        for name, tensor in adapter.auxiliary_outputs(output).items():
            captured[name] = tensor, _version(tensor)

    return hook


def _check(captured: Captured, paths: Collection[str]) -> None:
    if missing := [path for path in paths if path not in captured]:
        raise TapError(f"module '{missing[0]}' is never called on its own, so it has no output to tap")
    for path, (feature, version) in captured.items():
        if _version(feature) != version:
            raise TapError(f"the output of '{path}' is overwritten by a later in-place layer; tap one that is not")


def _version(tensor: Tensor) -> int:
    """Counts in-place writes; compiled code and tensors made under ``torch.inference_mode`` do not keep count."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def _outline(paths: Collection[str]) -> list[str]:
    """Module paths down to the second level: enough to find one's way, short enough to read."""
    return [path for path in paths if path and path.count(".") < 2]
