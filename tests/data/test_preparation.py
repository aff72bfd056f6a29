"""Pictures prepared by Pillow and NumPy alone are those that torchvision prepares."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distill.data.preprocessing import Preprocessing

sides = st.integers(1, 60)


@settings(max_examples=150, deadline=None)
@given(
    width=sides,
    height=sides,
    mode=st.sampled_from(["RGB", "L"]),
    resize=st.one_of(st.none(), sides, st.tuples(sides, sides)),
    crop=st.one_of(st.none(), st.tuples(sides, sides)),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_pixels_are_the_same(width: int, height: int, mode: str, resize, crop, interpolation: str) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    prepare = Preprocessing(mode, resize, crop, interpolation)  # type: ignore[arg-type]
    picture = Image.fromarray(pixels)
    assert np.array_equal(prepare.pixels(picture), prepare(picture).numpy())
