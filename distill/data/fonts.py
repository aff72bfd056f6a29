"""Fonts of a folder, and characters drawn with them."""

from functools import lru_cache
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, features

from distill.data.decoding import shown
from distill.errors import DataError, DistillError
from distill.files.atomic import replacing

SYSTEM_FONTS = Path("/usr/share/fonts")
ENDINGS = (".ttf", ".otf", ".ttc")
ABSENT = "\U0010ffff"
"""A code point that no font has a glyph for: what it looks like shows which other ones are absent."""
GLYPH = 0.78
"""Height of a glyph's em square, as a share of the picture's side."""


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Glyphs = UInt8[np.ndarray, "characters height width"]
"""Black on white; white all over where a face has no glyph for a character."""


class Face(NamedTuple):
    """One font of a file; Pillow's own without a path."""

    path: Path | None = None
    member: int = 0
    """Of a collection of fonts."""

    def __str__(self) -> str:
        return shown(self.path) if self.path else "the font of Pillow"

    @property
    def family(self) -> str:
        """The first two words of its name, which weights and variants of a design share: "Noto Serif"."""
        return " ".join(str(font_of(self, 16).getname()[0]).split()[:2])  # type: ignore[union-attr]


def faces_below(folder: Path, *, strict: bool) -> list[Face]:
    """A face of each font file below a folder, by path; that for simplified Chinese of a collection.

    Raises:
        DataError: a file is damaged; where not ``strict``, it is left out.
    """
    # Debian's alternatives link a second name to a font.
    files = {path.resolve() for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()}
    return [face for path in sorted(files) if (face := _face(path, strict))]


def glyphs(face: Face, characters: str, size: int) -> Glyphs:
    """Each character as `drawn`.

    Drawn once: kept in the home folder for as long as the file and the library that draws stay as they are.
    """
    if face.path is None:
        return _drawn_anew(face, characters, size)
    status = face.path.stat()
    libraries = (PIL.__version__, features.version("freetype2"))
    key = repr((face, status.st_size, status.st_mtime_ns, characters, size, GLYPH, libraries))
    name = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    kept = Path.home() / ".cache" / "distill" / "glyphs" / f"{name}.npy"
    try:
        return np.asarray(np.load(kept, mmap_mode="r"))
    except (OSError, ValueError):
        pictures = _drawn_anew(face, characters, size)
    try:
        with replacing(kept) as part, part.open("wb") as file:
            np.save(file, pictures)
    except DistillError:  # a home that cannot be written: drawn again next time
        pass
    return pictures


def has_glyph(face: Face, character: str) -> bool:
    """Whether a face draws something for a character, and not what it draws for one that it lacks."""
    try:
        picture, absent = drawn(face, character, 32), drawn(face, ABSENT, 32)
    except DataError:
        return False
    return character.isspace() or (picture.getextrema() != (255, 255) and picture != absent)


def drawn(face: Face, character: str, size: int) -> Image.Image:
    """Black on white, grey, ``size`` pixels square, its ink in the middle.

    Raises:
        DataError: the font's file is damaged: FreeType reads a glyph when it is drawn.
    """
    picture = Image.new("L", (size, size), 255)
    try:
        font = font_of(face, round(GLYPH * size))
        left, top, right, bottom = font.getbbox(character)
        ImageDraw.Draw(picture).text(((size - left - right) / 2, (size - top - bottom) / 2), character, 0, font)
    except Exception as error:  # Pillow and FreeType fail in many ways
        code = f"U+{ord(character):04X}"
        raise DataError(f"{face} cannot draw {code} ({error}): it is damaged; replace or remove it") from None
    return picture


@lru_cache(maxsize=128)
def font_of(face: Face, pixels: int) -> Font:
    """The font of a face, ``pixels`` high."""
    # Not ImageFont.truetype: in place of a damaged file it opens a font of the system that has the same name.
    return ImageFont.FreeTypeFont(face.path, pixels, face.member) if face.path else ImageFont.load_default(pixels)


def _drawn_anew(face: Face, characters: str, size: int) -> Glyphs:
    font_of.cache_clear()  # the file may have been replaced since it was opened
    # A code point in a font's table is not yet a glyph: of SetoFont's Chinese ones, for example, hundreds are empty.
    pictures = np.stack([np.asarray(drawn(face, character, size)) for character in characters])
    absent = np.asarray(drawn(face, ABSENT, size))
    pictures[(pictures == absent).all((1, 2))] = 255
    return pictures


def _face(path: Path, strict: bool) -> Face | None:
    """The face for simplified Chinese of a collection, else the first one; None for a damaged file."""
    names: list[str] = []
    try:
        for index in count() if path.suffix.lower() == ".ttc" else (0,):
            try:
                names.append(str(ImageFont.FreeTypeFont(path, 16, index).getname()[0]))
            except OSError:
                if index == 0:
                    raise
                break
    except OSError as error:
        if strict:
            raise DataError(f"{shown(path)} is no readable font ({error}); remove it") from None
        return None
    return Face(path, next((i for i, name in enumerate(names) if name.endswith("SC")), 0))
