"""What a channel costs in the runtime that will run the network, which its multiply-accumulates do not tell: the layers
that make and read it are timed, with and without half of their channels."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from distill.compress import _layer_timing
from distill.models.called import first_input
from distill.models.channels.groups import Widths
from distill.models.channels.narrow import resized
from distill.models.channels.propagation import Channels
from distill.models.channels.sizes import Sizes

LEAST = 1e-12
"""Seconds, for channels whose removal saves none: they go last."""


def per_second(widths: Widths, sizes: Sizes) -> dict[int, float]:
    """The saliency of each channel for each second that its removal saves.

    Seconds are those of one image in ONNX Runtime on this machine, on one thread and on two, at batches of 1 and of 32,
    added up. A layer that is not timed counts as none.
    """
    shapes = _input_shapes(sizes)
    found: dict[int, float] = {}
    for number, family in enumerate(widths.families):
        levels = [len(family.levels) // 2 if position == number else 0 for position in range(len(widths.families))]
        levels, channels = widths.fit(levels)
        gone = family.size - sum(family.levels[levels[number]])
        saved = max(_saved(sizes, channels, shapes) / max(1, gone), LEAST)
        found |= {i: widths.scores[i] / saved for atom in family.atoms for i in atom}
    return found


def _saved(sizes: Sizes, channels: Channels, shapes: Mapping[str, torch.Size]) -> float:
    """Seconds that a network of these channels takes less than the whole one."""
    saved = 0.0
    for path, spec in sizes.plan(channels).items():
        layer, shape = sizes.model.get_submodule(path), shapes[path]
        before = _layer_timing.seconds(layer, tuple(shape))
        after = _layer_timing.seconds(resized(layer, **spec), _narrowed(layer, shape, spec["inputs"]))
        saved += sum(before) - sum(after) if before and after else 0.0
    return saved


def _narrowed(layer: nn.Module, shape: torch.Size, inputs: int) -> tuple[int, ...]:
    """The shape of an input of so many channels or, for a linear layer, features."""
    return (*shape[:-1], inputs) if isinstance(layer, nn.Linear) else (inputs, *shape[1:])


def _input_shapes(sizes: Sizes) -> dict[str, torch.Size]:
    """The shape of what each layer reads, without the batch."""
    shapes: dict[str, torch.Size] = {}
    with ExitStack() as hooks, torch.no_grad():
        for path in sizes.paths:
            module = sizes.model.get_submodule(path)
            hooks.enter_context(module.register_forward_pre_hook(partial(_note, shapes, path), with_kwargs=True))
        sizes.model(sizes.image)
    return shapes


def _note(
    shapes: dict[str, torch.Size], path: str, _: nn.Module, arguments: tuple[Tensor, ...], named: Mapping[str, Tensor]
) -> None:
    shapes[path] = first_input(arguments, named).shape[1:]
