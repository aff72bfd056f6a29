"""Batches of blended images, by torchvision's MixUp and CutMix."""

from collections.abc import Iterable

import torch
from torchvision.transforms import v2

from distill.batch import Batch
from distill.errors import RecipeError
from distill.recipe.schema import Mix
from distill.tasks import Task
from distill.training.loss_terms import Term

BY_SAMPLE = ("labels", "sample")
"""What a loss may read of a batch that means nothing once images are mixed."""


class Mixing:
    """Mixes the images of a batch in pairs, and their labels, which become probabilities (batch, classes).

    Args:
        mix: which ways, and how strongly.
        task: its labels are classes, or it reads none.
        terms: the stage's losses.

    Raises:
        RecipeError: labels are no classes, or a loss reads the label or the number of each sample.
    """

    def __init__(self, mix: Mix, task: Task, terms: Iterable[Term]) -> None:
        if task.mixes is None:
            raise RecipeError(f"mix blends images and classes, but '{type(task).__name__}' has other labels: remove it")
        for term in terms:
            if read := [name for name in BY_SAMPLE if name in term.extras]:
                raise RecipeError(
                    f"loss '{term.key}' reads the {read[0]} of one image, but mix blends images: remove one"
                )
        self.labelled = task.mixes == "labels"
        classes = task.info.num_classes if self.labelled else 1
        ways = {v2.MixUp: mix.mixup, v2.CutMix: mix.cutmix}
        self.mix = v2.RandomChoice([way(alpha=alpha, num_classes=classes) for way, alpha in ways.items() if alpha])

    def __call__(self, batch: Batch) -> Batch:
        same = torch.zeros(len(batch.inputs), dtype=torch.long, device=batch.inputs.device)
        inputs, labels = self.mix(batch.inputs, batch.labels if self.labelled else same)
        return batch._replace(inputs=inputs, labels=labels if self.labelled else None, view=None)
