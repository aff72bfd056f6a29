"""Chen et al.: Cross-Layer Distillation with Semantic Calibration. arXiv:2012.03236.

As in the authors' code: queries and keys read rows of the batch's similarity, which ties them to a batch size. Departs
from it: a smaller batch (the last of an epoch, a process's part) is one whose other images are like none of its own.
Under DDP, the similarity is that of the local batch.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import bottleneck
from distill.models.feature_maps import as_map, pool_to_smaller, widened
from distill.registry.ranges import Count

Shape = tuple[int, ...]


@loss("semckd")
class SemanticCalibration(nn.Module):
    """Mean squared differences between every map of the student and every one of the teacher.

    How much each pair counts is learned, image by image: a layer of the student attends to those of the teacher in
    which the batch's images are alike in the same way. (batch, features) vectors are 1x1 maps.

    Args:
        student_shapes: of the student's taps.
        teacher_shapes: of the teacher's, of any number.
        batch_size: the most images that a batch may have.
        dimension: of queries and keys; the authors' is a quarter of their batch of 64.
    """

    def __init__(
        self, student_shapes: list[Shape], teacher_shapes: list[Shape], batch_size: int, *, dimension: Count = 16
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.queries = nn.ModuleList(perceptron(batch_size, dimension) for _ in student_shapes)
        self.keys = nn.ModuleList(perceptron(batch_size, dimension) for _ in teacher_shapes)
        # They end in a convolution: the teacher's maps may be of any sign.
        self.projectors = nn.ModuleList(
            bottleneck(s[1], 2 * t[1], t[1])[:-2] for s in student_shapes for t in teacher_shapes
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        """The sum over pairs, mean over images and over the student's layers.

        Raises:
            ValueError: the batch has more images than ``batch_size``.
        """
        pairs = itertools.product(student, teacher)
        distances = [distance(s, t, project) for (s, t), project in zip(pairs, self.projectors, strict=True)]
        per_layer = torch.stack(distances, dim=1).unflatten(1, (len(student), len(teacher)))
        return (self.attention(student, teacher) * per_layer).sum(dim=2).mean()

    def attention(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, "batch layers_s layers_t"]:
        """How each layer of the student divides its attention between those of the teacher."""
        # Inner products over thousands of features leave the range of half precision.
        with torch.autocast(student[0].device.type, enabled=False):
            queries = torch.stack([embed(self._rows(s)) for embed, s in zip(self.queries, student, strict=True)], dim=1)
            keys = torch.stack([embed(self._rows(t)) for embed, t in zip(self.keys, teacher, strict=True)], dim=1)
            energy = F.normalize(queries, dim=2) @ F.normalize(keys, dim=2).mT
            return energy.softmax(dim=2)

    def _rows(self, features: Float[Tensor, " batch *_"]) -> Float[Tensor, " batch batch_size"]:
        """Inner products of each image with all others."""
        if len(features) > self.batch_size:
            raise ValueError(
                f"semckd was built for batches of up to {self.batch_size} images, but this one has {len(features)}; "
                "its attention reads how each image of a batch is like the others: keep batch_size fixed"
            )
        flat = widened(features).flatten(1)
        return F.pad(flat @ flat.T, (0, self.batch_size - len(flat)))


def distance(
    student: Float[Tensor, " batch *_s"], teacher: Float[Tensor, " batch *_t"], project: nn.Module
) -> Float[Tensor, " batch"]:
    """Mean squared difference of each image's maps, at the smaller one's size."""
    student, teacher = pool_to_smaller(as_map(student), as_map(teacher))
    return (project(student) - teacher).square().flatten(1).mean(dim=1)


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """One hidden layer, twice as wide as the output."""
    return nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.ReLU(), nn.Linear(2 * outputs, outputs))
