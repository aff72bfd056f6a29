"""Picture files, upright and in 8 bits: decoded as a person sees them, or refused."""

import os
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from distill.errors import DataError

ORIENTATION: Final = 0x0112
"""The Exif tag that says how the camera was held: Exif 2.32, section 4.6.4 A."""
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS: Final = (5, 6, 7, 8)
"""Orientations that exchange height and width."""
STILL: Final = ("MPO", "PSD")
"""Formats whose first frame is the whole picture: phones store a depth map or a second eye after it, PSD its layers."""
WIDTH, HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 256, 257, 258, 262, 339
"""TIFF tags. Photometric 0: white is zero, sample format 2: signed. TIFF 6.0, sections 8 and 19."""
ENDS: Final = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How JPEG and PNG files begin, and what stands among their last bytes, of which some programs write a few more."""
TAIL: Final = 1024
UINT16, UINT32 = 2**16 - 1, 2**32 - 1


def open_picture(path: str | Path, *, side: int | None = None) -> Image.Image:
    """The picture in a file, in mode RGB, or L where it is grey.

    It is `upright`.

    Args:
        path: of the file.
        side: pixels of the shorter side that suffice: a large JPEG is decoded at a half, a quarter or an eighth of its
            size, which takes less time.

    Raises:
        DataError: the file is missing, damaged, an animation, or holds values without a defined black and white.
    """
    try:
        with Image.open(path) as file:
            _refuse_frames(file, path)
            if side is not None:
                file.draft(None, (side, side))
            return upright(file)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers of damaged files fail in many ways
        raise DataError(f"{shown(path)} is no readable picture ({_reason(error)}); replace or remove it") from None


def upright(picture: Image.Image) -> Image.Image:
    """A picture as a person sees it, in mode RGB, or L where it is grey.

    It is turned as its Exif orientation says. Values of 16 and 32 bits are scaled by the range of their type, floats by
    the range from 0 to 1; transparent pixels show white behind them.

    Raises:
        DataError: it holds values without a defined black and white.
    """
    picture.load()  # an orientation may stand behind the pixels
    seen, held = _opaque(picture), orientation(picture)
    seen.info = {}  # a picture that is upright already must not be turned again
    return seen.transpose(UPRIGHT[held]) if held in UPRIGHT else seen


def check_picture(path: str | Path) -> None:
    """See that a file is one whole picture, as `picture_size` does.

    Raises:
        DataError: it is missing, cut off, no picture or an animation.
    """
    picture_size(path)


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the first bytes of its file.

    Its last bytes are read, too, to see that the file is whole, and all of it where they do not tell.

    Raises:
        DataError: it is missing, cut off, no picture or an animation.
    """
    size = _header_size(path)
    if not _ends(path):
        open_picture(path)
    return size


def _header_size(path: str | Path) -> tuple[int, int]:
    try:
        with Image.open(path) as file:
            _refuse_frames(file, path)
            stored = getattr(file, "tag_v2", {})  # Pillow 11 and later exchange the sides of a TIFF themselves
            width, height = stored.get(WIDTH, file.width), stored.get(HEIGHT, file.height)
            return (width, height) if _is_sideways(file) else (height, width)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{shown(path)} is no readable picture ({_reason(error)}); replace or remove it") from None


def check_size(path: Path, found: tuple[int, ...], needed: tuple[int, ...], whose: str) -> None:
    """Whether a picture is of the size that its labels are for.

    Args:
        path: of the picture.
        found: (height, width) of the picture, upright.
        needed: (height, width) of its labels.
        whose: what comes before the size of the labels in the message.

    Raises:
        DataError: it is of another size; the message says so where that comes of its Exif orientation.
    """
    if found == needed:
        return
    size, other = (f"{width}x{height}" for height, width in (found, needed))
    advice = ""
    with Image.open(path) as file:
        if found == needed[::-1] and _is_sideways(file):
            advice = ", its size without its Exif orientation: remove that from the file, or turn the labels"
    raise DataError(f"{shown(path)} is of {size} pixels, but {whose} {other}{advice}")


def shown(path: str | bytes | Path) -> str:
    """A path as text that can be printed, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _refuse_frames(file: Image.Image, path: str | Path) -> None:
    if file.format not in STILL and getattr(file, "is_animated", False):
        frames = getattr(file, "n_frames", "several")
        raise DataError(f"{shown(path)} holds {frames} frames, not one picture; keep one of them")


def _ends(path: str | Path) -> bool:
    """Whether the end of a file is that of a JPEG, PNG or WebP; of other formats nothing is known."""
    with Path(path).open("rb") as file:
        head, size = file.read(12), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 <= size
    return any(head.startswith(magic) and end in tail for magic, end in ENDS.items())


def orientation(file: Image.Image) -> int | None:
    """How the camera was held, as Exif says; None where it does not."""
    try:
        return file.getexif().get(ORIENTATION)
    except Exception:  # damaged Exif data says nothing about the pixels
        return None


def _is_sideways(file: Image.Image) -> bool:
    # Pillow reads a whole PNG in search of an orientation that stands behind the pixels.
    return (file.format != "PNG" or "exif" in file.info) and orientation(file) in SIDEWAYS


def _opaque(file: Image.Image) -> Image.Image:
    """The picture in mode RGB or L, over white."""
    if file.mode == "F" or file.mode.startswith("I"):
        return _in_bytes(file)
    grey = file.mode in ("1", "L", "La", "LA")
    if not file.has_transparency_data:
        return file.convert("L" if grey else "RGB")
    layered = file.convert("LA" if grey else "RGBA")
    picture = Image.new("L" if grey else "RGB", file.size, "white")
    picture.paste(layered.convert(picture.mode), mask=layered.getchannel("A"))
    return picture


def _in_bytes(file: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits, scaled to 8."""
    name, values, white = _name(file), np.asarray(file), _white(file)
    if white == UINT32:
        values = values.view(np.uint32)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # also where one of them is NaN
        raise DataError(f"{name} holds values from {low} to {high}, but black is 0 and white {white}: scale them")
    if white > UINT16 and 0 < high <= UINT16:
        raise DataError(f"{name} holds values up to {high}, but white is {white}: save it with 8 or 16 bits")
    scaled = (values * (255.0 / white)).round().astype(np.uint8)
    tags = getattr(file, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == 0:
        scaled = 255 - scaled
    if (transparent := file.info.get("transparency")) is not None:
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def _white(file: Image.Image) -> int:
    """The largest value of the type that the file stores."""
    if file.mode == "F":
        return 1
    if tags := getattr(file, "tag_v2", None):
        signed = tags.get(SAMPLE_FORMAT, (1,))[0] == 2
        return 2 ** (tags[BITS_PER_SAMPLE][0] - signed) - 1
    if file.mode != "I" or file.format == "PPM":  # Pillow scales every PGM of more than 8 bits to 16
        return UINT16
    raise DataError(f"{_name(file)} holds integers of 32 bits without a defined white; save it with 8 or 16")


def _name(picture: Image.Image) -> str:
    return shown(getattr(picture, "filename", "") or "a picture in memory")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
