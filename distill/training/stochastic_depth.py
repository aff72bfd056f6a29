"""Huang et al.: Deep Networks with Stochastic Depth. arXiv:1603.09382, section 3: training without some of the blocks.

For every batch each residual block survives with a probability that falls linearly from the first block to the last;
a block that does not survive is its shortcut alone. After training all blocks are computed, their branches times that
probability (equation 5), which is folded into the last weights of each branch: the network keeps its usual structure.
With inverted scaling, that of torchvision's ``stochastic_depth``, branches are divided by it in training instead.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from distill.errors import RecipeError
from distill.models.copied import copied
from distill.models.residual import Residual, residual_blocks, without
from distill.recipe.schema.stage import Scaling


class StochasticDepth:
    """Drops residual blocks of a network at random while it trains.

    Args:
        model: any network whose blocks add a branch to a shortcut; not changed.
        example: a batch of inputs.
        survival: the last block's survival probability p, above 0 and up to 1. Block l of L has
            1 - l / L * (1 - p).
        scaling: ``paper``: branches are multiplied by their probability in the network to keep; ``inverted``: they are
            divided by it in training, and kept as they are.

    Raises:
        RecipeError: the network has no such blocks, or does more with their branches than to add them.
    """

    def __init__(self, model: nn.Module, example: Tensor, survival: float, scaling: Scaling = "paper") -> None:
        self.model, self.scaling = model, scaling
        self.random: torch.Generator | None = None
        self.blocks = residual_blocks(model, example[:1])
        for block in self.blocks:
            if block.spoiled:
                raise RecipeError(
                    f"stochastic_depth multiplies the branch of '{block.path}' by changing the weights of "
                    f"'{block.weights}', but {block.spoiled} follows them there"
                )
        if not self.blocks:
            raise RecipeError(
                f"stochastic_depth leaves residual blocks out, but {type(model).__name__} has none: "
                "remove it, or train a network that adds its blocks' branches to shortcuts"
            )
        steps = torch.arange(1, len(self.blocks) + 1) / len(self.blocks)
        self.survival = 1 - steps * (1 - survival)
        self._check(example)

    def draw_alike(self, seed: int) -> None:
        """Draw apart from all else, the same in every process: a block is left out of the whole batch, and where it is
        there its synchronized batch norms wait for all processes."""
        self.random = torch.Generator().manual_seed(seed)

    def draw(self) -> list[Residual]:
        """The blocks that do not survive a batch."""
        dies = torch.rand(len(self.blocks), generator=self.random) >= self.survival
        return [block for block, gone in zip(self.blocks, dies.tolist(), strict=True) if gone]

    @contextmanager
    def drawn(self) -> Iterator[list[Residual]]:
        """While it lasts, the model runs without the blocks that it yields, and they get no gradients."""
        dropped = self.draw()
        with without(self.model, dropped), self._divided(set(self.blocks) - set(dropped)):
            yield dropped

    def folded(self, survival: Tensor | None = None) -> nn.Module:
        """A copy of the model to evaluate: with the paper's scaling, branches times their blocks' probabilities."""
        model = copied(self.model)
        if survival is None:
            survival = self.survival if self.scaling == "paper" else torch.ones(len(self.blocks))
        for block, share in zip(self.blocks, survival, strict=True):
            for parameter in model.get_submodule(block.weights).parameters(recurse=False):
                parameter.data.mul_(share.to(parameter))
        return model

    @contextmanager
    def _divided(self, kept: Collection[Residual]) -> Iterator[None]:
        """With inverted scaling, the outputs of these branches are divided by their blocks' probabilities."""
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
    def _check(self, example: Tensor) -> None:
        """Check that the network runs without its blocks, and then computes the same as with branches times 0."""
        refusal = f"stochastic_depth cannot leave out the blocks of {type(self.model).__name__}"
        try:
            with without(self.model, self.blocks):
                found = self.model(example)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise RecipeError(f"{refusal}: {error}") from error
        expected = self.folded(torch.zeros(len(self.blocks)))(example)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-5):
            raise RecipeError(f"{refusal}: their branches do more than to be added")


def _quotient(probability: float, _module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output / probability
