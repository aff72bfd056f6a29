"""Images as a teacher was trained on them, where the data's differ: other mean and standard deviation, size or colours.

The transform is a part of the teacher's network, before its first layer, so that saved, exported and copied forms of
the network contain it. Data and student are not affected.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

log = logging.getLogger(__name__)

INPUT_TRANSFORM = "own_inputs"
"""Where a network's entry keeps the settings of `InputTransform`."""


@dataclass(frozen=True)
class InputTransform:
    """A forward pre-hook: images, normalised for the data, become what the network was trained on.

    The mean and standard deviation of both are for pixels from 0 to 1, per channel.
    """

    data_mean: Sequence[float]
    data_std: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float]
    """Grey images become three equal channels where the network has three."""
    size: Sequence[int] | None = None
    """(height, width); None: as the data."""

    def __call__(self, network: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        return (self.of(*arguments),)

    def of(self, images: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        make = _channels.__wrapped__ if torch.compiler.is_compiling() or type(images) is not Tensor else _channels
        mean, std, data_mean, data_std = (
            make(tuple(values), images.device, images.dtype)
            for values in (self.mean, self.std, self.data_mean, self.data_std)
        )
        images = images * (data_std / std) + (data_mean - mean) / std
        if self.size is None:
            return images
        return F.interpolate(images, list(self.size), mode="bilinear", antialias=True)


@lru_cache
def _channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One value per channel: kept, because a copy to a GPU in every pass would wait for all work before it."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1)
