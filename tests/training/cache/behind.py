"""A teacher behind a cache, and the batches that it is called with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.batch import Batch
from distill.data.digits import Digits
from distill.recipe.loading import load
from distill.training.cache import CachedTeacher, cached, set_views
from distill.training.teacher import Teacher
from tests.nets import ConvNet

TAPS = ["stage1", "stage3", ""]


class Counting(Teacher):
    """A teacher that counts how often it is called."""

    asked = 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.asked += 1
        return super().forward(batch)


def network(seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    return ConvNet()


def behind(
    folder: Path, *overrides: str, cache: str = "views: 2, dtype: float32", taps: list[str] = TAPS, weights: int = 0
) -> tuple[CachedTeacher, Digits]:
    """A teacher behind a cache in this folder, and the data that it looks at."""
    recipe = load("smoke", [f"cache={{{cache}, folder: {folder}}}", "data.limit=60", "data.batch_size=16", *overrides])
    settings = {key: value for key, value in vars(recipe.data).items() if key != "name"}
    data = Digits(recipe.seed, **settings)
    set_views(data, recipe.cache.views)
    return cached(Counting(network(weights), taps), recipe, data, {}), data


def epochs(data: Digits, first: int, last: int) -> Iterator[Batch]:
    loader = data.train_dataloader()
    for epoch in range(first, last):
        loader.sampler.set_epoch(epoch)
        yield from loader


def filled(folder: Path, **settings: Any) -> None:
    teacher, data = behind(folder, **settings)
    for batch in data.every_view():
        teacher(batch)


def asked(teacher: CachedTeacher, batches: Iterator[Batch]) -> int:
    before = teacher.teacher.asked
    for batch in batches:
        teacher(batch)
    return teacher.teacher.asked - before
