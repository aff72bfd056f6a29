"""End-point error: Dosovitskiy et al., FlowNet, arXiv:1504.06852, section 5.1, of a teacher's flow for the true one."""

import torch
from jaxtyping import Float
from torch import Tensor

from distill.errors import RecipeError
from distill.losses import loss
from distill.models.feature_maps import pool_to_smaller, widened


@loss("epe")
def end_point_error(
    student: Float[Tensor, "batch channels_s height_s width_s"],
    teacher: Float[Tensor, "batch channels_t height_t width_t"],
) -> Float[Tensor, ""]:
    """Mean length of the difference between two flow vectors, in the unit that both networks use.

    Flow of any level of the two networks: the larger map is brought to the size of the smaller, by means over its
    pixels.

    Raises:
        RecipeError: a tap gives no flow.
    """
    for role, flow in (("student", student), ("teacher", teacher)):
        if flow.dim() != 4 or flow.shape[1] != 2:
            raise RecipeError(
                f"flow has 2 channels (batch, 2, height, width), but the {role}'s tap {tuple(flow.shape)}"
            )
    student, teacher = pool_to_smaller(widened(student), widened(teacher))
    return torch.linalg.vector_norm(student - teacher, dim=1).mean()
