"""Lines of text under a picture."""

from PIL import Image, ImageDraw, ImageFont

GOOD, BAD, NEUTRAL = "#047857", "#dc2626", "#334155"
LEAST_SIDE, LINE, FONT = 112, 18, 13
"""Pixels: of the shorter side of a picture, which small ones are enlarged to; of a line; of a letter."""


def captioned(image: Image.Image, *lines: tuple[str, str]) -> Image.Image:
    """The picture, small ones enlarged, above lines of (text, colour), each cut to its width."""
    image = enlarged(image.convert("RGB"))
    font = ImageFont.load_default(FONT)
    page = Image.new("RGB", (image.width, image.height + (LINE * len(lines) + 4 if lines else 0)), "white")
    page.paste(image)
    drawing = ImageDraw.Draw(page)
    for number, (text, colour) in enumerate(lines):
        place = (2, image.height + 2 + number * LINE)
        drawing.text(place, _cut(text, image.width - 4, font), fill=colour, font=font)
    return page


def enlarged(image: Image.Image, least: int = LEAST_SIDE) -> Image.Image:
    """A whole number of times, until its shorter side has at least so many pixels; a large one is copied."""
    factor = max(1, -(-least // min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _cut(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
