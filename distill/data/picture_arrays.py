"""Picture files as the inputs of a network that says what it reads, in NumPy."""

from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path

import numpy as np
from PIL import Image

from distill.data._scan import pictures_below
from distill.data.decoding import open_picture, shown, upright
from distill.data.info import DataInfo
from distill.data.preparation import Preparation, scaled
from distill.errors import DataError

BATCH_SIZE = 32
Picture = str | Path | Image.Image


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


def expanded(images: Sequence[Picture]) -> list[Picture]:
    """Pictures, with files in place of folders and globs.

    Raises:
        DataError: there are none.
    """
    found: list[Picture] = []
    for image in images:
        found += [image] if isinstance(image, Image.Image) else picture_files([image])
    if not found:
        raise DataError("there are no pictures to predict for")
    return found


def opened(picture: Picture) -> Image.Image:
    """A picture as a person sees it, be it a file or in memory.

    Raises:
        DataError: it is no readable picture.
    """
    return upright(picture) if isinstance(picture, Image.Image) else open_picture(picture)


def sample_array(pictures: Sequence[Picture], info: DataInfo) -> np.ndarray:
    """One sample: as many pictures as the network reads at once, prepared, normalised and stacked along channels.

    Returns:
        float32, (1, channels of all pictures, height, width).

    Raises:
        DataError: a file is no readable picture, or pictures that are read at once are of different sizes.
    """
    prepare = Preparation.of(info)
    seen = [opened(picture) for picture in pictures]
    pixels = [prepare.pixels(picture) for picture in seen]
    for picture, file, values in zip(seen, pictures, pixels, strict=True):
        if values.shape != pixels[0].shape:
            sizes = f"{_sized(pictures[0], seen[0])} and {_sized(file, picture)}"
            raise DataError(f"the network reads {info.images} pictures of one size at once, but {sizes} pixels")
    values = scaled(np.stack(pixels), info.mean, info.std)
    return values.reshape(1, -1, *values.shape[2:])


def batched_arrays(pictures: Sequence[Picture], info: DataInfo, batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
    """All samples in the order of their pictures; a sample of another size begins another batch.

    What was read before a picture that cannot be is given first.

    Raises:
        DataError: a file is no readable picture, pictures of one sample are of different sizes, or the last sample is
            not complete.
    """
    if len(pictures) % info.images:
        raise DataError(f"the network reads {info.images} pictures at once, but there are {len(pictures)}")
    waiting: list[np.ndarray] = []
    for start in range(0, len(pictures), info.images):
        try:
            inputs = sample_array(pictures[start : start + info.images], info)
        except DataError:
            if waiting:
                yield np.concatenate(waiting)
            raise
        if waiting and (len(waiting) == batch_size or waiting[0].shape != inputs.shape):
            yield np.concatenate(waiting)
            waiting = []
        waiting.append(inputs)
    if waiting:
        yield np.concatenate(waiting)


def _sized(picture: Picture, seen: Image.Image) -> str:
    name = "one" if isinstance(picture, Image.Image) else shown(picture)
    return f"{name} is of {seen.width}x{seen.height}"


def named(pictures: Sequence[Picture], info: DataInfo, predictions: Iterable[dict]) -> list[dict]:
    """Predictions, each with the first file of its sample: ``{"file": path, ...}``."""
    names = [None if isinstance(first, Image.Image) else str(first) for first in pictures[:: info.images]]
    return [
        {**({"file": name} if name else {}), **prediction} for name, prediction in zip(names, predictions, strict=True)
    ]
