"""Han et al.: Learning both Weights and Connections for Efficient Neural Networks. arXiv:1506.02626, section 3.1, and
Park et al.: arXiv:1608.01409: an L1 penalty, which moves weights that are not needed to zero before they are pruned."""

from fnmatch import fnmatch

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss


@loss("l1")
class L1(nn.Module):
    """The sum of the magnitudes of the student's weights; the recipe's weight is its decay, 5e-5 in the authors' code.

    Biases and normalisation are left out. Pruned weights stay zero: no gradient reaches them.

    Args:
        student_model: the network that is being trained.
        layers: globs of module paths; without any, every convolution and linear layer.

    Raises:
        ValueError: a glob matches no such layer.
    """

    def __init__(self, student_model: nn.Module, *, layers: list[str] | None = None) -> None:
        super().__init__()
        weighted = {path: m for path, m in student_model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        for pattern in layers or []:
            if not any(fnmatch(path, pattern) for path in weighted):
                raise ValueError(f"l1: no layer matches '{pattern}'. There are: {', '.join(weighted)}")
        # in a tuple: their parameters are not this loss's
        self.layers = tuple(m for path, m in weighted.items() if any(fnmatch(path, p) for p in layers or ["*"]))

    def forward(self, student: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        return torch.stack([layer.weight.abs().sum() for layer in self.layers]).sum()
