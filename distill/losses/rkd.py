"""Park et al.: Relational Knowledge Distillation. arXiv:1904.05068, RKD-DA.

Departs from the authors' code: two equal embeddings have no direction between them and send no gradient.
Compares the images of a batch with each other; under DDP, those of the local batch only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._batch import refuse_a_batch_of_one
from distill.models.feature_maps import embedding
from distill.registry.ranges import NonNegative

Differences = Float[Tensor, "batch batch channels"]
Distances = Float[Tensor, "batch batch"]


@loss("rkd")
def relational(
    student: Float[Tensor, "batch channels_s *_s"],
    teacher: Float[Tensor, "batch channels_t *_t"],
    *,
    distance: NonNegative = 25.0,
    angle: NonNegative = 50.0,
) -> Float[Tensor, ""]:
    """Images lie to each other as they do for the teacher, up to scale; a map is averaged over its pixels first.

    Args:
        student: embeddings.
        teacher: embeddings, of any number of channels.
        distance: weight of the distances between two images, in units of their mean.
        angle: weight of the cosines at each image between any two.

    Raises:
        ValueError: one image lies next to nothing.
    """
    refuse_a_batch_of_one("rkd", student)
    with torch.autocast(student.device.type, enabled=False):
        of_student, of_teacher = differences(student), differences(teacher)
        distance_term = F.smooth_l1_loss(in_units_of_mean(lengths(of_student)), in_units_of_mean(lengths(of_teacher)))
        angle_term = F.smooth_l1_loss(cosines(of_student), cosines(of_teacher))
    return distance * distance_term + angle * angle_term


def differences(features: Float[Tensor, "batch channels *_"]) -> Differences:
    """What leads from each embedding to each."""
    rows = embedding(features)
    return rows[None] - rows[:, None]


def lengths(differences: Differences) -> Distances:
    """Euclidean norms; where one is zero its slope is, too."""
    squared = differences.square().sum(dim=2)
    apart = squared > 0
    # The square root has no finite slope at zero: nothing zero may reach it.
    return squared.where(apart, 1).sqrt() * apart


def in_units_of_mean(distances: Distances) -> Distances:
    """Distances, divided by the mean of those that are not zero."""
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.where(mean > 0, 1)


def cosines(differences: Differences) -> Float[Tensor, "batch batch batch"]:
    """Entry (i, j, k): of the angle at image i between images j and k; 0 where two of them are one."""
    distances = lengths(differences)
    unit = differences / distances.where(distances > 0, torch.inf)[:, :, None]
    return unit @ unit.mT
