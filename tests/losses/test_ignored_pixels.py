"""Losses that read a label for each pixel leave out those that have none, which masks write as 255."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import distill
from distill.losses.dkd import decoupled
from distill.losses.tfkd import teacher_free
from distill.pipeline.run import run

LOSSES = {"dkd": decoupled, "tfkd": lambda student, teacher, labels: teacher_free(student, labels)}


def dense(classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, classes, 4, 3, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(classes, (2, 4, 3), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_is_that_over_pixels_with_a_class(name: str) -> None:
    student, teacher, labels = dense()
    unknown = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    assert 0 < unknown.sum() < unknown.numel()
    value = LOSSES[name](student, teacher, labels.masked_fill(unknown, 255))
    kept = [one.movedim(1, -1)[~unknown] for one in (student, teacher)]
    torch.testing.assert_close(value, LOSSES[name](*kept, labels[~unknown]))
    value.backward()
    assert not student.grad.movedim(1, -1)[unknown].any()


@pytest.mark.parametrize("name", LOSSES)
def test_without_any_class_there_is_nothing_to_learn(name: str) -> None:
    student, teacher, labels = dense()
    value = LOSSES[name](student, teacher, torch.full_like(labels, 255))
    value.backward()
    assert value == 0
    assert not student.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_class_255_of_images_counts(name: str) -> None:
    student, teacher, labels = torch.randn(2, 300), torch.randn(2, 300), torch.tensor([255, 255])
    turned = [one.roll(1, 1) for one in (student, teacher)]
    torch.testing.assert_close(LOSSES[name](student, teacher, labels), LOSSES[name](*turned, labels + 1))
    assert LOSSES[name](student, teacher, labels) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_masks_of_more_pixels_are_read_at_the_nearest(name: str) -> None:
    student, teacher, labels = dense()
    larger = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(LOSSES[name](student, teacher, larger), LOSSES[name](student, teacher, labels))


@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_images_are_not_for_positions(name: str) -> None:
    student, teacher, labels = dense()
    with pytest.raises(ValueError, match=r"labels of \(2,\) are not for logits of \(2, 5, 4, 3\)"):
        LOSSES[name](student, teacher, labels[:, 0, 0])
    with pytest.raises(ValueError, match=r"labels of \(2, 4, 3\) are not for logits of \(2, 5\)"):
        LOSSES[name](student[..., 0, 0], teacher[..., 0, 0], labels)


def test_a_few_pixels_without_a_class_stop_no_run(tmp_path: Path) -> None:
    """In one picture of nine: the dry run may not see them."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(27):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / f"data/images/{number}.png")
        mask = random.integers(0, 3, (32, 32), np.uint8)
        mask[0, 0] = 255 if number % 9 == 8 else 0
        Image.fromarray(mask).save(tmp_path / f"data/masks/{number}.png")
    data = f"root: {tmp_path / 'data'}, classes: [a, b, c], image_size: 32, crop: false, batch_size: 8, workers: 0"
    names = [f"output={tmp_path / 'runs'}", "tracking.mode=disabled", "compress={}", "export={}", "baseline=false"]
    losses = "stages.distill.losses={dkd: {}, tfkd: {}}"
    result = run(distill.load_recipe("segmentation/smoke", [*names, f"data={{name: image_masks, {data}}}", losses]))
    assert 0 <= result.value <= 1
