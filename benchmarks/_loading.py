"""Loading of data alone, without any network: whether data can be what training waits for.

Images of CIFAR's size lie in memory, and are cropped and mirrored; pictures of 500 x 375 pixels are JPEG files, which
are decoded, cropped, resized to 224 x 224 and mirrored. Ours is compared with torchvision's transforms in PyTorch's
DataLoader. Batches are copied to the device, as in training.
"""

import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import encode_jpeg
from torchvision.transforms import v2

from benchmarks._rounds import Way
from benchmarks._ways import Run
from benchmarks._work import MEAN, STD, InOurMemory, OneByOne, Workload
from distill.batch import map_tensors
from distill.data import image_folder

LOADING = "loading alone"
"""What rows of loading have in place of a student."""
CLASSES = 2


def in_memory(work: Workload, photographs: Path, workers: int) -> Mapping[str, Way]:
    """Images of CIFAR's size."""
    one_by_one = partial(DataLoader, batch_size=work.batch, shuffle=True, num_workers=workers, drop_last=True)
    return {
        "ours": lambda work: loaded(work, InOurMemory(work).train_dataloader()),
        "torchvision": lambda work: loaded(work, one_by_one(OneByOne(work), pin_memory=work.device == "cuda")),
    }


def from_files(work: Workload, photographs: Path, workers: int) -> Mapping[str, Way]:
    """Photographs, as many as the steps of ``work`` take; the epoch is read twice, and the second time counts."""
    if not photographs.exists():
        write_photographs(photographs, work.samples)
    augmented = [v2.RandomResizedCrop(work.side), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    transform = v2.Compose([*augmented, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    settings: dict[str, Any] = {"batch_size": work.batch, "num_workers": workers, "persistent_workers": workers > 0}

    def ours(work: Workload) -> Run:
        data = image_folder.ImageFolder(
            0, root=photographs, batch_size=work.batch, val=0.0, image_size=work.side, workers=workers
        )
        return loaded(work, data.train_dataloader())

    def torchvision(work: Workload) -> Run:
        data = ImageFolder(str(photographs / "train"), transform)
        pin = work.device == "cuda"
        return loaded(work, DataLoader(data, shuffle=True, drop_last=True, pin_memory=pin, **settings))

    return {"ours": ours, "torchvision": torchvision}


def loaded(work: Workload, loader: Iterable[Any]) -> Run:
    """An epoch to start workers and fill caches, then one that is timed."""
    began = time.perf_counter()
    for _ in range(2):
        started = time.perf_counter()
        for batch in loader:
            map_tensors(lambda tensor: tensor.to(work.device, non_blocking=True), batch)
        if work.device == "cuda":
            torch.cuda.synchronize()
    return Run(time.perf_counter() - started, started - began, 0.0)


def write_photographs(root: Path, count: int) -> None:
    """JPEG files that compress about as photographs do: random fields of colour with a little noise."""
    random = torch.Generator().manual_seed(0)
    for number in range(count):
        coarse = torch.rand(1, 3, 24, 32, generator=random)
        picture = F.interpolate(coarse, (375, 500), mode="bicubic")[0] * 255
        picture = (picture + 8 * torch.randn(picture.shape, generator=random)).clamp(0, 255).byte()
        path = root / "train" / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(picture, quality=90).numpy().tobytes())
        if number < CLASSES:  # the data set wants a validation folder, which is not read
            held_out = root / "val" / path.parent.name / path.name
            held_out.parent.mkdir(parents=True, exist_ok=True)
            held_out.write_bytes(path.read_bytes())


def workers_here() -> int:
    """One for each core but one, which trains."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
