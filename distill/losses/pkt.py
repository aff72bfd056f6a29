"""Passalis & Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. arXiv:1803.10837.

With the cosine kernel; as in the authors' code, the mean over all pairs of images.
Compares the images of a batch with each other; under DDP, those of the local batch only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.models.feature_maps import embedding

# The authors': two opposite embeddings have the probability zero, whose logarithm is not finite.
FLOOR = 1e-7


@loss("pkt")
def probabilistic(
    student: Float[Tensor, "batch channels_s *_s"], teacher: Float[Tensor, "batch channels_t *_t"]
) -> Float[Tensor, ""]:
    """Divergence of the probabilities that images are neighbours; a map is averaged over its pixels first.

    Raises:
        ValueError: one image has no neighbours.
    """
    refuse_a_batch_of_one("pkt", student)
    of_student, of_teacher = neighbours(student), neighbours(teacher)
    return (of_teacher * ((of_teacher + FLOOR) / (of_student + FLOOR)).log()).mean()


def neighbours(features: Float[Tensor, "batch channels *_"]) -> Float[Tensor, "batch batch"]:
    """How likely each image is next to each, by the cosine of their embeddings; rows sum to 1."""
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(embedding(features), dim=1)
        likeness = (unit @ unit.T + 1) / 2
        return likeness / likeness.sum(dim=1, keepdim=True)
