"""Tiny data sets in the real ones' file formats."""

import gzip
import pickle
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHARACTERS = "啊一的"


def pixels(samples: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(0, 256, (samples, *shape), dtype=np.uint8)


def numbers(samples: int, classes: int) -> list[int]:
    return [sample % classes for sample in range(samples)]


def write_idx(path: Path, array: np.ndarray) -> None:
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def mnist(folder: Path, train: int = 40, test: int = 20, *, suffix: str = ".gz") -> Path:
    """The four files of MNIST or Fashion-MNIST, 28x28."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, samples in {"train": train, "t10k": test}.items():
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", pixels(samples, 28, 28))
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.array(numbers(samples, 10), np.uint8))
    return folder


def cifar10(root: Path, train: int = 50, test: int = 20, *, protocol: int = 2) -> Path:
    """``cifar-10-batches-py`` in a folder: five training batches, a test batch, names."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]:
        samples = test if name == "test_batch" else train // 5
        pickled(folder / name, {"data": pixels(samples, 3072), "labels": numbers(samples, 10)}, protocol)
    pickled(folder / "batches.meta", {"label_names": [f"thing {label}" for label in range(10)]}, protocol)
    return root


def cifar100(root: Path, train: int = 200, test: int = 100, *, protocol: int = 2) -> Path:
    """``cifar-100-python`` in a folder."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in {"train": train, "test": test}.items():
        entry = {"data": pixels(samples, 3072), "fine_labels": numbers(samples, 100), "coarse_labels": [0] * samples}
        pickled(folder / name, entry, protocol)
    pickled(folder / "meta", {"fine_label_names": [f"thing {label}" for label in range(100)]}, protocol)
    return root


def pickled(path: Path, content: Any, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


def pictures(
    root: Path, parts: Sequence[str] = ("train", "val"), classes: Sequence[str] = ("cat", "dog"), each: int = 5
) -> Path:
    """JPEG files of uneven sizes in ``root/<part>/<class>``."""
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(each):
                image = Image.fromarray(pixels(40 + number, 50, 3))
                image.save(root / part / name / f"{number}.jpg")
    return root


def plain_pictures(root: Path, samples: int = 20) -> Path:
    """PNG files of uneven sizes, in ``root`` and a folder below."""
    (root / "below").mkdir(parents=True)
    for number in range(samples):
        folder = root / "below" if number % 2 else root
        Image.fromarray(pixels(40 + number, 50, 3)).save(folder / f"{number}.png")
    return root


def masks(root: Path, samples: int = 20, classes: int = 3) -> Path:
    """``root/images/<number>.png`` of 50 times the class that ``root/masks/<number>.png`` says, white where it says
    255: none.
    """
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(samples):
        mask = np.random.default_rng(number).integers(0, classes, (5, 6), np.uint8).repeat(8, 0).repeat(8, 1)
        mask[:, -8:] = 255
        image = np.stack([np.where(mask == 255, 255, 50 * mask)] * 3, -1).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def voc_masks(root: Path, samples: int = 20) -> Path:
    """The folders of VOC for segmentation: palette masks of three classes and 255, a quarter in the list "val"."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number in range(samples):
        values = np.random.default_rng(number).choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))
        mask = Image.fromarray(values.repeat(10, 0).repeat(10, 1))
        mask.putpalette(bytes(768))
        mask.save(root / f"SegmentationClass/{number:06}.png")
        Image.fromarray(pixels(60, 80, 3)).save(root / f"JPEGImages/{number:06}.jpg")
    names, held_out = [f"{number:06}" for number in range(samples)], samples // 4
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[held_out:]))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[:held_out]))
    return root


def handwriting(samples: int) -> Iterator[tuple[str, np.ndarray]]:
    """Characters and grey pixels of uneven sizes."""
    for number in range(samples):
        yield CHARACTERS[number % len(CHARACTERS)], pixels(20 + number % 7, 18 + number % 5)


def gnt(root: Path, train: int = 40, test: int = 20) -> Path:
    """``root/train/001.gnt`` and ``root/test/001.gnt``, as CASIA-HWDB comes."""
    for part, samples in {"train": train, "test": test}.items():
        (root / part).mkdir(parents=True)
        with (root / part / "001.gnt").open("wb") as file:
            for character, image in handwriting(samples):
                height, width = image.shape
                file.write(struct.pack("<I2sHH", 10 + image.size, character.encode("gbk"), width, height))
                file.write(image.tobytes())
    return root
