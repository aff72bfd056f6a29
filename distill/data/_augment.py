"""Random crop and mirror of a whole batch of images at once, each image its own.

Lee et al., Deeply-Supervised Nets, arXiv:1409.5185; as in He et al., arXiv:1512.03385, section 4.2.

In NumPy: torch would wake its threads for each of these small steps, which gains nothing on idle cores and was seen to
take up to thirty times as long on busy ones; and NumPy gathers windows by rows, torch by elements.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from distill.data._loading import BatchIndices, stream

Pixels = UInt8[np.ndarray, "batch channels height width"]


class Views(NamedTuple):
    """Where each sample is cropped in one epoch, and whether it is mirrored."""

    top: Int64[np.ndarray, " samples"]
    left: Int64[np.ndarray, " samples"]
    mirrored: Bool[np.ndarray, " samples"]


@dataclass(frozen=True)
class CropFlip:
    """Shifts each image by up to ``crop`` pixels, padded with black, and mirrors it with probability 1/2.

    What a sample looks like depends on (seed, epoch, sample) alone: not on its batch, its process or earlier samples.
    """

    seed: int
    samples: int
    crop: int
    flip: bool

    def __call__(self, images: Pixels, indices: BatchIndices) -> Pixels:
        chosen = indices.samples.numpy()
        views = Views(*(part[chosen] for part in draw(self.seed, indices.epoch, self.samples, self.crop)))
        if self.crop:
            images = cropped(images, views.top, views.left, self.crop)
        return mirrored(images, views.mirrored) if self.flip else images


@lru_cache(maxsize=4)  # asked for by every batch of an epoch
def draw(seed: int, epoch: int, samples: int, crop: int) -> Views:
    """The views of all samples in one epoch."""
    random = stream(seed, epoch, 1)  # the sampler shuffles by stream(seed, epoch)
    top, left = torch.randint(2 * crop + 1, (2, samples), generator=random)
    return Views(top.numpy(), left.numpy(), torch.randint(2, (samples,), generator=random).bool().numpy())


def cropped(
    images: Pixels, top: Int64[np.ndarray, " batch"], left: Int64[np.ndarray, " batch"], padding: int
) -> Pixels:
    """A window of the images' own size, at (top, left) of each image padded with black."""
    batch, channels, height, width = images.shape
    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # (batch, channels, top, left, height, width)
    return windows[np.arange(batch), :, top, left]


def mirrored(images: Pixels, which: Bool[np.ndarray, " batch"]) -> Pixels:
    """Left and right exchanged in some of the images."""
    images = images.copy()
    images[which] = images[which, ..., ::-1]
    return images
