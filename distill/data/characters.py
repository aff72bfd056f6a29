"""Printed characters drawn from fonts: Latin letters with Pillow's own font, Chinese ones with those of the system."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distill.data import data
from distill.data._distort import distortions
from distill.data._sample_data import SampleData
from distill.data._samples import Sample
from distill.data._scan import check_once
from distill.data._split import shuffled
from distill.data.decoding import shown
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing
from distill.errors import DataError, RecipeError
from distill.registry.ranges import Count, HeldOut, Index

SYSTEM_FONTS = Path("/usr/share/fonts")
ENDINGS = (".ttf", ".otf", ".ttc")
ABSENT = "\U0010ffff"
"""A code point that no font has a glyph for: what it looks like shows which other ones are absent."""
GLYPH = 0.78
"""Height of a glyph's em square, as a share of the picture's side."""
Set = Literal["latin", "gb2312_500", "gb2312_3755"]


class Face(NamedTuple):
    """One font of a file; Pillow's own without a path."""

    path: Path | None = None
    member: int = 0
    """Of a collection of fonts."""


@dataclass(frozen=True)
class Glyphs:
    """Every character in every face, ``copies`` times: black on white, in the middle of a square."""

    faces: Sequence[Face]
    characters: str
    copies: int
    size: int

    @property
    def classes(self) -> Int64[Tensor, " samples"]:
        return torch.arange(len(self)) % len(self.characters)

    def __len__(self) -> int:
        return len(self.faces) * len(self.characters) * self.copies

    def read(self, position: int) -> Sample:
        label = position % len(self.characters)
        face = self.faces[position // len(self.characters) % len(self.faces)]
        return Sample((drawn(face, self.characters[label], self.size),), label)

    def identity(self, position: int) -> bytes:
        face = self.faces[position // len(self.characters) % len(self.faces)]
        size = face.path.stat().st_size if face.path else 0
        return f"{face} {size} {self.characters[position % len(self.characters)]} {self.size}".encode()

    def check(self, position: int) -> None:
        """Raises: DataError: the face has no glyph for the character, or an empty one."""
        character = self.characters[position % len(self.characters)]
        face = self.faces[position // len(self.characters) % len(self.faces)]
        picture = drawn(face, character, self.size)
        if picture.getextrema() == (255, 255) or picture == drawn(face, ABSENT, self.size):
            raise DataError(f"{shown(face.path or 'the font of Pillow')} has no glyph for '{character}'; remove it")


@data("characters")
class Characters(SampleData):
    """The characters of a set, each drawn ``copies`` times in each font and distorted anew in every epoch: turned,
    shifted, scaled, sheared, bent, thickened, with noise. ``distort_test`` distorts those of the test set, too, always
    the same way: undistorted ones are too easy to tell networks apart.

    ``latin`` are the 52 letters, in the font that comes with Pillow; ``gb2312_3755`` the Chinese characters of level 1
    of GB 2312, ``gb2312_500`` the first 500 of them, in the fonts of ``root`` or of the system that have them all.
    Whole fonts are held out as the test set where there are at least two.
    """

    def __init__(
        self,
        seed: int,
        *,
        set: Set = "latin",
        root: Path | None = None,
        copies: Count = 20,
        distort: bool = True,
        distort_test: bool = True,
        batch_size: Count = 64,
        val: HeldOut = 0.1,
        test: HeldOut = 0.2,
        limit: Count | None = None,
        image_size: Count = 32,
        workers: Index = 2,
    ) -> None:
        if image_size < 16:
            raise RecipeError(f"data.image_size={image_size}: characters need at least 16 pixels")
        characters, faces = characters_of(set), _faces(root, set)
        whole = Glyphs(faces, characters, 1, image_size)
        files = sorted({face.path for face in faces if face.path})
        # FreeType's faces are not for several threads at once.
        check_once(f"glyphs of {set} at {image_size}", range(len(whole)), whole.check, files, threads=1)
        order = shuffled(len(faces), None).tolist()
        held_out = min(max(1, round(test * len(faces))), len(faces) - 1)
        trained, tested = sorted(order[held_out:]), sorted(order[:held_out]) or [0]
        size = (image_size, image_size)
        steps = distortions(image_size)
        preprocessing = Preprocessing("L", size).to_json()
        super().__init__(
            seed,
            {
                "train": Glyphs([faces[i] for i in trained], characters, copies, image_size),
                "test": Glyphs([faces[i] for i in tested], characters, copies if distort_test else 1, image_size),
            },
            info=DataInfo(1, size, (0.9,), (0.25,), tuple(characters), preprocessing=preprocessing),
            augmentation=steps if distort else (),
            evaluation=steps if distort_test else (),
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def characters_of(name: Set) -> str:
    """The characters of a set, in the order of their codes."""
    if name == "latin":
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    # Level 1 of GB 2312: rows B0 to D7, of which the last one ends at F9.
    codes = [bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFA if row == 0xD7 else 0xFF)]
    return b"".join(codes[: int(name.removeprefix("gb2312_"))]).decode("gb2312")


def drawn(face: Face, character: str, size: int) -> Image.Image:
    """Black on white, grey, ``size`` pixels square, its ink in the middle."""
    font = _font(face, round(GLYPH * size))
    picture = Image.new("L", (size, size), 255)
    left, top, right, bottom = font.getbbox(character)
    ImageDraw.Draw(picture).text(((size - left - right) / 2, (size - top - bottom) / 2), character, 0, font)
    return picture


@lru_cache(maxsize=128)
def _font(face: Face, pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Not ImageFont.truetype: in place of a damaged file it opens a font of the system that has the same name.
    return ImageFont.FreeTypeFont(face.path, pixels, face.member) if face.path else ImageFont.load_default(pixels)


def _faces(root: Path | None, name: Set) -> list[Face]:
    """The fonts to draw with.

    Raises:
        DataError: there are none; the message says how to get some.
    """
    if root is None and name == "latin":
        return [Face()]
    folder = (root or SYSTEM_FONTS).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [face for path in files if (face := _face(path, strict=root is not None))]
    if root is None:
        found = [face for face in found if _has(face, characters_of(name))]
    if not found:
        advice = "" if root else "; Debian and Ubuntu have some: apt install fonts-noto-cjk fonts-wqy-zenhei"
        raise DataError(f"no fonts for data.set={name} in {shown(folder)} (data.root){advice}")
    return found


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


def _has(face: Face, characters: str) -> bool:
    """Whether a face has the first, the last and some other of these characters: the others are checked later."""
    absent = drawn(face, ABSENT, 32)
    return all(drawn(face, character, 32) != absent for character in characters[:: len(characters) // 7])
