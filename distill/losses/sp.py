"""Tung & Mori: Similarity-Preserving Knowledge Distillation. arXiv:1907.09682, equations 1 to 4.

Compares the images of a batch with each other; under DDP, those of the local batch only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.models.feature_maps import widened


@loss("sp")
def similarity_preserving(
    student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"]
) -> Float[Tensor, ""]:
    """Images that look alike to the teacher should look alike to the student; feature sizes may differ.

    Raises:
        ValueError: one image has nothing to be similar to.
    """
    refuse_a_batch_of_one("sp", student)
    return (similarity(student) - similarity(teacher)).square().sum() / len(student) ** 2


def similarity(features: Float[Tensor, " batch *_"]) -> Float[Tensor, " batch batch"]:
    """Inner products between all images, each row a unit vector."""
    # Sums over thousands of features leave the range of half precision.
    with torch.autocast(features.device.type, enabled=False):
        flat = widened(features).flatten(1)
        return F.normalize(flat @ flat.T, dim=1)
