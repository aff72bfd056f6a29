"""Distortions of written characters: black on white, grey.

Of a whole batch at once: a picture at a time, they would take longer than a small network's training on them.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torchvision.transforms import v2

from distill.data._augment import Pixels
from distill.data._loading import BatchIndices, stream

DEGREES, SHIFT, SCALE = 10, 0.1, 0.1
"""Largest angle of turning and of shearing; largest shift, as a share of the side; largest change of size."""
POINTS, ELASTIC = 5, 0.05
"""Points along a side that an elastic distortion moves; by what standard deviation, in halves of the side."""
NOISE, FAINTEST = 20, 0.5
"""Largest standard deviation of noise, in grey levels; least contrast."""
BANK = 2**16
"""Places in one long row of noise where a picture's own may begin."""


def affine() -> v2.Transform:
    """Turns, shifts, scales and shears one picture; white moves in."""
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.RandomAffine(DEGREES, (SHIFT, SHIFT), (1 - SCALE, 1 + SCALE), DEGREES, interpolation=bilinear, fill=255)


class Distortions(NamedTuple):
    """What happens to each sample in one epoch."""

    stroke: Int64[Tensor, " samples"]
    """0: thickened by half a pixel on each side; 1: thinned by as much; 2 and 3: as it is."""
    affine: Float32[Tensor, "samples 2 3"]
    """Where each point of the distorted picture comes from, both from -1 to 1."""
    elastic: Float32[Tensor, "samples 2 points points"]
    contrast: Float32[Tensor, " samples"]
    deviation: Float32[Tensor, " samples"]
    noise: Int64[Tensor, " samples"]
    """Where in the row of noise the sample's own begins."""


@dataclass(frozen=True)
class Distort:
    """Turned, shifted, scaled, sheared, bent, thickened or thinned, made fainter, with noise: each picture its own way.

    What a sample looks like depends on (seed, epoch, sample) alone. Elastic distortions: Simard, Steinkraus, Platt,
    Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis, ICDAR 2003.
    """

    seed: int
    samples: int
    epoch: int | None = None
    """Of which samples look the same in all epochs."""

    def __call__(self, images: Pixels, indices: BatchIndices) -> Pixels:
        epoch = indices.epoch if self.epoch is None else self.epoch
        drawn = draw(self.seed, epoch, self.samples)
        one = Distortions(*(part[indices.samples] for part in drawn))
        ink = _restroked(255 - torch.from_numpy(images).float(), one.stroke)
        size = images.shape[2:]
        bent = F.interpolate(one.elastic, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        grid = F.affine_grid(one.affine, [len(images), 1, *size], align_corners=False) + bent
        ink = F.grid_sample(ink, grid, align_corners=False)  # without ink where the grid leaves the picture
        noise = _noise(self.seed, epoch, math.prod(size))[one.noise.numpy()].reshape(images.shape)
        ink = ink * one.contrast.view(-1, 1, 1, 1) + one.deviation.view(-1, 1, 1, 1) * torch.from_numpy(noise)
        return (255 - ink).round().clamp(0, 255).to(torch.uint8).numpy()


@lru_cache(maxsize=4)  # asked for by every batch of an epoch
def draw(seed: int, epoch: int, samples: int) -> Distortions:
    """The distortions of all samples in one epoch."""
    random = stream(seed, epoch, 1)  # the sampler shuffles by stream(seed, epoch)
    angle, shear, scale, *shift = 2 * torch.rand(5, samples, generator=random) - 1
    angle, shear = angle * math.radians(DEGREES), (shear * math.radians(DEGREES)).tan()
    cos, sin, scale = angle.cos(), angle.sin(), 1 + SCALE * scale
    across, down = (2 * SHIFT * part for part in shift)
    rows = (cos, cos * shear - sin, across, sin, sin * shear + cos, down)
    return Distortions(
        torch.randint(4, (samples,), generator=random),
        torch.stack([part / scale for part in rows], 1).view(-1, 2, 3),
        ELASTIC * torch.randn(samples, 2, POINTS, POINTS, generator=random),
        FAINTEST + (1 - FAINTEST) * torch.rand(samples, generator=random),
        NOISE * torch.rand(samples, generator=random),
        torch.randint(BANK, (samples,), generator=random),
    )


@lru_cache(maxsize=4)
def _noise(seed: int, epoch: int, pixels: int) -> Float32[np.ndarray, "bank pixels"]:
    """Standard normal noise for pictures, by where it begins in one long row."""
    row = torch.randn(BANK + pixels - 1, generator=stream(seed, epoch, 2))
    return sliding_window_view(row.numpy(), pixels)


def _restroked(
    ink: Float[Tensor, "batch 1 height width"], stroke: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch 1 height width"]:
    thick, thin = stroke == 0, stroke == 1
    ink = ink.clone()
    ink[thick] = (ink[thick] + F.max_pool2d(ink[thick], 3, 1, 1)) / 2
    ink[thin] = (ink[thin] - F.max_pool2d(-ink[thin], 3, 1, 1)) / 2
    return ink
