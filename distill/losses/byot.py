"""Zhang et al.: Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation.
arXiv:1905.08094, section 3.2; their lambda is ``beta``.

Departs from the paper: the divergence is multiplied by temperature^2, as Hinton et al. do and kd does here, and the
hint is a mean over the batch. The deepest exit is the network itself, whose cross-entropy is the task's loss. Defaults
are those of the authors' later code (pytorch-self-distillation-final), since the paper gives none.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import bottleneck
from distill.losses._divergence import kl
from distill.models.feature_maps import embedding
from distill.registry.ranges import NonNegative, Probability, Temperature

Shape = tuple[int, ...]


@loss("byot")
class SelfDistillation(nn.Module):
    """Exits at shallow maps learn from the labels and from the network's own depth; nothing of them is shipped.

    Taps, early to late: the shallow maps, the deepest map, and the network's output, the path ``""``. The last two
    teach and get no gradient from here.

    Args:
        student_shapes: of the taps.
        temperature: divides the logits where the output teaches.
        alpha: between 0, where exits learn from the labels alone, and 1, where they learn from the output alone.
        beta: weight of the squared distance between an exit's features and the deepest map's, both averaged over
            pixels.

    Raises:
        ValueError: the taps are not two or more maps and then logits.
    """

    def __init__(
        self,
        student_shapes: list[Shape],
        *,
        temperature: Temperature = 3.0,
        alpha: Probability = 0.3,
        beta: NonNegative = 0.03,
    ) -> None:
        super().__init__()
        *maps, output = student_shapes
        if len(maps) < 2 or len(output) != 2 or any(len(shape) != 4 for shape in maps):
            raise ValueError(
                "byot taps two or more maps, early to late, and then the network's own output of shape "
                f'(batch, classes), but the taps have shapes {student_shapes}; write student: [layer1, ..., ""]'
            )
        *shallow, deepest = maps
        self.temperature, self.alpha, self.beta = temperature, alpha, beta
        self.adapters = nn.ModuleList(adapter(shape, deepest) for shape in shallow)
        self.classifiers = nn.ModuleList(nn.Linear(deepest[1], output[1]) for _ in shallow)

    def forward(self, student: list[Tensor], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        *shallow, deepest, output = student
        hint, soft_targets = embedding(deepest.detach()), output.detach()
        total = output.new_zeros(())
        for features, adapt, classifier in zip(shallow, self.adapters, self.classifiers, strict=True):
            exit_features = embedding(adapt(features))
            logits = classifier(exit_features)
            total = total + (1 - self.alpha) * F.cross_entropy(logits, labels)
            total = total + self.alpha * self.temperature**2 * kl(logits, soft_targets, self.temperature)
            total = total + self.beta * (exit_features - hint).square().sum(dim=1).mean()
        return total


def adapter(shape: Shape, deepest: Shape) -> nn.Sequential:
    """From a shallow map to the channels of the deepest one, and to as many pixels or about as many."""
    height, width = (max(1, side // goal) for side, goal in zip(shape[2:], deepest[2:], strict=True))
    return bottleneck(shape[1], max(1, deepest[1] // 4), deepest[1], patch=(height, width))
