"""Crop and flip, against a plain loop over images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data._augment import CropFlip, cropped, draw, mirrored
from distill.data._loading import BatchIndices


def noise(samples: int, channels: int = 3, height: int = 8, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (samples, channels, height, width), np.uint8)


def one_by_one(images: np.ndarray, top: np.ndarray, left: np.ndarray, flips: np.ndarray, padding: int) -> np.ndarray:
    views = []
    for image, y, x, flip in zip(torch.from_numpy(images), top.tolist(), left.tolist(), flips.tolist(), strict=True):
        padded = F.pad(image, (padding, padding, padding, padding))
        view = padded[:, y : y + image.shape[1], x : x + image.shape[2]]
        views.append(view.flip(2) if flip else view)
    return torch.stack(views).numpy()


@settings(deadline=None)
@given(
    samples=st.integers(1, 5),
    channels=st.integers(1, 3),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_each_image_gets_its_own_crop_and_flip(samples, channels, size, padding, seed):
    images = noise(samples, channels, *size)
    random = np.random.default_rng(seed)
    top, left = random.integers(0, 2 * padding + 1, (2, samples))
    flips = random.random(samples) < 0.5
    got = mirrored(cropped(images, top, left, padding), flips)
    assert np.array_equal(got, one_by_one(images, top, left, flips, padding))


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True), (0, False)])
def test_a_batch_is_augmented_as_drawn(crop, flip):
    images, samples = noise(10), np.array([7, 2, 4])
    views = draw(3, 5, 10, crop)
    expected = one_by_one(
        images[samples], views.top[samples], views.left[samples], views.mirrored[samples] & flip, crop
    )
    before = images.copy()
    got = CropFlip(seed=3, samples=10, crop=crop, flip=flip)(
        images[samples], BatchIndices(5, torch.from_numpy(samples))
    )
    assert np.array_equal(got, expected)
    assert np.array_equal(images, before)


def test_offsets_and_flips_cover_their_range_evenly():
    top, left, flips = draw(0, 0, 20_000, 4)
    for offsets in (top, left):
        assert np.bincount(offsets) / len(offsets) == pytest.approx(np.full(9, 1 / 9), abs=0.01)
    assert flips.mean() == pytest.approx(0.5, abs=0.02)
    assert np.corrcoef([top, left, flips]) == pytest.approx(np.eye(3), abs=0.03)


def test_equal_images_of_one_batch_look_different():
    images = np.repeat(noise(1), 50, axis=0)
    views = CropFlip(seed=0, samples=50, crop=2, flip=True)(images, BatchIndices(0, torch.arange(50)))
    assert len({view.tobytes() for view in views}) > 30  # of 5 x 5 x 2


def test_a_view_depends_on_seed_epoch_and_sample_alone():
    images, everyone = noise(40), torch.arange(40)
    augment = CropFlip(seed=1, samples=40, crop=2, flip=True)
    whole = augment(images, BatchIndices(3, everyone))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for batch in order.split(7):
        assert np.array_equal(augment(images[batch.numpy()], BatchIndices(3, batch)), whole[batch.numpy()])
    assert not np.array_equal(augment(images, BatchIndices(4, everyone)), whole)
    assert not np.array_equal(CropFlip(seed=2, samples=40, crop=2, flip=True)(images, BatchIndices(3, everyone)), whole)


def test_neighbouring_seeds_and_epochs_draw_apart():
    views = {(seed, epoch): tuple(draw(seed, epoch, 50, 4).top.tolist()) for seed in range(5) for epoch in range(5)}
    assert len(set(views.values())) == 25


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    CropFlip(seed=1, samples=4, crop=1, flip=True)(noise(4), BatchIndices(0, torch.arange(4)))
    assert torch.equal(torch.random.get_rng_state(), before)
