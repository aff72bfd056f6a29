"""From a picture to pixels: written down, read again, and the same as Pillow does it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill.data.preprocessing import Preprocessing, normalised
from distill.errors import DataError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
sides = st.integers(1, 64)
sizes = st.tuples(sides, sides)


@given(
    st.builds(
        Preprocessing,
        mode=st.sampled_from(["RGB", "L"]),
        resize=st.none() | sides | sizes,
        crop=st.none() | sizes,
        interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    )
)
def test_it_survives_json_and_gives_what_it_says(preprocessing):
    again = Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json())))
    assert again == preprocessing
    pixels = again(PICTURE)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[0] == {"RGB": 3, "L": 1}[preprocessing.mode]
    if preprocessing.crop:
        assert pixels.shape[1:] == preprocessing.crop
    elif isinstance(preprocessing.resize, tuple):
        assert pixels.shape[1:] == preprocessing.resize
    elif preprocessing.resize:
        assert min(pixels.shape[1:]) == preprocessing.resize


def test_the_centre_of_the_resized_picture():
    pixels = Preprocessing(resize=20, crop=(16, 18))(PICTURE)
    expected = PICTURE.resize((30, 20), Image.Resampling.BILINEAR).crop((6, 2, 24, 18))
    assert np.array_equal(pixels.permute(1, 2, 0), expected)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000)])
def test_a_line_of_pixels_does_not_become_gigabytes(size):
    picture = Image.new("RGB", size, (255, 0, 0))
    preprocessing = Preprocessing(resize=256, crop=(224, 224))
    assert max(preprocessing.geometry().transforms[0](picture).size) <= 2**16
    assert np.array_equal(preprocessing(picture).numpy(), preprocessing.pixels(picture))


def test_grey_is_grey():
    pixels = Preprocessing(mode="L", resize=(8, 8))(PICTURE)
    expected = PICTURE.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[0], expected)


@pytest.mark.parametrize(
    "section",
    [
        {"resize": 0},
        {"resize": 10**9},
        {"resize": True},
        {"resize": "big"},
        {"crop": 224},
        {"crop": [224]},
        {"crop": [224, -1]},
        {"mode": "CMYK"},
        {"mode": ["RGB"]},
        {"interpolation": "cubist"},
        {"rotate": 90},
    ],
)
def test_impossible_sections_are_refused(section):
    (key,) = section
    with pytest.raises(DataError, match=f"preprocessing {key}=.* is unknown or out of range"):
        Preprocessing.from_json(section)


def test_normalisation_is_that_of_its_definition():
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 6), np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = np.stack([(images[:, channel] / 255 - mean[channel]) / std[channel] for channel in range(3)], axis=1)
    torch.testing.assert_close(normalised(images, mean, std), torch.from_numpy(expected).float())
