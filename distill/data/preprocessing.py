"""From a picture to the pixels that a network reads: one object for evaluation, prediction and exported files."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from distill.data.preparation import LARGEST, LONGEST, Interpolation, Mode, Preparation, scaled

__all__ = ["LARGEST", "Interpolation", "Mode", "Preprocessing", "normalised"]


@dataclass(frozen=True)
class Preprocessing(Preparation):
    """How a picture becomes pixels, also together with its masks, boxes or flow.

    Called with a picture, gives UInt8 pixels (channels, height, width): those of `Preparation.pixels`.
    """

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "channels height width"]:
        pixels: Tensor = v2.functional.pil_to_tensor(self.geometry()(picture.convert(self.mode)))
        return pixels

    def geometry(self) -> v2.Transform:
        """Resizing and cropping alone, for a picture together with its masks, boxes or flow."""
        size = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        steps: list[v2.Transform] = []
        if size is not None:
            longest = LONGEST if isinstance(size, int) else None
            steps.append(v2.Resize(size, InterpolationMode(self.interpolation), max_size=longest))
        if self.crop is not None:
            steps.append(v2.CenterCrop(list(self.crop)))
        return v2.Compose(steps or [v2.Identity()])


def normalised(
    pixels: UInt8[np.ndarray, "batch channels height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Tensor, "batch channels height width"]:
    """(pixel / 255 - mean) / std, channel by channel."""
    return torch.from_numpy(scaled(pixels, mean, std))
