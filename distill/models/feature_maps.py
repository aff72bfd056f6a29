"""Bringing two feature maps to one spatial size, one map to a vector, or features to enough digits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Map = Float[Tensor, "batch _ _ _"]


def widened(features: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Features in fp32 at least: half precision has neither the digits nor the range for sums; fp64 stays."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def as_map(features: Float[Tensor, " batch *_"]) -> Map:
    """(batch, features) as (batch, features, 1, 1); a map as it is.

    Raises:
        ValueError: neither, such as a transformer's tokens.
    """
    if features.dim() not in (2, 4):
        raise ValueError(
            "maps (batch, channels, height, width) or vectors are compared, but a tap gives "
            f"{tuple(features.shape)}: tap a map, or arrange tokens as one with layout: {{student: tokens}}"
        )
    return features[:, :, None, None] if features.dim() == 2 else features


def pool_to_smaller(student: Map, teacher: Map) -> tuple[Map, Map]:
    """Average-pool the larger map to the smaller one's size: pooling loses detail, enlarging would invent it."""
    student, teacher = as_map(student), as_map(teacher)
    height, width = (min(s, t) for s, t in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return pooled(student, height, width), pooled(teacher, height, width)


def pooled(features: Map, height: int, width: int) -> Map:
    """Averages over a grid of that size; a map of that size as it is, since torch's pooling would copy it slowly."""
    return features if features.shape[2:] == (height, width) else F.adaptive_avg_pool2d(features, (height, width))


def embedding(features: Float[Tensor, " batch *_"]) -> Float[Tensor, " batch channels"]:
    """One vector per image, `widened`: a map's average over its pixels, as before a classifier; a vector as it is.

    Of tokens (batch, tokens, channels), the average over tokens.
    """
    features = widened(features)
    if features.dim() == 3:
        return features.mean(dim=1)
    return features if features.dim() == 2 else features.flatten(2).mean(dim=2)


def embedding_size(shape: tuple[int, ...]) -> int:
    """Length of the `embedding` of features of this shape."""
    return shape[2] if len(shape) == 3 else shape[1]
