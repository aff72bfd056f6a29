"""From a picture to the pixels that a network reads: one object for evaluation, prediction and exported files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from distill.errors import DataError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Mode = Literal["RGB", "L"]
LARGEST = 2**15
"""Pixels of a side: beyond it a file is damaged rather than meant."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes pixels: its mode is converted, then it is resized, then its centre is cropped.

    Called with a picture, gives UInt8 pixels (channels, height, width).
    """

    mode: Mode = "RGB"
    """Colours or grey."""
    resize: int | tuple[int, int] | None = None
    """Pixels of the shorter side, or (height, width); None leaves the size as it is."""
    crop: tuple[int, int] | None = None
    """(height, width) of the centre; None keeps everything."""
    interpolation: Interpolation = "bilinear"
    """With antialiasing, as Pillow does it."""

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "channels height width"]:
        pixels: Tensor = v2.functional.pil_to_tensor(self.geometry()(picture.convert(self.mode)))
        return pixels

    def geometry(self) -> v2.Transform:
        """Resizing and cropping alone, for a picture together with its masks, boxes or flow."""
        size = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        steps: list[v2.Transform] = []
        if size is not None:
            steps.append(v2.Resize(size, InterpolationMode(self.interpolation)))
        if self.crop is not None:
            steps.append(v2.CenterCrop(list(self.crop)))
        return v2.Compose(steps or [v2.Identity()])

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads: lists for tuples, nothing that is None."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, section: Mapping[str, Any]) -> "Preprocessing":
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


def normalised(
    pixels: UInt8[np.ndarray, "batch channels height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Tensor, "batch channels height width"]:
    """(pixel / 255 - mean) / std, channel by channel."""
    values = pixels.astype(np.float32)
    values -= 255 * np.array(mean, np.float32)[:, None, None]
    values *= 1 / (255 * np.array(std, np.float32)[:, None, None])
    return torch.from_numpy(values)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_side, value))
