"""A second student beside the first: Zhang et al., Deep Mutual Learning. arXiv:1706.00384, section 2.2.

Both learn in the same step from what the other answered before it; the authors let the second one see what the first
has just learned.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from distill.batch import Batch
from distill.models.taps import Features, Taps
from distill.recipe.schema import Loss
from distill.tasks import Task
from distill.training.loss_terms import bind, unique


class Peer(nn.Module):
    """Learns from the student by the losses by which the student learns from it, and from the labels.

    Args:
        model: the network.
        losses: the stage's, as the student has them, their taps written out.
        student: features of a probe of the student.
        example: the probe.
        offered: what losses may ask for when they are built.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Mapping[str, Loss],
        student: Features,
        example: Batch,
        injectable: Mapping[str, Any],
    ) -> None:
        super().__init__()
        mirrored = {key: replace(spec, student=spec.teacher, teacher=spec.student) for key, spec in losses.items()}
        self.tapped = Taps(model, unique(spec.student for spec in mirrored.values()))
        _, own = self.tapped(example.inputs)
        self.terms = bind(mirrored, own, student, example, {**injectable, "student_model": model})

    def forward(self, inputs: Tensor) -> tuple[Any, Features]:
        """Its output, and its feature maps with their gradients."""
        return self.tapped(inputs)

    def learn(
        self, output: Any, own: Features, student: Features, batch: Batch, task: Task, task_weight: float, epoch: float
    ) -> dict[str, Tensor]:
        """What it is trained for: the terms of the total loss, by name."""
        values = {"peer_task": task_weight * task.loss(output, batch.labels)} if task_weight else {}
        fixed = {path: feature.detach() for path, feature in student.items()}
        return values | {f"peer_{key}": term(own, fixed, batch, epoch) for key, term in self.terms.items()}
