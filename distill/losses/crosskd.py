"""Wang et al.: CrossKD: Cross-Head Knowledge Distillation for Object Detection. arXiv:2306.11369, section 3.2.

The student's own outputs follow the labels alone, so the two targets do not conflict. Departs from the paper: the
student's maps enter the teacher's whole head, which has one or two layers here, not five; and classes with a background
are compared by their divergence, since quality focal loss is for classes that are independent of each other.
"""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.losses import loss
from distill.losses._adapters import adapter
from distill.losses._anchors import anchor_difference
from distill.registry.ranges import NonNegative, Temperature


@loss("crosskd")
class CrossHead(nn.Module):
    """What the teacher's head says about the student's maps against what it says about the teacher's.

    Taps are all maps that the heads read, early to late: ``taps: stages`` of the detectors here.

    Args:
        student_shapes: of its maps.
        teacher_shapes: of its maps, of the same sizes.
        teacher_model: a detector whose ``reader()`` gives the module from a list of maps, those of its ``stages``, to
            its output.
        teacher_paths: of its taps.
        temperature: divides the logits.
        boxes: weight of the boxes.
        background: weight of anchors that are empty for the teacher.

    Raises:
        ValueError: the teacher has no such method, taps are not its stages, or maps are of different sizes.
    """

    def __init__(
        self,
        student_shapes: list[tuple[int, ...]],
        teacher_shapes: list[tuple[int, ...]],
        teacher_model: nn.Module,
        teacher_paths: list[str],
        *,
        temperature: Temperature = 1.0,
        boxes: NonNegative = 1.0,
        background: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        reader: Any = getattr(teacher_model, "reader", None)
        if reader is None:
            raise ValueError(
                f"crosskd sends maps through the teacher's head, but {type(teacher_model).__name__} has no reader()"
            )
        stages = [*getattr(teacher_model, "stages", teacher_paths)]
        if len(student_shapes) != len(teacher_shapes) or [*teacher_paths] != stages:
            raise ValueError(
                f"crosskd needs all maps of the teacher's head, early to late ({', '.join(stages)}), and as many of "
                "the student: write taps: stages"
            )
        for student, teacher in zip(student_shapes, teacher_shapes, strict=True):
            if student[2:] != teacher[2:]:
                raise ValueError(f"crosskd needs maps of one size, not of {student[2:]} and {teacher[2:]} pixels")
        if getattr(teacher_model, "bins", 0):
            raise ValueError("crosskd compares boxes, but the teacher's head gives distributions: set task.bins=0")
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.adapters = nn.ModuleList(adapter(student[1], teacher[1]) for student, teacher in pairs)
        # A copy, since the teacher may stay on another device; in a tuple, since it is neither trained nor saved.
        self.reader = (deepcopy(reader()).requires_grad_(False).eval(),)
        self.settings = {"temperature": temperature, "boxes": boxes, "background": background}

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        # Not in half precision, which autocast makes the student's maps: the weights would lose their digits.
        read = self.reader[0].to(student[0].device, torch.promote_types(student[0].dtype, torch.float32))
        with torch.no_grad():
            target = _parts(read(teacher))
        output = _parts(read([adapt(features) for adapt, features in zip(self.adapters, student, strict=True)]))
        return anchor_difference(output, target, **self.settings)


def _parts(output: Float[Tensor, "batch anchors values"]) -> tuple[Tensor, Tensor]:
    """Logits of background and classes, and the box, which has the last four values; anchors last."""
    return output[..., :-4].movedim(-1, 1), output[..., -4:].movedim(-1, 1)
