"""Pictures of one folder as inputs of a finished network, with labels or without."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from distill.data._scan import pictures_below, subfolders
from distill.data.decoding import open_picture
from distill.data.info import DataInfo
from distill.data.preprocessing import Mode, Preprocessing, normalised
from distill.errors import DataError


class ImageInputs(NamedTuple):
    """Inputs in the order of their files' names."""

    images: Tensor
    """(images, channels, height, width), as the network reads them."""
    labels: Tensor | None
    """(images,) class indices."""


def read_inputs(
    folder: Path, info: DataInfo, *, order: str = "rgb", labels: str | None = None, limit: int = 512
) -> ImageInputs:
    """Every picture in a folder and in those below it, resized to the network's input.

    Args:
        folder: where pictures lie.
        info: what images the network reads.
        order: of channels; ``bgr`` where blue is the first.
        labels: ``folders``: folders are classes, numbered in the order of their names; or a file with a line for each
            picture, its path below ``folder`` and its class, as Caffe has such lists.
        limit: pictures that are read at most, evenly spread.

    Raises:
        DataError: no folder, no pictures, one that cannot be read, or one without a label.
    """
    if not folder.is_dir():
        raise DataError(f"no folder '{folder}'")
    files = pictures_below(folder)
    if not files:
        raise DataError(f"{folder} holds no pictures")
    files = [files[len(files) * k // min(limit, len(files))] for k in range(min(limit, len(files)))]
    if info.channels not in (1, 3) or info.images != 1:
        raise DataError(f"the network reads {info.channels * info.images} channels, but pictures have 1 or 3")
    mode: Mode = "L" if info.channels == 1 else "RGB"
    written = Preprocessing.from_json(info.preprocessing)
    prepare = replace(written, mode=mode) if written.resize else Preprocessing(mode, resize=info.image_size)
    pixels = torch.stack([prepare(open_picture(path)) for path in files])
    pixels = pixels.flip(1) if order == "bgr" else pixels
    classes = torch.tensor(list(_labels(folder, files, labels))) if labels else None
    return ImageInputs(normalised(pixels.numpy(), info.mean, info.std), classes)


def _labels(folder: Path, files: Sequence[Path], labels: str) -> Iterator[int]:
    if labels == "folders":
        index = {path.name: position for position, path in enumerate(subfolders(folder))}
        for file in files:
            if len(parts := file.relative_to(folder).parts) < 2:
                raise DataError(f"{file} lies in no folder of a class: put it in one, or give --labels FILE")
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
