"""Inputs for a network that says what it reads, without its data set: from picture files, or noise."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from distill.batch import Batch
from distill.data.info import DataInfo
from distill.data.picture_arrays import BATCH_SIZE, Picture, batched_arrays, picture_files
from distill.data.preprocessing import normalised

Inputs = Float32[Tensor, "batch channels height width"]


def batched_inputs(pictures: Sequence[Picture], info: DataInfo, batch_size: int = BATCH_SIZE) -> Iterator[Inputs]:
    """All samples in the order of their pictures; a sample of another size begins another batch.

    Raises:
        DataError: a file is no readable picture, or the last sample is not complete.
    """
    yield from map(torch.from_numpy, batched_arrays(pictures, info, batch_size))


def unlabelled_batches(info: DataInfo, images: Sequence[str] | None, at_most: int) -> list[Batch]:
    """Batches without labels, to check or time a network on.

    Args:
        info: what the network reads.
        images: files, folders and globs; None: noise, every pixel uniform, from a fixed seed.
        at_most: samples.
    """
    if images is None:
        noise = np.random.default_rng(0).integers(0, 256, (at_most, info.images, info.channels, *info.image_size))
        pixels = noise.astype(np.uint8).reshape(-1, info.channels, *info.image_size)
        batches = [normalised(pixels, info.mean, info.std).reshape(at_most, -1, *info.image_size)]
    else:
        files = picture_files(images)[: at_most * info.images]
        batches = list(batched_inputs(files, info))
    return [Batch(inputs, None, torch.arange(len(inputs))) for inputs in batches]
