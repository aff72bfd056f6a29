"""A teacher whose outputs are computed once and read from disk afterwards.

Augmented images are cached soundly because they repeat: with K views, epoch e shows view ``e % K`` of every sample.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data import DataModule, Viewed
from distill.errors import RecipeError
from distill.recipe.plain import key
from distill.recipe.schema import Cache, Recipe
from distill.training.cache._identity import acquire, cache_identity, parts_key
from distill.training.cache._store import Store, coding_at
from distill.training.teacher import Teacher


class CachedTeacher(nn.Module):
    """Called as a `Teacher` is; always returns what is stored, so that it does not matter which run stored it."""

    def __init__(self, teacher: Teacher, store: Store) -> None:
        super().__init__()
        self.teacher, self.store = teacher, store

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.complete(batch)
        return self.store.read(batch)

    def complete(self, batch: Batch) -> None:
        """Call the teacher if any output is missing, and keep its outputs."""
        missing = self.store.missing(batch)
        if missing.any():
            self.store.write(batch, missing, self.teacher(batch))


def cached(teacher: Teacher, recipe: Recipe, data: DataModule, task: Mapping[str, Any]) -> CachedTeacher:
    """A teacher behind the cache that the recipe asks for.

    Args:
        teacher: whose outputs are kept.
        recipe: one with a cache.
        data: the data set.
        task: what parts of the output depend on: the task's section, and hashes of the files that it reads.

    Raises:
        RecipeError: the cache in the folder that the recipe names is of something else.
    """
    assert recipe.cache
    identity = cache_identity(recipe, data, teacher.tapped.model)
    folder = recipe.cache.folder or recipe.output / ".cache" / key(identity)
    acquire(folder, identity)
    return CachedTeacher(teacher, Store(folder, teacher.paths, data.samples, recipe.cache, parts_key(task)))


def check_kept(outputs: Mapping[str, Tensor], settings: Cache) -> None:
    """See that a cache can keep a teacher's outputs, before there is one.

    Raises:
        RecipeError: it cannot; names the tap.
    """
    for path, output in outputs.items():
        coding_at(path, output, settings)


def set_views(data: DataModule, views: int | None) -> None:
    """Let training images repeat after so many epochs; None lets every epoch look different.

    Raises:
        RecipeError: the data set's images do not repeat.
    """
    if isinstance(data, Viewed):
        data.views = views
    elif views:
        raise RecipeError(
            f"cache: {type(data).__name__} does not promise that its augmentations repeat: "
            "give it what distill.data.Viewed asks for, or remove 'cache'"
        )
