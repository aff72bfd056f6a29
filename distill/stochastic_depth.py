"""Huang et al.: Deep Networks with Stochastic Depth. arXiv:1603.09382, section 3: training without some of the blocks.

For every batch each residual block survives with a probability that falls linearly from the first block to the last;
of one that does not, only the shortcut is left. After training all blocks compute, their branches times that
probability (equation 5), which is folded into the last weights of each branch: the network keeps its usual structure.
With inverted scaling, that of torchvision's ``stochastic_depth``, branches are divided by it in training instead.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.compress._flow import Flow, follow
from distill.errors import RecipeError
from distill.schema.stage import Scaling

PROPORTIONAL = {"relu", "dropout", "avg_pool2d", "max_pool2d", "mul"}
"""Functions of half of their input are half of their output; others may not follow what is scaled."""


class Residual(NamedTuple):
    """A sum of a branch and a shortcut."""

    path: str
    """Of the module that adds them."""
    branch: tuple[str, ...]
    """Paths of the modules that run in the branch and nowhere else, in order."""
    weights: str
    """The last of these with weights; nothing but proportional functions follow it."""


class StochasticDepth:
    """Leaves residual blocks of a network out, at random, while it trains.

    Args:
        model: any network whose blocks add a branch to a shortcut; stays as it is.
        example: a batch of inputs.
        survival: the last block's probability p of being there, above 0 and up to 1. Block l of L has
            1 - l / L * (1 - p).
        scaling: ``paper``: branches are multiplied by their probability in the network to keep; ``inverted``: they are
            divided by it in training, and kept as they are.

    Raises:
        RecipeError: the network has no such blocks, or does something else with their branches.
    """

    def __init__(self, model: nn.Module, example: Tensor, survival: float, scaling: Scaling = "paper") -> None:
        self.model, self.scaling = model, scaling
        self.blocks = residual_blocks(model, example[:1])
        if not self.blocks:
            raise RecipeError(
                f"stochastic_depth leaves residual blocks out, but {type(model).__name__} has none: "
                "remove it, or train a network that adds its blocks' branches to shortcuts"
            )
        steps = torch.arange(1, len(self.blocks) + 1) / len(self.blocks)
        self.survival = 1 - steps * (1 - survival)
        self.shapes = self._shapes(example[:1])
        self._check(example)

    def draw(self) -> list[Residual]:
        """The blocks that do not survive a batch."""
        dies = torch.rand(len(self.blocks)) >= self.survival
        return [block for block, gone in zip(self.blocks, dies.tolist(), strict=True) if gone]

    @contextmanager
    def drawn(self) -> Iterator[list[Residual]]:
        """For as long as it lasts, the model runs without the blocks that it yields, and leaves no gradients there."""
        dropped = self.draw()
        with self._without(dropped), self._divided(set(self.blocks) - set(dropped)):
            yield dropped

    def folded(self, survival: Tensor | None = None) -> nn.Module:
        """A copy of the model to evaluate: with the paper's scaling, branches times their blocks' probabilities."""
        model = copy.deepcopy(self.model)
        if survival is None:
            survival = self.survival if self.scaling == "paper" else torch.ones(len(self.blocks))
        for block, share in zip(self.blocks, survival, strict=True):
            for parameter in model.get_submodule(block.weights).parameters(recurse=False):
                parameter.data.mul_(share.to(parameter))
        return model

    @contextmanager
    def _without(self, dropped: Sequence[Residual]) -> Iterator[None]:
        """Nothing in these branches is computed; zeros come out of them."""
        silenced = [self.model.get_submodule(path) for block in dropped for path in block.branch]
        for block in dropped:
            *inner, last = map(self.model.get_submodule, block.branch)
            for module in inner:
                module.forward = _nothing
            last.forward = partial(_nothing, shape=self.shapes[block])
        try:
            yield
        finally:
            for module in silenced:
                vars(module).pop("forward", None)

    @contextmanager
    def _divided(self, kept: Collection[Residual]) -> Iterator[None]:
        """With inverted scaling, what comes out of these branches is divided by their blocks' probabilities."""
        handles = [
            self.model.get_submodule(block.branch[-1]).register_forward_hook(partial(_quotient, probability))
            for block, probability in zip(self.blocks, self.survival.tolist(), strict=True)
            if block in kept and self.scaling == "inverted"
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _shapes(self, image: Tensor) -> dict[Residual, tuple[int, ...]]:
        """What the last module of each branch puts out, without the batch."""
        shapes: dict[Residual, tuple[int, ...]] = {}

        def note(block: Residual, _module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[block] = tuple(output.shape[1:])

        handles = [
            self.model.get_submodule(block.branch[-1]).register_forward_hook(partial(note, block))
            for block in self.blocks
        ]
        self.model(image)
        for handle in handles:
            handle.remove()
        return shapes

    @torch.no_grad()
    def _check(self, example: Tensor) -> None:
        """That a network without its blocks runs, and computes what it does with branches times 0."""
        refusal = f"stochastic_depth cannot leave out the blocks of {type(self.model).__name__}"
        try:
            with self._without(self.blocks):
                found = self.model(example)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise RecipeError(f"{refusal}: {error}") from error
        expected = self.folded(torch.zeros(len(self.blocks)))(example)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-5):
            raise RecipeError(f"{refusal}: their branches do more than to be added")


def _nothing(x: Tensor, *_: object, shape: tuple[int, ...] | None = None) -> Tensor:
    """Zeros for every sample: of one number per sample, as nobody looks at them, or of ``shape``."""
    return x.new_zeros(len(x), *(shape or [1] * (x.dim() - 1)))


def _quotient(probability: float, _module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output / probability


def residual_blocks(model: nn.Module, image: Tensor) -> list[Residual]:
    """Every sum in a network of a branch and a shortcut with fewer layers or none, in the order computed.

    Args:
        model: in evaluation mode.
        image: a batch of one.

    Raises:
        RecipeError: a branch that can be left out, but not multiplied by changing its weights.
    """
    flow = follow(model, image)
    makers = {value: number for number, op in enumerate(flow.ops) for value in op.outputs}
    found = []
    for op in flow.ops:
        if op.name in ("add", "iadd") and len(set(op.inputs)) == 2:
            first, second = (_ancestors(flow, makers, value) for value in op.inputs)
            sides = [_side(model, flow, op.module, numbers) for numbers in (first - second, second - first)]
            shortcut, branch = sorted(sides, key=lambda side: len(side[1]))
            if len(shortcut[1]) < len(branch[1]):
                found.append(Residual(op.module, tuple(branch[0]), branch[1][-1]))
                _refuse_unproportional(flow, first ^ second, found[-1])
    return found


def _ancestors(flow: Flow, makers: dict[int, int], value: int) -> set[int]:
    """Which calls a value depends on, by their number."""
    waiting, seen = [value], set()
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in seen:
            seen.add(number)
            waiting.extend(flow.ops[number].inputs)
    return seen


def _side(model: nn.Module, flow: Flow, path: str, numbers: set[int]) -> tuple[list[str], list[str]]:
    """The modules that make these calls and no others, in order of their last one, and those of them with weights."""
    elsewhere = {op.module for number, op in enumerate(flow.ops) if number not in numbers} | {path}
    last = {flow.ops[number].module: number for number in sorted(numbers)}
    own = [module for module in sorted(last, key=last.__getitem__) if module not in elsewhere]
    return own, [at for at in own if isinstance(getattr(model.get_submodule(at), "weight", None), nn.Parameter)]


def _refuse_unproportional(flow: Flow, numbers: set[int], block: Residual) -> None:
    scaled: set[int] = set()
    for op in (flow.ops[number] for number in sorted(numbers)):
        if scaled & set(op.inputs) and op.name not in PROPORTIONAL:
            raise RecipeError(
                f"stochastic_depth multiplies the branch of '{block.path}' by changing the weights of "
                f"'{block.weights}', but {op.name} follows them there"
            )
        if op.module == block.weights or scaled & set(op.inputs):
            scaled |= set(op.outputs)
