"""Jin, Wang & Lin: Multi-Level Logit Distillation. CVPR 2023, pages 24276 to 24285.

The paper is not on arXiv; arXiv:2403.01427 measures the method again and extends it. All views of an image in a batch
are treated alike. Compares the images of a batch with each other; under DDP, those of the local batch only.

The three levels and their sizes are those of the authors' code, from which their sum departs. That code multiplies
each level, already a sum, by the mask of the images (or classes) of least confidence, which only makes it smaller;
takes the weak view for the strong one at temperatures 2 and 6; and leaves out the strong view's batch and class levels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import kl, softened
from distill.registry.ranges import Temperature


@loss("mlld")
def multi_level(
    student: Float[Tensor, "batch classes *positions"],
    teacher: Float[Tensor, "batch classes *positions"],
    *,
    temperatures: tuple[Temperature, ...] = (2.0, 3.0, 4.0, 5.0, 6.0),
) -> Float[Tensor, ""]:
    """Predictions of each image, likeness of images and likeness of classes, summed over several temperatures.

    Args:
        student: logits.
        teacher: logits.
        temperatures: each divides the logits once.

    Raises:
        ValueError: there are no temperatures, or a dense output.
    """
    if student.dim() > 2:
        raise ValueError(
            f"mlld compares whole images with each other, not the {tuple(student.shape[2:])} positions of "
            "a dense output; use kd"
        )
    if not temperatures:
        raise ValueError("mlld sums over temperatures, but there are none; name at least one")
    return torch.stack([levels(student, teacher, temperature) for temperature in temperatures]).sum()


def levels(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], temperature: float
) -> Float[Tensor, ""]:
    """Instance, batch and class level at one temperature."""
    student, teacher = softened(student, temperature), softened(teacher, temperature)
    with torch.autocast(student.device.type, enabled=False):
        p_s, p_t = student.softmax(dim=1), teacher.softmax(dim=1)
        images = (p_s @ p_s.T - p_t @ p_t.T).square().sum() / len(p_s)
        classes = (p_s.T @ p_s - p_t.T @ p_t).square().sum() / p_s.shape[1]
    return temperature**2 * kl(student, teacher) + images + classes
