"""From a picture to the values that a network reads, by Pillow and NumPy alone: where PyTorch is not, too."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from PIL import Image

from distill.data.info import DataInfo
from distill.errors import DataError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Mode = Literal["RGB", "L"]
P = TypeVar("P", bound="Preparation")
LARGEST = 2**15
"""Pixels of a side: beyond it a file is damaged rather than meant."""
LONGEST = 2 * LARGEST
"""Pixels of the longer side where the shorter one is resized: 5000x1 would become 1,280,000x256."""
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes pixels: its mode is converted, then it is resized, then its centre is cropped."""

    mode: Mode = "RGB"
    """Colours or grey."""
    resize: int | tuple[int, int] | None = None
    """Pixels of the shorter side, or (height, width); None leaves the size as it is."""
    crop: tuple[int, int] | None = None
    """(height, width) of the centre; None keeps everything."""
    interpolation: Interpolation = "bilinear"
    """With antialiasing, as Pillow does it."""

    @classmethod
    def of(cls: type[P], info: DataInfo) -> P:
        """What the data set's own pictures go through."""
        defaults: dict[str, Any] = {"mode": "L" if info.channels == 1 else "RGB"}
        if not info.preprocessing:
            defaults["resize"] = list(info.image_size)
        return cls.from_json({**defaults, **info.preprocessing})

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """uint8, (channels, height, width)."""
        prepared = self._cropped(self._resized(picture.convert(self.mode)))
        values = np.asarray(prepared)
        return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))

    def _resized(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        if isinstance(self.resize, tuple):
            rows, columns = self.resize
        elif self.resize is not None:
            shorter, rest = self.resize, int(self.resize * max(width, height) / min(width, height))
            if rest > LONGEST:
                shorter, rest = max(1, int(LONGEST * shorter / rest)), LONGEST
            rows, columns = (shorter, rest) if height <= width else (rest, shorter)
        else:
            return picture
        same = (columns, rows) == picture.size
        return picture if same else picture.resize((columns, rows), FILTERS[self.interpolation])

    def _cropped(self, picture: Image.Image) -> Image.Image:
        """The centre; what is smaller gets black borders first."""
        if self.crop is None:
            return picture
        rows, columns = self.crop
        wide = Image.new(picture.mode, (max(picture.width, columns), max(picture.height, rows)))
        wide.paste(picture, (max(columns - picture.width, 0) // 2, max(rows - picture.height, 0) // 2))
        left, top = round((wide.width - columns) / 2), round((wide.height - rows) / 2)
        return wide.crop((left, top, left + columns, top + rows))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads: lists for tuples, nothing that is None."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls: type[P], section: Mapping[str, Any]) -> P:
        """The inverse of `to_json`.

        Raises:
            DataError: an unknown key, or a value that is out of range.
        """
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in section.items()
        }
        valid = {
            "mode": lambda value: value in get_args(Mode),
            "resize": lambda value: _is_side(value) or _is_size(value),
            "crop": _is_size,
            "interpolation": lambda value: value in get_args(Interpolation),
        }
        for key, value in known.items():
            if key not in valid or not valid[key](value):
                raise DataError(f"preprocessing {key}={value!r} is unknown or out of range")
        return cls(**known)


def scaled(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(pixel / 255 - mean) / std, channel by channel, float32: of (..., channels, height, width)."""
    values = pixels.astype(np.float32)
    values -= 255 * np.array(mean, np.float32)[:, None, None]
    values *= 1 / (255 * np.array(std, np.float32)[:, None, None])
    return values


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_side, value))
