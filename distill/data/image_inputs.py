"""Inputs for a network that says what it reads, without its data set: from picture files with labels or without, or
noise."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from distill.batch import Batch
from distill.data._scan import pictures_below, subfolders
from distill.data.info import DataInfo
from distill.data.picture_arrays import BATCH_SIZE, Picture, batched_arrays, picture_files
from distill.data.preprocessing import normalised
from distill.errors import DataError
from distill.registry.nearest import did_you_mean

Inputs = Float32[Tensor, "batch channels height width"]


class ImageInputs(NamedTuple):
    """Inputs in the order of their files' names."""

    images: Tensor
    """(images, channels, height, width), as the network reads them."""
    labels: Tensor | None
    """(images,) class indices."""


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


def read_inputs(
    folder: Path, info: DataInfo, *, order: str = "rgb", labels: str | None = None, limit: int = 512
) -> ImageInputs:
    """Every picture in a folder and in those below it, resized to the network's input.

    Args:
        folder: where pictures lie; where a sample has two, neighbours in the order of their names.
        info: what images the network reads.
        order: of channels; ``bgr`` where blue is the first.
        labels: ``folders``: folders are classes, by the network's names for them, or where it has none, in the order
            of their names; or a file with a line for each picture, its path below ``folder`` and its class, as Caffe
            has such lists.
        limit: samples that are read at most, evenly spread.

    Raises:
        DataError: no folder, no pictures, one that cannot be read or has no label, or a sample that is not complete.
    """
    if not folder.is_dir():
        raise DataError(f"no folder '{folder}'")
    files = pictures_below(folder)
    if not files:
        raise DataError(f"{folder} holds no pictures")
    if info.channels not in (1, 3):
        raise DataError(f"the network reads {info.channels} channels, but pictures have 1 or 3")
    if labels and info.images > 1:
        raise DataError(f"the network reads {info.images} pictures at once, and labels are for one: leave --labels out")
    samples = [files[start : start + info.images] for start in range(0, len(files), info.images)]
    count = min(limit, len(samples))
    files = [file for k in range(count) for file in samples[len(samples) * k // count]]
    info = info.resized()
    if order == "bgr":
        info = replace(info, mean=info.mean[::-1], std=info.std[::-1])
    images = torch.cat(list(batched_inputs(files, info)))
    classes = torch.tensor(list(_labels(folder, files, labels, info.class_names))) if labels else None
    if order == "bgr":
        images = images.unflatten(1, (info.images, info.channels)).flip(2).flatten(1, 2)
    return ImageInputs(images, classes)


def _labels(folder: Path, files: Sequence[Path], labels: str, class_names: Sequence[str]) -> Iterator[int]:
    if labels == "folders":
        names = class_names or [path.name for path in subfolders(folder)]
        index = {name: position for position, name in enumerate(names)}
        for file in files:
            if len(parts := file.relative_to(folder).parts) < 2:
                raise DataError(f"{file} lies in no folder of a class: put it in one, or give --labels FILE")
            if parts[0] not in index:
                hint = did_you_mean(parts[0], names)
                raise DataError(f"rename folders of {folder}, or give --labels FILE: the network has no class {hint}")
            yield index[parts[0]]
        return
    listed = _listed(Path(labels))
    for file in files:
        name = file.relative_to(folder).as_posix()
        if name not in listed:
            raise DataError(f"{labels} has no line for '{name}': write 'PATH CLASS'")
        yield listed[name]


def _listed(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels in {path}: {error}") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name, _, label = line.strip().rpartition(" ")
            if not label.isdecimal() or not name:
                raise DataError(f"{path}, line {number}: '{line.strip()[:60]}' is not of the form 'PATH CLASS'")
            found[name] = int(label)
    return found
