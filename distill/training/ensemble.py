"""Several teachers as one: You et al., Learning from Multiple Teacher Networks, KDD 2017, section 3.1.

Departs from the paper, which averages softened probabilities: outputs are averaged before they are softened, which is
their geometric mean, so that every loss and every task can have an ensemble.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.errors import RecipeError


class Ensemble(nn.Module):
    """Outputs the weighted mean of its members' outputs; ``name.path`` taps a feature map of one of them.

    Args:
        members: the teachers by name.
        weights: by name; only their ratios matter.
    """

    def __init__(self, members: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, member in members.items():
            if hasattr(nn.Module, name):
                raise RecipeError(f"a teacher cannot be called '{name}', an attribute of torch's modules; rename it")
            self.add_module(name, member)
        self.weights = {name: weights[name] / sum(weights.values()) for name in members}

    def extra_repr(self) -> str:
        return f"weights={self.weights}"  # a cache identifies an ensemble by its members and by these

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = [weight * self.get_submodule(name)(inputs) for name, weight in self.weights.items()]
        return torch.stack(outputs).sum(dim=0)


def combined(members: Mapping[str, nn.Module], weights: Mapping[str, float]) -> nn.Module:
    """One teacher as it is, several as an `Ensemble`."""
    return Ensemble(members, weights) if len(members) > 1 else next(iter(members.values()))


def member(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The teacher that a tap belongs to, and the tap's path in it; in an `Ensemble` the path begins with the member."""
    name, _, rest = path.partition(".")
    if isinstance(model, Ensemble) and name in model.weights:
        return model.get_submodule(name), rest
    return model, path
