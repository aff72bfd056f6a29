"""Yang et al.: Cross-Image Relational Knowledge Distillation for Semantic Segmentation. arXiv:2204.06986, equations 3
to 6: the pixels of a mini-batch. `cirkd_memory` has the memory of class embeddings, section 3.3.

As in the authors' code, the value is not multiplied by the square of the temperature. Under DDP the pixels of the
local batch only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill.losses import loss
from distill.losses._divergence import kl
from distill.models.feature_maps import pool_to_smaller, pooled, widened
from distill.registry.ranges import Count, Temperature


@loss("cirkd")
def cross_image_relations(
    student: Float[Tensor, "batch channels_s height_s width_s"],
    teacher: Float[Tensor, "batch channels_t height_t width_t"],
    *,
    temperature: Temperature = 0.1,
    grid: Count = 16,
) -> Float[Tensor, ""]:
    """Which pixels of every image a pixel is similar to should be the same for both networks; channels may differ.

    Of a pixel and an image, the softmax of the cosines with all pixels of that image is a distribution; the divergence
    of the student's from the teacher's, mean over pixels and images, those of the pixel's own image included.

    Args:
        student: the last map before the classifier.
        teacher: likewise.
        temperature: divides the cosines.
        grid: larger maps are averaged to that many rows and columns: memory grows with their fourth power.
    """
    student, teacher = pool_to_smaller(student, teacher)
    height, width = (min(side, grid) for side in student.shape[2:])
    student, teacher = (similarities(pooled(features, height, width)) for features in (student, teacher))
    return kl(student, teacher, temperature)


def similarities(features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "rows pixels"]:
    """A row for each pair of a pixel and an image: the cosines of the pixel with all pixels of the image."""
    with torch.autocast(features.device.type, enabled=False):
        pixels = F.normalize(widened(features).flatten(2), dim=1)
        return torch.einsum("icp,jcq->ipjq", pixels, pixels).flatten(0, 2)
