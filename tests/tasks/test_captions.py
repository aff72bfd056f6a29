"""Text under pictures, in any script."""

import numpy as np
import pytest
from PIL import Image

from distill.data.fonts import SYSTEM_FONTS, Face, faces_below, has_glyph
from distill.tasks import _captions
from distill.tasks._captions import NEUTRAL, captioned, readable

CHINESE = [face for face in faces_below(SYSTEM_FONTS, strict=False) if has_glyph(face, "啊") and has_glyph(face, "a")]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without fonts."""
    readable.cache_clear()
    monkeypatch.setattr(_captions, "_system_faces", list)


@pytest.mark.usefixtures("bare")
def test_characters_that_no_font_has_are_named_by_their_code_points() -> None:
    assert readable("is 啊 (3 %)") == ("is U+554A (3 %)", Face())
    assert readable("a cat") == ("a cat", Face())
    assert readable("") == ("", Face())


@pytest.mark.skipif(not CHINESE, reason="needs a Chinese font, such as fonts-wqy-zenhei")
def test_characters_of_another_script_are_drawn_with_a_font_of_the_system() -> None:
    readable.cache_clear()
    text, face = readable("is 啊")
    assert text == "is 啊"
    assert face in CHINESE
    assert readable("\U0010fffd 啊")[0] == "U+10FFFD 啊"


@pytest.mark.usefixtures("bare")
def test_a_caption_is_as_wide_as_its_picture() -> None:
    image = Image.new("L", (120, 120))
    drawn = captioned(image, ("啊" * 50, NEUTRAL))
    assert drawn.width == 120
    assert np.asarray(drawn)[120:].min() < 100
