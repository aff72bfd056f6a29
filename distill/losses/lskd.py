"""Sun et al.: Logit Standardization in Knowledge Distillation. arXiv:2403.01427, the Z-score alone."""

from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import kl, softened
from distill.registry.ranges import Temperature


@loss("lskd")
def standardized_soft_targets(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    *,
    temperature: Temperature = 2.0,
) -> Float[Tensor, ""]:
    """As kd, but what the student learns is how the teacher ranks the classes, whatever the size of its logits.

    Args:
        student: logits.
        teacher: logits.
        temperature: divides the standardized logits.
    """
    return temperature**2 * kl(standardize(student), standardize(teacher), temperature)


def standardize(logits: Float[Tensor, "batch classes *positions"]) -> Float[Tensor, "batch classes *positions"]:
    """Mean 0 and standard deviation 1 over the classes of each image, or of each position."""
    logits = softened(logits)
    deviation = logits.std(dim=1, keepdim=True)
    # Equal logits, as of a classifier that starts at zero, would send a gradient of 1 / 1e-7.
    deviation = deviation.where(deviation > 0, 1)
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + 1e-7)
