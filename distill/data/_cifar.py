"""CIFAR's own file format for Python: pickled dictionaries of NumPy arrays.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009; format at cs.toronto.edu/~kriz/cifar.html.
"""

import pickle
from codecs import encode
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from distill.data._find import Origin, find
from distill.data._in_memory import InMemory, Labelled
from distill.data._rand_augment import Magnitude
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Index


class _Array:
    """A pickled array of bytes. NumPy's own code takes shapes and types of a damaged file on trust, and can crash."""

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> "_Array":
        """Takes the bytes, after checking that they are as many as the shape says."""
        content = content.encode("latin1") if isinstance(content, str) else content
        if (
            not isinstance(content, bytes | bytearray)
            or not isinstance(dtype, _DType)
            or dtype.name not in ("u1", "|u1", "uint8")
        ):
            raise ValueError("an array holds no bytes")
        if not isinstance(shape, tuple) or [*map(type, shape)] != [int] * len(shape) or prod(shape) != len(content):
            raise ValueError(f"{len(content)} bytes for an array of shape {shape}")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)
        return self


class _DType:
    """The pickled type of an array."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not have."""


REBUILDS_ARRAYS = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy._core.numeric._frombuffer": lambda *parts: _Array().fill(*parts),
    "numpy._core.multiarray.scalar": lambda _, content: int.from_bytes(content, "little", signed=True),
    "_codecs.encode": encode,  # how pickle's protocol 2 spells bytes
}


class Cifar(InMemory):
    """Either of the two sets; a subclass says which."""

    title: ClassVar[str]
    reference: ClassVar[type[CIFAR10]]
    """Torchvision's own class, which knows the names of the files."""

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        batch_size: Count = 128,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        crop: Index = 4,
        flip: bool = True,
        rand_augment: Magnitude | None = None,
    ) -> None:
        train, test, class_names = read(find(origin(self.title, self.reference), root), self.reference)
        super().__init__(
            seed,
            train,
            test,
            class_names=class_names,
            batch_size=batch_size,
            val=val,
            limit=limit,
            crop=crop,
            flip=flip,
            rand_augment=rand_augment,
        )


def origin(title: str, reference: type[CIFAR10]) -> Origin:
    """Where a CIFAR set is found, by the names that torchvision gives its files."""
    return Origin(
        title=title,
        files=tuple(name for name, _ in [*reference.train_list, *reference.test_list]) + (reference.meta["filename"],),
        folders=(reference.base_folder,),
        download=reference,
        advice=f"They are in {reference.url}.",
    )


def read(folder: Path, reference: type[CIFAR10]) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """Training set, test set and class names.

    torchvision's names, but not its checksums: a small set of one's own in this format is read as well.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    meta, key = folder / reference.meta["filename"], reference.meta["key"]
    names = _unpickled(meta).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{meta} is damaged: no list of names '{key}' in it; get it again")
    train = [_read_file(folder / name, len(names)) for name, _ in reference.train_list]
    test = [_read_file(folder / name, len(names)) for name, _ in reference.test_list]
    return _joined(train), _joined(test), tuple(names)


def _joined(parts: list[Labelled]) -> Labelled:
    return Labelled(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _read_file(path: Path, classes: int) -> Labelled:
    entry = _unpickled(path)
    array, labels = entry.get("data"), entry.get("fine_labels", entry.get("labels"))
    images = array.values if isinstance(array, _Array) else None
    if images is None or images.shape[1:] != (3 * 32 * 32,):
        raise DataError(f"{path} is damaged: its 'data' are not rows of 3 x 32 x 32 bytes; get it again")
    if not isinstance(labels, list) or not 0 < len(labels) == len(images):
        raise DataError(f"{path} is damaged: no list of one label for each of its {len(images)} images; get it again")
    if wrong := [label for label in labels if label not in range(classes)]:
        raise DataError(f"{path} is damaged: label {wrong[0]} of {classes} classes; get it again")
    return Labelled(torch.from_numpy(images.reshape(-1, 3, 32, 32).copy()), torch.tensor(labels, dtype=torch.int64))


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            entry = _ArraysOnly(file, encoding="latin1").load()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; put it beside the others") from None
    except Exception as error:  # damaged bytes are arbitrary instructions to pickle, which can fail in any way
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); get it again") from None
    if not isinstance(entry, dict):
        raise DataError(f"{path} is damaged: a {type(entry).__name__}, not a dictionary; get it again")
    return entry


class _ArraysOnly(pickle.Unpickler):
    """A pickle can name any function to call; this one knows only what rebuilds arrays."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy moved to numpy._core in 2.0; files written before and after must be read by versions before and after.
        key = f"{module}.{name}".replace("numpy.core.", "numpy._core.")
        if key not in REBUILDS_ARRAYS:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', no part of a CIFAR file")
        return REBUILDS_ARRAYS[key]
