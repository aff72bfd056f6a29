"""The plain difference of two outputs: of pictures, or of maps that mean the same for both networks.

L1 for pictures: Zhao, Gallo, Frosio & Kautz: Loss Functions for Neural Networks for Image Processing. arXiv:1511.08861.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.registry.ranges import Positive


@loss("difference")
def difference(
    student: Float[Tensor, " batch *shape"],
    teacher: Float[Tensor, " batch *shape"],
    *,
    power: Positive = 1.0,
    relative: bool = False,
) -> Float[Tensor, ""]:
    """Mean of |student - teacher| to a power. Nothing is learned or pooled: both have one shape.

    Args:
        student: any tensor.
        teacher: of the same shape.
        power: 1 for absolute and 2 for squared errors.
        relative: the mean is a part of that of |teacher| to the same power.
    """
    error = (student - teacher).abs().pow(power).mean()
    return error / teacher.abs().pow(power).mean().clamp(min=torch.finfo(torch.float32).tiny) if relative else error
