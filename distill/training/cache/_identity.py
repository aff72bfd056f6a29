"""What a cache belongs to, in words, kept beside it: one that belongs to something else is refused."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from distill import __version__
from distill.atomic import replacing
from distill.data import DataModule
from distill.errors import RecipeError
from distill.models.input_transform import InputTransform
from distill.recipe.plain import plain
from distill.recipe.schema import Recipe

ELSEWHERE = ("root", "batch_size", "workers")
"""Settings of data sets that say where samples are read and how many at a time, not what they look like."""


def cache_identity(recipe: Recipe, data: DataModule, teacher: nn.Module) -> dict[str, Any]:
    """All that a teacher's answers depend on, as plain JSON."""
    assert recipe.cache
    return {
        "distill": __version__,
        "teacher": fingerprint(teacher),
        "data": data.fingerprint(),
        **{f"data.{key}": value for key, value in plain(recipe.data).items() if key not in ELSEWHERE},
        "seed": recipe.seed,
        "channels_last": recipe.channels_last,
        "trainer.precision": str(recipe.trainer.get("precision", "32-true")),
        "cache.views": recipe.cache.views,
        "cache.dtype": recipe.cache.dtype,
    }


def fingerprint(network: nn.Module) -> str:
    """Changes when a weight, a buffer, the structure of the network or what it does to its own images does."""
    content = blake2b(repr(network).encode(), digest_size=8)
    for module in network.modules():
        hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, InputTransform)]
        content.update(repr(hooks).encode())
    for name, value in network.state_dict().items():
        content.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        content.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return content.hexdigest()


def acquire(folder: Path, belongs: Mapping[str, Any]) -> None:
    """Make the folder a cache, or see that the cache in it is this one.

    Raises:
        RecipeError: it is another one, or the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "cache.json"
    with FileLock(folder / ".lock"):
        if not header.exists():
            if others := sorted(path.name for path in folder.iterdir() if path.name[0] != "."):
                raise RecipeError(f"{folder} is no cache, but holds '{others[0]}': name an empty cache.folder")
            with replacing(header) as part:
                part.write_text(json.dumps(belongs, indent=1))
        found = _read(header)
    names = [name for name in {**found, **belongs} if found.get(name) != belongs.get(name)]
    if names:
        differences = ", ".join(f"{name} is {belongs.get(name)}, there {found.get(name)}" for name in names)
        raise RecipeError(f"the cache in {folder} belongs to something else ({differences}); name another cache.folder")


def _read(header: Path) -> dict[str, Any]:
    try:
        return json.loads(header.read_text())
    except ValueError:
        raise RecipeError(f"{header} is damaged: remove the folder, and its answers are computed anew") from None
