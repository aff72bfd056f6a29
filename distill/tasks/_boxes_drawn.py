"""Boxes over a picture, with classes and scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from distill.tasks._captions import BAD, GOOD, NEUTRAL, enlarged

Named = Sequence[Mapping[str, Any]]
LEAST_SIDE, FONT, DASH = 224, 12, 4
"""Pixels: of the shorter side of a picture, which small ones are enlarged to; of a letter; of a dash."""


def drawn(image: Image.Image, found: Named, truth: Named | None, threshold: float) -> Image.Image:
    """The picture with solid boxes around what is found and dashed ones around what is missed.

    Args:
        image: in pixels of any number: boxes are parts of its width and height.
        found: objects with "class", "box" and "score", the most probable first.
        truth: objects with "class" and "box", or None where it is not known.
        threshold: least intersection over union of a found object and a true one of the same class.
    """
    picture = enlarged(image.convert("RGB"), LEAST_SIDE)
    drawing, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    left, colours = list(truth or ()), []
    for thing in found:
        hit = next((one for one in left if _same(one, thing, threshold)), None)
        if hit:
            left.remove(hit)
        colours.append(NEUTRAL if truth is None else GOOD if hit else BAD)
    for thing in left:
        corners = _corners(thing["box"], picture)
        _dashed(drawing, corners)
        _label(drawing, corners, thing["class"], NEUTRAL, font)
    for thing, colour in reversed([*zip(found, colours, strict=True)]):  # the most probable on top
        corners = _corners(thing["box"], picture)
        drawing.rectangle(corners, outline=colour, width=2)
        _label(drawing, corners, f"{thing['class']} {100 * thing['score']:.0f} %", colour, font)
    return picture


def _same(one: Mapping[str, Any], other: Mapping[str, Any], threshold: float) -> bool:
    (a, b, c, d), (e, f, g, h) = one["box"], other["box"]
    shared = max(min(c, g) - max(a, e), 0.0) * max(min(d, h) - max(b, f), 0.0)
    union = (c - a) * (d - b) + (g - e) * (h - f) - shared
    return one["class"] == other["class"] and shared >= threshold * union


def _corners(box: Sequence[float], picture: Image.Image) -> tuple[int, int, int, int]:
    """In pixels, within the picture."""
    sides = (picture.width, picture.height) * 2
    left, top, right, bottom = (min(max(round(p * side), 0), side - 1) for p, side in zip(box, sides, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _label(drawing: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], text: str, colour: str, font: Any) -> None:
    """White on the box's colour, at its upper left corner, within the picture."""
    width, height = int(font.getlength(text)) + 4, FONT + 4
    page = drawing.im.size
    left, top = max(min(corners[0], page[0] - width), 0), max(corners[1] - height, 0)
    drawing.rectangle((left, top, left + width, top + height), fill=colour)
    drawing.text((left + 2, top + 1), text, fill="white", font=font)


def _dashed(drawing: ImageDraw.ImageDraw, corners: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = corners
    for start in range(left, right, 2 * DASH):
        for y in (top, bottom):
            drawing.line((start, y, min(start + DASH, right), y), fill=NEUTRAL, width=2)
    for start in range(top, bottom, 2 * DASH):
        for x in (left, right):
            drawing.line((x, start, x, min(start + DASH, bottom)), fill=NEUTRAL, width=2)
