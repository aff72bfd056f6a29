"""Chen et al.: Knowledge Distillation with the Reused Teacher Classifier. arXiv:2203.14001, section 3.2.

A student that predicts the teacher's last map can use the teacher's classifier: it ships with both, and the projector's
parameters and the classifier's count as its own. Departs from the authors' code: a student whose map is larger than
the teacher's pools it in the network that is kept too, not only beside a teacher.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill.artifact import Plan
from distill.losses import loss
from distill.losses._adapters import bottleneck
from distill.losses._classifier import FrozenClassifier, check_it_reads, last_linear
from distill.models.feature_maps import embedding, pooled
from distill.models.state import load_state
from distill.models.taps import Taps
from distill.registry import surgery
from distill.registry.ranges import Count


@loss("simkd")
class ReusedClassifier(nn.Module):
    """Mean squared difference of the teacher's last map and the student's, projected to as many channels.

    The student's own classifier learns nothing here: train with ``task_weight: 0``.

    Args:
        student_shape: of the student's map.
        teacher_shape: of the teacher's.
        student_model: the network that is being trained.
        teacher_model: its last ``nn.Linear`` is the classifier that the student is kept with.
        reduction: the projector's inner channels are the teacher's divided by this, at least 1.

    Raises:
        ValueError: a tap is no map, or not what its network's classifier reads, or the two know different numbers of
            classes.
    """

    def __init__(
        self,
        student_shape: tuple[int, ...],
        teacher_shape: tuple[int, ...],
        student_model: nn.Module,
        teacher_model: nn.Module,
        *,
        reduction: Count = 2,
    ) -> None:
        super().__init__()
        for shape in (student_shape, teacher_shape):
            if len(shape) != 4:
                raise ValueError(f"simkd compares maps, but a tap has shape {shape}; tap the last map")
        check_it_reads(student_model, student_shape, "simkd")
        self.classifier = FrozenClassifier(teacher_model, teacher_shape, "simkd")
        classes = [last_linear(student_model, "simkd")[1].out_features, len(self.classifier.weight)]
        if classes[0] != classes[1]:
            raise ValueError(
                f"simkd keeps the teacher's classifier: of {classes[1]} classes, for a task of {classes[0]}"
            )
        size = [min(sides) for sides in zip(student_shape[2:], teacher_shape[2:], strict=True)]
        self.sizes: dict[str, Any] = {
            "channels": [student_shape[1], max(1, teacher_shape[1] // reduction), teacher_shape[1]],
            "pool_to": None if size == list(student_shape[2:]) else size,
        }
        self.projector = projector(**self.sizes)
        self.input_shape: tuple[int, ...] = ()

    def forward(
        self,
        student: Float[Tensor, "batch channels_s height_s width_s"],
        teacher: Float[Tensor, "batch channels_t height_t width_t"],
        inputs: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, ""]:
        self.input_shape = (1, *inputs.shape[1:])  # what `deploy` tries the changed network on
        projected = self.projector(student)
        return F.mse_loss(projected, pooled(teacher, *projected.shape[2:]))

    def deploy(self, student: nn.Module, path: str) -> tuple[nn.Module, Plan]:
        """The student with the projector behind the module at ``path``, and with the teacher's classifier; evaluating.

        Args:
            student: is changed.
            path: of its tap.

        Raises:
            ValueError: the student does more than average over pixels between the two.
        """
        end, own = last_linear(student, "simkd")
        classes, channels = self.classifier.weight.shape
        linear = {"in_features": channels, "out_features": classes, "bias": self.classifier.bias is not None}
        layers = {path: {"projector": self.sizes}, end: {"linear": linear}}
        reuse_classifier(student, layers).to(own.weight).eval()
        load_state(student.get_submodule(f"{path}.1"), self.projector.state_dict())
        load_state(student.get_submodule(end), dict(self.classifier.named_buffers()))
        if self.input_shape:
            example = torch.linspace(-1, 1, math.prod(self.input_shape)).reshape(self.input_shape)
            self._check(Taps(student, [path, end]), example.to(own.weight))
        return student, Plan("simkd", layers)

    @torch.no_grad()
    def _check(self, student: Taps, inputs: Tensor) -> None:
        """Refuse a student whose classifier reads anything but the average of the projected map."""
        path, end = student.paths
        refusal = (
            f"simkd: between '{path}' and '{end}' the student does more than average over pixels; tap what it averages"
        )
        try:
            _, features = student(inputs)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{refusal}, a map of (batch, channels, height, width) ({reason})") from error
        found, expected = features[end].float(), self.classifier(embedding(features[path]).to(inputs)).float()
        if (found - expected).abs().max() > 0.02 * expected.abs().max():  # as close as half precision computes
            raise ValueError(refusal)


@surgery("simkd")
def reuse_classifier(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Put a projector behind one module, and another classifier in place of the model's own."""
    for path, spec in layers.items():
        if "projector" in spec:
            model.set_submodule(path, nn.Sequential(model.get_submodule(path), projector(**spec["projector"])))
        else:
            model.set_submodule(path, nn.Linear(**spec["linear"]))
    return model


def projector(channels: list[int], pool_to: list[int] | None) -> nn.Sequential:
    """From the student's map to one like the teacher's.

    Args:
        channels: of the student's map, inside, of the teacher's map.
        pool_to: height and width of the result; without it, those of the student's map.
    """
    pool: list[nn.Module] = [] if pool_to is None else [nn.AdaptiveAvgPool2d(tuple(pool_to))]
    inputs, inner, outputs = channels
    return nn.Sequential(*pool, *bottleneck(inputs, inner, outputs))
