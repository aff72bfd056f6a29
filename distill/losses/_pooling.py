"""Bringing two feature maps to one spatial size."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Map = Float[Tensor, "batch _ _ _"]


def pool_to_smaller(student: Map, teacher: Map) -> tuple[Map, Map]:
    """Average-pool the larger map to the smaller one's size: pooling loses detail, enlarging would invent it."""
    height, width = (min(s, t) for s, t in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(student, (height, width)), F.adaptive_avg_pool2d(teacher, (height, width))
