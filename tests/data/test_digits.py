"""How the digits are divided."""

import pytest
import torch
from torch import Tensor

from distill.data.digits import Digits
from distill.errors import RecipeError


def held_out(part: float) -> tuple[Tensor, Tensor]:
    data = Digits(0, test=part, val=0)
    batches = list(data.test_dataloader())
    learned = data.train_labels()
    labels = torch.cat([batch.labels for batch in batches])
    assert len(labels) + len(learned) == 1797
    return torch.cat([batch.inputs for batch in batches]), labels


def test_a_larger_test_set_holds_a_smaller_one() -> None:
    (few, _), (many, labels) = held_out(0.2), held_out(0.4)
    assert (len(few), len(many)) == (359, 718)
    assert {image.numpy().tobytes() for image in few} <= {image.numpy().tobytes() for image in many}
    counts = labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 8  # as in the whole: from 174 to 183 images of a digit


def test_a_test_set_needs_an_image() -> None:
    with pytest.raises(RecipeError, match=r"data.test=0.0001 leaves none of 1797 images to test on"):
        Digits(0, test=0.0001)
