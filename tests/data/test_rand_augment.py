"""RandAugment in memory and from files: each image its own, and the same whatever batch it is in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data._loading import BatchIndices
from distill.data._rand_augment import RandAugment
from distill.data.digits import Digits
from distill.data.image_folder import ImageFolder


def noise(samples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (samples, channels, 12, 12), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_looks_the_same_in_every_batch(channels: int) -> None:
    images, augment = noise(6, channels), RandAugment(seed=1, magnitude=9)
    whole = augment(images, BatchIndices(2, torch.arange(6)))
    some = augment(images[[4, 1]], BatchIndices(2, torch.tensor([4, 1])))
    np.testing.assert_array_equal(some, whole[[4, 1]])
    assert (whole != augment(images, BatchIndices(3, torch.arange(6)))).any()
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    RandAugment(0, 9)(noise(2, 3), BatchIndices(0, torch.arange(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_only_training_images_are_varied() -> None:
    plain, varied = (Digits(0, crop=0, rand_augment=magnitude) for magnitude in (None, 9))
    for split in ("val", "test"):
        pairs = zip(*(getattr(data, f"{split}_dataloader")() for data in (plain, varied)), strict=True)
        assert all(torch.equal(one.inputs, other.inputs) for one, other in pairs)
    first, second = (next(iter(data.train_dataloader())) for data in (plain, varied))
    assert torch.equal(first.labels, second.labels)
    assert not torch.equal(first.inputs, second.inputs)


def test_pictures_of_files_are_varied(tmp_path: Path) -> None:
    for part, name in ((part, name) for part in ("train", "val") for name in ("a", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    settings: dict[str, Any] = {"root": tmp_path, "image_size": 32, "crop": False, "flip": False, "workers": 0}
    plain, varied = (
        next(iter(ImageFolder(0, val=0.0, rand_augment=magnitude, **settings).train_dataloader()))
        for magnitude in (None, 30)
    )
    assert plain.inputs.shape == varied.inputs.shape
    assert not torch.equal(plain.inputs, varied.inputs)
