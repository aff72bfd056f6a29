"""Guo et al.: Class Attention Transfer Based Knowledge Distillation. arXiv:2304.12777, section 3.

As in the authors' code: class maps are the classifier's weights times the last map, without the bias. Departs from it:
the networks stay as they are, which the authors rewrite with a 1x1 convolution as classifier; each network's own
``nn.Linear`` is applied to the pooled map, which is the same because pooling and classifier are both linear.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._classifier import FrozenClassifier, check_it_reads, last_linear
from distill.models.feature_maps import widened
from distill.registry.ranges import Count


@loss("catkd")
class ClassAttention(nn.Module):
    """Where the student finds each class should be where the teacher finds it; teaches the student's classifier too.

    Compares the last maps, those whose average the classifiers read.

    Args:
        student_shape: of the student's map.
        teacher_shape: of the teacher's.
        student_model: the network that is being trained; its last ``nn.Linear`` is its classifier.
        teacher_model: likewise.
        resolution: height and width, in pixels, that the class maps are pooled to.
        normalize: compare where a class is, as unit vectors, not how much of it there is. The authors do so unless
            the two networks are of one family.

    Raises:
        ValueError: a map has fewer pixels than that, or a classifier does not read the tapped channels.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        student_model: nn.Module,
        teacher_model: nn.Module,
        *,
        resolution: Count = 2,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        for shape in (student_shape, teacher_shape):
            if len(shape) != 4 or min(shape[2:]) < resolution:
                raise ValueError(
                    f"catkd compares class maps of {resolution}x{resolution} pixels, but a tap has shape {shape}; "
                    "tap the last map, or lower resolution"
                )
        check_it_reads(student_model, student_shape, "catkd")
        self.student_model = (student_model,)  # in a tuple: its parameters are not this loss's
        self.classifier = FrozenClassifier(teacher_model, teacher_shape, "catkd")
        self.resolution, self.normalize = resolution, normalize

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
    ) -> Float[Tensor, ""]:
        _, classifier = last_linear(self.student_model[0], "catkd")
        return F.mse_loss(self.class_maps(student, classifier.weight), self.class_maps(teacher, self.classifier.weight))

    def class_maps(
        self, features: Float[Tensor, "batch channels _ _"], weight: Float[Tensor, "classes channels"]
    ) -> Float[Tensor, "batch classes pixels"]:
        """How much each pixel speaks for each class."""
        pixels = F.adaptive_avg_pool2d(features, self.resolution).flatten(2)
        with torch.autocast(features.device.type, enabled=False):
            maps = widened(weight) @ widened(pixels)
        return F.normalize(maps, dim=2) if self.normalize else maps
