"""Yang et al.: Cross-Image Relational Knowledge Distillation for Semantic Segmentation. arXiv:2204.06986, section 3.3:
pixels against a memory of the training set, equations 7 to 11. `cirkd` relates the pixels of a mini-batch.

As in the authors' code, pixels without a class are left out, and the value is not multiplied by the square of the
temperature. Departs from it: a batch is compared with the memory before it joins it, so that no pixel meets itself; and
rings go round, where the code begins anew.

Under DDP each process compares its local batch with what all processes remember.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import connector
from distill.losses._class_memory import ClassMemory, some_of_each
from distill.losses._divergence import kl
from distill.models.feature_maps import pool_to_smaller, widened
from distill.registry.ranges import Count, NonNegative, Temperature

Embeddings = Float[Tensor, "pixels channels"]


@loss("cirkd_memory")
class ClassEmbeddings(nn.Module):
    """Which remembered embeddings of the teacher a pixel is similar to should be the same for both networks.

    For every class, the memory holds embeddings of single pixels and of regions, which are averages over the pixels of
    the class in one image. Of a pixel, the softmax of its cosines with some of them, equally many of each class, is a
    distribution; the loss is the divergence of the student's from the teacher's, mean over pixels. The student's
    pixels go through two 1x1 convolutions, which train with it and do not ship.

    Memory takes classes * (pixel_memory + region_memory) * channels floats (for 21 classes and 256 channels 473 MB),
    and is in the state dict, so a resumed run remembers.

    Args:
        student_shape: of the last map before the classifier.
        teacher_shape: likewise.
        num_classes: of the data set.
        temperature: divides the cosines.
        pixel_weight: of the part that compares with pixels, equation 9.
        region_weight: of the part that compares with regions, equation 11.
        pixel_memory: pixels remembered of each class.
        region_memory: regions remembered of each class.
        pixels: remembered of each class in each image.
        pixel_contrasts: remembered pixels that a batch is compared with, of all classes together.
        region_contrasts: remembered regions that a batch is compared with, of all classes together.

    Raises:
        ValueError: both weights are 0, or labels are no masks.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        num_classes: int,
        *,
        temperature: Temperature = 0.1,
        pixel_weight: NonNegative = 1.0,
        region_weight: NonNegative = 1.0,
        pixel_memory: Count = 20000,
        region_memory: Count = 2000,
        pixels: Count = 16,
        pixel_contrasts: Count = 4096,
        region_contrasts: Count = 1024,
    ) -> None:
        super().__init__()
        if not pixel_weight and not region_weight:
            raise ValueError("pixel_weight and region_weight are both 0")
        channels = teacher_shape[1]
        self.num_classes, self.temperature, self.pixels = num_classes, temperature, pixels
        self.pixel_weight, self.region_weight = pixel_weight, region_weight
        self.pixel_contrasts, self.region_contrasts = pixel_contrasts, region_contrasts
        final = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.project = nn.Sequential(connector(student_shape[1], channels), nn.ReLU(), final)
        self.pixel_memory = ClassMemory(num_classes, pixel_memory, channels) if pixel_weight else None
        self.region_memory = ClassMemory(num_classes, region_memory, channels) if region_weight else None

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
        labels: Int64[Tensor, "batch rows columns"],
    ) -> Float[Tensor, ""]:
        student, teacher = pool_to_smaller(student, teacher)
        with torch.autocast(student.device.type, enabled=False):
            embedded = F.normalize(self.project(widened(student)), dim=1)
            teacher = F.normalize(widened(teacher), dim=1)
        classes = F.interpolate(labels[:, None].float(), teacher.shape[2:])[:, 0].long()
        known = (classes >= 0) & (classes < self.num_classes)
        pair = embedded.movedim(1, -1)[known], teacher.movedim(1, -1)[known]
        value = self.divergence(*pair) if known.any() else 0 * embedded.sum()
        if torch.is_grad_enabled():  # a probe leaves no trace
            images = torch.arange(len(labels), device=labels.device)[:, None, None].expand_as(classes)[known]
            self.remember(pair[1].detach(), images, classes[known])
        return value

    def divergence(self, student: Embeddings, teacher: Embeddings) -> Float[Tensor, ""]:
        value = student.new_zeros(())
        with torch.autocast(student.device.type, enabled=False):
            if self.pixel_memory:
                rows = self.pixel_memory.draw(self.pixel_contrasts).mT
                value = value + self.pixel_weight * kl(student @ rows, teacher @ rows, self.temperature)
            if self.region_memory:
                rows = self.region_memory.draw(self.region_contrasts).mT
                value = value + self.region_weight * kl(student @ rows, teacher @ rows, self.temperature)
        return value

    def remember(
        self, embedded: Embeddings, images: Int64[Tensor, " pixels"], classes: Int64[Tensor, " pixels"]
    ) -> None:
        """Some pixels of every class in every image, and the average of all of them."""
        region = images * self.num_classes + classes
        if self.pixel_memory:
            chosen = some_of_each(region, self.pixels)
            self.pixel_memory.remember(embedded[chosen], classes[chosen])
        if self.region_memory:
            names, place = region.unique(return_inverse=True)
            sums = embedded.new_zeros(len(names), embedded.shape[1]).index_add_(0, place, embedded)
            self.region_memory.remember(sums, names % self.num_classes)  # a sum points where the average does
