"""Lines of text under a picture."""

from functools import cache, lru_cache

from PIL import Image, ImageDraw

from distill.data.fonts import SYSTEM_FONTS, Face, Font, faces_below, font_of, has_glyph

GOOD, BAD, NEUTRAL = "#047857", "#dc2626", "#334155"
LEAST_SIDE, LINE, FONT = 112, 18, 13
"""Pixels: of the shorter side of a picture, which small ones are enlarged to; of a line; of a letter."""


def captioned(image: Image.Image, *lines: tuple[str, str]) -> Image.Image:
    """The picture, small ones enlarged, above lines of (text, colour), each cut to its width.

    Characters that the font of Pillow lacks are drawn with one of the system, or named by their code points.
    """
    image = image.convert("RGB")
    if (side := min(image.size)) < LEAST_SIDE:
        factor = -(-LEAST_SIDE // side)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    page = Image.new("RGB", (image.width, image.height + (LINE * len(lines) + 4 if lines else 0)), "white")
    page.paste(image)
    drawing = ImageDraw.Draw(page)
    for number, (text, colour) in enumerate(lines):
        place = (2, image.height + 2 + number * LINE)
        text, face = readable(text)
        font = font_of(face, FONT)
        drawing.text(place, _cut(text, image.width - 4, font), fill=colour, font=font)
    return page


@lru_cache(maxsize=1024)
def readable(text: str) -> tuple[str, Face]:
    """The text with characters that no font has as U+554A, and a font that has all others; Pillow's own, if it can."""
    foreign = [character for character in dict.fromkeys(text) if not has_glyph(Face(), character)]
    if not foreign:
        return text, Face()
    lacking = {face: [one for one in foreign if not has_glyph(face, one)] for face in _system_faces()}
    face = min(lacking, key=lambda face: len(lacking[face]), default=Face())
    for character in lacking.get(face, foreign):
        text = text.replace(character, f"U+{ord(character):04X}")
    return text, face


@cache
def _system_faces() -> list[Face]:
    return [face for face in faces_below(SYSTEM_FONTS, strict=False) if has_glyph(face, "a")]


def _cut(text: str, width: int, font: Font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
