"""Inputs for a network that says what it reads, without its data set: from picture files, or noise."""

from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from distill.batch import Batch
from distill.data._scan import pictures_below
from distill.data.decoding import open_picture
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing, normalised
from distill.errors import DataError

BATCH_SIZE = 32
Picture = str | Path | Image.Image
Inputs = Float32[Tensor, "batch channels height width"]


def picture_files(names: Iterable[str | Path]) -> list[Path]:
    """Every picture that files, folders and globs name, sorted within each; folders are searched to the bottom.

    Raises:
        DataError: one of them names nothing.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            here = pictures_below(path)
        elif path.is_file():
            here = [path]
        else:
            matches = glob(str(name), recursive=True)  # noqa: PTH207  pathlib takes no absolute patterns
            here = sorted(file for file in map(Path, matches) if file.is_file())
        if not here:
            raise DataError(f"'{name}' is no picture, no folder with pictures, and no glob that matches one")
        found += here
    return found


def sample_inputs(pictures: Sequence[Picture], info: DataInfo) -> Inputs:
    """One sample: as many pictures as the network reads at once, prepared, normalised and stacked along channels.

    Raises:
        DataError: a file is no readable picture.
    """
    defaults: dict[str, Any] = {"mode": "L" if info.channels == 1 else "RGB"}
    if not info.preprocessing:
        defaults["resize"] = list(info.image_size)
    prepare = Preprocessing.from_json({**defaults, **info.preprocessing})
    opened = [picture if isinstance(picture, Image.Image) else open_picture(picture) for picture in pictures]
    pixels = np.stack([prepare(picture).numpy() for picture in opened])
    return normalised(pixels, info.mean, info.std).flatten(0, 1)[None]


def batched_inputs(pictures: Sequence[Picture], info: DataInfo, batch_size: int = BATCH_SIZE) -> Iterator[Inputs]:
    """All samples in the order of their pictures; a sample of another size begins another batch.

    Raises:
        DataError: a file is no readable picture, or the last sample is not complete.
    """
    if len(pictures) % info.images:
        raise DataError(f"the network reads {info.images} pictures at once, but there are {len(pictures)}")
    waiting: list[Tensor] = []
    for start in range(0, len(pictures), info.images):
        inputs = sample_inputs(pictures[start : start + info.images], info)
        if waiting and (len(waiting) == batch_size or waiting[0].shape != inputs.shape):
            yield torch.cat(waiting)
            waiting = []
        waiting.append(inputs)
    if waiting:
        yield torch.cat(waiting)


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
