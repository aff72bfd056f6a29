"""RandAugment of a batch of images in memory, each image its own: Cubuk et al., arXiv:1909.13719."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import UInt8
from numpy import ndarray
from torchvision.transforms import v2

from distill.data._loading import BatchIndices, mix
from distill.registry.ranges import Range

OPERATIONS = 2
"""For each image."""
Magnitude = Annotated[int, Range(at_least=0, at_most=30)]
"""Of 31 steps."""


@dataclass(frozen=True)
class RandAugment:
    """Two operations drawn from torchvision's fourteen; a sample's depend on (seed, epoch, sample) alone."""

    seed: int
    magnitude: int

    def __call__(
        self, images: UInt8[ndarray, "batch channels height width"], indices: BatchIndices
    ) -> UInt8[ndarray, "batch channels height width"]:
        varied = v2.RandAugment(OPERATIONS, self.magnitude)
        changed = []
        for image, sample in zip(torch.from_numpy(images), indices.samples.tolist(), strict=True):
            # torchvision draws from the global generator alone.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mix(self.seed, indices.epoch, sample, OPERATIONS))
                changed.append(varied(image))
        return torch.stack(changed).numpy()
