"""Printed characters drawn from fonts: Latin letters with Pillow's own font, Chinese ones with those of the system."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from distill.data import data
from distill.data._distort import Distort
from distill.data._images import ImageData
from distill.data._in_memory import Labelled, Store
from distill.data._split import shuffled, split
from distill.data.decoding import shown
from distill.data.fonts import SYSTEM_FONTS, Face, Glyphs, faces_below, glyphs, has_glyph
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing
from distill.errors import DataError, RecipeError
from distill.registry.ranges import BelowOne, Count, Probability

MEAN, STD = (0.9,), (0.25,)
Set = Literal["latin", "gb2312_500", "gb2312_3755"]


@data("characters")
class Characters(ImageData):
    """The characters of a set, each drawn ``copies`` times in each font and distorted anew in every epoch: turned,
    shifted, scaled, sheared, bent, thickened, with noise. ``distort_test`` distorts those held out for validation and
    the test set, too, always the same way: undistorted ones are too easy to tell networks apart.

    ``latin`` are the 52 letters, in the font that comes with Pillow; ``gb2312_3755`` the Chinese characters of level 1
    of GB 2312, ``gb2312_500`` the first 500 of them, in the fonts of ``root`` or of the system. A font may lack
    ``missing`` of a set, which it is then not drawn with; one of the system that lacks more is not used.

    The test set is drawn with fonts of other families than the training set, where there are two: those whose files
    match a glob of ``held_out``, or ``test`` of all families. All is kept in memory, a byte for each pixel.
    """

    def __init__(
        self,
        seed: int,
        *,
        set: Set = "latin",
        root: Path | None = None,
        held_out: list[str] | None = None,
        missing: Probability = 0.0,
        copies: Count = 20,
        distort: bool = True,
        distort_test: bool = True,
        batch_size: Count = 64,
        val: BelowOne = 0.1,
        test: BelowOne = 0.2,
        limit: Count | None = None,
        image_size: Count = 32,
    ) -> None:
        if image_size < 16:
            raise RecipeError(f"data.image_size={image_size}: characters need at least 16 pixels")
        characters, size = characters_of(set), (image_size, image_size)
        faces = _faces(root, set, image_size, missing)
        trained, tested = _parted([*faces], held_out, test)
        training = _labelled([faces[face] for face in trained], copies)
        testing = _labelled([faces[face] for face in tested], copies if distort_test else 1)
        for_training, for_validation = split(shuffled(len(training.labels), training.labels), limit, val)

        def store(part: Labelled, chosen: Int64[Tensor, " chosen"], distorted: bool, **seeds: int) -> Store:
            augment = (Distort(samples=len(chosen), **seeds),) if distorted else ()
            return Store(part.images[chosen], part.labels[chosen], MEAN, STD, augment)

        super().__init__(
            seed,
            store(training, for_training, distort, seed=seed),
            store(training, for_training, False),
            store(training, for_validation, distort_test, seed=0, epoch=0),
            store(testing, torch.arange(len(testing.labels)), distort_test, seed=1, epoch=0),
            info=DataInfo(1, size, MEAN, STD, tuple(characters), preprocessing=Preprocessing("L", size).to_json()),
            batch_size=batch_size,
        )


def characters_of(name: Set) -> str:
    """The characters of a set, in the order of their codes."""
    if name == "latin":
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    # Level 1 of GB 2312: rows B0 to D7, of which the last one ends at F9.
    codes = [bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFA if row == 0xD7 else 0xFF)]
    return b"".join(codes[: int(name.removeprefix("gb2312_"))]).decode("gb2312")


def _faces(root: Path | None, name: Set, size: int, missing: float) -> dict[Face, Glyphs]:
    """The fonts to draw with, and what they draw.

    Raises:
        DataError: there are none; the message says how to get some. Or one of ``root`` is damaged or lacks characters.
    """
    characters = characters_of(name)
    if root is None and name == "latin":
        return {Face(): glyphs(Face(), characters, size)}
    folder = (root or SYSTEM_FONTS).expanduser()
    faces = {}
    for face in faces_below(folder, strict=root is not None):
        if root is None and not any(has_glyph(face, one) for one in characters[:: len(characters) // 7]):
            continue  # a font of another script
        try:
            pictures = glyphs(face, characters, size)
        except DataError:
            if root is None:
                continue
            raise
        lacking = [c for c, there in zip(characters, _inked(pictures), strict=True) if not there]
        if len(lacking) <= missing * len(characters):
            faces[face] = pictures
        elif root is not None:
            lack = f"has no glyph for '{lacking[0]}' (U+{ord(lacking[0]):04X})"
            others = f" and {len(lacking) - 1:,} other characters" if len(lacking) > 1 else ""
            raise DataError(f"{face} {lack}{others} of data.set={name}; remove it, or raise data.missing")
    if not faces:
        advice = "" if root else "; Debian and Ubuntu have some: apt install fonts-noto-cjk fonts-wqy-zenhei"
        raise DataError(f"no fonts for data.set={name} in {shown(folder)} (data.root){advice}")
    return faces


def _parted(faces: list[Face], held_out: list[str] | None, test: float) -> tuple[list[Face], list[Face]]:
    """The faces to train and to test with: of no family in common, except where there is one family alone.

    Of a family that ``held_out`` names in part, the rest is left out.
    """
    families = {face: face.family for face in faces}
    if held_out is None:
        names = sorted({*families.values()})
        order = shuffled(len(names), None).tolist()[: min(max(1, round(test * len(names))), len(names) - 1)]
        tested = [face for face in faces if families[face] in {names[i] for i in order}]
    else:
        for glob in held_out:
            if not any(_matches(face, glob) for face in faces):
                raise RecipeError(f"data.held_out: none of the {len(faces)} fonts is called {glob}; is it installed?")
        tested = [face for face in faces if any(_matches(face, glob) for glob in held_out)]
    families_tested = {families[face] for face in tested}
    trained = [face for face in faces if families[face] not in families_tested]
    if held_out and not trained:
        raise RecipeError("data.held_out: no family of fonts is left to train on")
    return trained, tested or trained


def _matches(face: Face, glob: str) -> bool:
    return face.path is not None and fnmatchcase(face.path.name, glob)


def _labelled(faces: Sequence[Glyphs], copies: int) -> Labelled:
    """All glyphs that there are, ``copies`` times."""
    inked = [_inked(pictures) for pictures in faces]
    images = np.concatenate([pictures[there] for pictures, there in zip(faces, inked, strict=True)] * copies)
    labels = np.concatenate([np.flatnonzero(there) for there in inked] * copies)
    return Labelled(torch.from_numpy(images)[:, None], torch.from_numpy(labels))


def _inked(pictures: Glyphs) -> Bool[np.ndarray, " characters"]:
    return np.asarray((pictures < 255).any((1, 2)))
