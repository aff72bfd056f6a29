"""He et al.: Deep Residual Learning for Image Recognition. arXiv:1512.03385, equation 1: a branch beside a shortcut.

Such blocks are found in any network by running it once, and can be left without their branches.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from distill.models.tracing import Op, Trace, trace

PROPORTIONAL = {"relu", "dropout", "avg_pool2d", "max_pool2d", "mul"}
"""Functions of half of their input are half of their output; others may not follow what is scaled."""


class Residual(NamedTuple):
    """A sum of a branch and a shortcut."""

    path: str
    """Of the module that adds them."""
    branch: tuple[str, ...]
    """Paths of the modules that run in the branch and nowhere else, in order."""
    weights: str
    """The last of these with weights."""
    shape: tuple[int, ...]
    """Of the output of the branch's last module, without the batch."""
    spoiled: str | None
    """A function that follows the last weights and is not proportional; without one, zero weights leave zeros."""
    removable: bool
    """Whether the module that adds returns its input where the branch gives zeros."""


class _Side(NamedTuple):
    """One of the two values of a sum."""

    value: int
    modules: list[str]
    """Those that run for this side and nowhere else, in order of their last call."""
    weighted: list[str]
    """Those of them with weights."""


def residual_blocks(model: nn.Module, image: Tensor) -> list[Residual]:
    """Every sum in a network of a branch and a shortcut with fewer layers or none, in the order computed.

    Args:
        model: in evaluation mode.
        image: a batch of one.
    """
    traced = trace(model, image)
    makers = {value: number for number, op in enumerate(traced.ops) for value in op.outputs}
    readers, times = traced.readers(), traced.times
    shapes = {call.path: tuple(traced.shapes[call.output][1:]) for call in traced.calls}
    found = []
    for op in traced.ops:
        if op.name in ("add", "iadd") and len(set(op.inputs)) == 2:
            first, second = (_ancestors(traced, makers, value) for value in op.inputs)
            own = (first - second, second - first)
            sides = [_side(model, traced, op, *side) for side in zip(op.inputs, own, strict=True)]
            shortcut, branch = sorted(sides, key=lambda side: len(side.weighted))
            if len(shortcut.weighted) < len(branch.weighted):
                weights = branch.weighted[-1]
                spoiled = _unproportional(traced, first ^ second, weights)
                passes = times[op.module] == 1 and _returns_input(traced, makers, readers, op, shortcut.value)
                shape = shapes.get(branch.modules[-1], ())
                found.append(
                    Residual(op.module, tuple(branch.modules), weights, shape, spoiled, passes and not spoiled)
                )
    return found


@contextmanager
def without(model: nn.Module, blocks: Sequence[Residual]) -> Iterator[None]:
    """Nothing in the branches of these blocks is computed; zeros come out of them."""
    for block in blocks:
        *inner, last = map(model.get_submodule, block.branch)
        for module in inner:
            module.forward = _nothing
        last.forward = partial(_nothing, shape=block.shape)
    try:
        yield
    finally:
        for block in blocks:
            for path in block.branch:
                vars(model.get_submodule(path)).pop("forward", None)


def _nothing(x: Tensor, *_: object, shape: tuple[int, ...] | None = None) -> Tensor:
    """Zeros for every sample: one per sample where no module reads them, or of ``shape``."""
    return x.new_zeros(len(x), *(shape or [1] * (x.dim() - 1)))


def _ancestors(traced: Trace, makers: Mapping[int, int], value: int) -> set[int]:
    """Which calls a value depends on, by their number."""
    waiting, found = [value], set()
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in found:
            found.add(number)
            waiting.extend(traced.ops[number].inputs)
    return found


def _side(model: nn.Module, traced: Trace, total: Op, value: int, numbers: set[int]) -> _Side:
    """The side of a sum that these calls lead to."""
    elsewhere = {op.module for number, op in enumerate(traced.ops) if number not in numbers} | {total.module}
    last = {traced.ops[number].module: number for number in sorted(numbers)}
    own = [module for module in sorted(last, key=last.__getitem__) if module not in elsewhere]
    weighted = [at for at in own if isinstance(getattr(model.get_submodule(at), "weight", None), nn.Parameter)]
    return _Side(value, own, weighted)


def _unproportional(traced: Trace, numbers: set[int], weights: str) -> str | None:
    """The first function among these calls that is not proportional to the output of the layer ``weights``."""
    scaled: set[int] = set()
    for op in (traced.ops[number] for number in sorted(numbers)):
        if scaled & set(op.inputs) and op.name not in PROPORTIONAL:
            return op.name
        if op.module == weights or scaled & set(op.inputs):
            scaled |= set(op.outputs)
    return None


def _returns_input(
    traced: Trace, makers: Mapping[int, int], readers: Mapping[int, list[Op]], total: Op, shortcut: int
) -> bool:
    """Whether the module that adds reads the shortcut's value and returns it, up to ReLUs that change nothing."""
    (call,) = (call for call in traced.calls if call.path == total.module)
    value = total.outputs[0]
    while value != call.output:
        following = readers.get(value, [])
        if [op.name for op in following] != ["relu"]:
            return False
        value = following[0].outputs[0]
    clipped = value != total.outputs[0]
    positive = shortcut in makers and traced.ops[makers[shortcut]].name == "relu"
    return bool(total.module) and call.input == shortcut and (positive or not clipped)
