"""Several teachers as one: You et al., Learning from Multiple Teacher Networks, KDD 2017, section 3.1."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.errors import RecipeError


class Ensemble(nn.Module):
    """Answers the weighted mean of its members' logits; ``name.path`` taps a feature map of one of them.

    Args:
        members: the teachers by name.
        weights: by name; only their ratios matter.
    """

    def __init__(self, members: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, member in members.items():
            if hasattr(nn.Module, name):
                raise RecipeError(f"a teacher cannot be called '{name}', a word of torch's own; rename it")
            self.add_module(name, member)
        self.weights = {name: weights[name] / sum(weights.values()) for name in members}

    def extra_repr(self) -> str:
        return f"weights={self.weights}"  # they are a part of what it is, as its members are

    def forward(self, inputs: Tensor) -> Tensor:
        answers = [weight * self.get_submodule(name)(inputs) for name, weight in self.weights.items()]
        return torch.stack(answers).sum(dim=0)


def combined(members: Mapping[str, nn.Module], weights: Mapping[str, float]) -> nn.Module:
    """One teacher as it is, several as an `Ensemble`."""
    return Ensemble(members, weights) if len(members) > 1 else next(iter(members.values()))


def member(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The teacher that a tap belongs to, and the tap's path in it: of an `Ensemble`, the member that the path names."""
    name, _, rest = path.partition(".")
    if isinstance(model, Ensemble) and name in model.weights:
        return model.get_submodule(name), rest
    return model, path
