"""All that the outputs in a cache depend on, kept beside them: the cache of something else is refused."""

import logging
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from distill import __version__
from distill.data import READING, DataModule
from distill.errors import RecipeError
from distill.files import sealed
from distill.models.input_transform import InputTransform
from distill.recipe.plain import key, plain
from distill.recipe.schema import Recipe
from distill.registry.outside_code import outside_code, sources, written_here

log = logging.getLogger(__name__)

ELSEWHERE = (*READING, "batch_size")
"""Settings of data sets that say where samples are read and how many at a time, not what they look like."""


def cache_identity(recipe: Recipe, data: DataModule, teacher: nn.Module) -> dict[str, Any]:
    """All that a teacher's output and feature maps depend on, as plain JSON."""
    assert recipe.cache
    return {
        "distill": __version__,
        "teacher": fingerprint(teacher),
        "data": data.fingerprint(),
        **{f"data.{name}": value for name, value in plain(recipe.data).items() if name not in ELSEWHERE},
        "seed": recipe.seed,
        "channels_last": recipe.channels_last,
        "trainer.precision": str(recipe.trainer.get("precision", "32-true")),
        "cache.views": recipe.cache.views,
        "cache.dtype": recipe.cache.dtype,
    }


def parts_key(task: Mapping[str, Any]) -> str:
    """Names what parts of the output depend on beside the identity: taps such as ":classes" are computed by the task.

    They have files of their own by this name, so that other settings of the task leave the rest of a cache as it is.
    """
    return key(task, outside_code(task))


def fingerprint(network: nn.Module) -> str:
    """Changes when a weight, a buffer, the structure of the network, its author's code or what it does to its own
    images does."""
    content = blake2b(repr(network).encode(), digest_size=8)
    for module in network.modules():
        hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, InputTransform)]
        content.update(repr(hooks).encode())
    classes = {type(module).__module__ for module in network.modules()}
    if code := sources(filter(written_here, classes)):
        content.update(repr(sorted(code.items())).encode())
    for name, value in network.state_dict().items():
        content.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        content.update(value.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return content.hexdigest()


def acquire(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder a cache, or check that the cache in it has this identity.

    Outputs whose identity is lost with a damaged header are removed: nobody knows which teacher computed them.

    Raises:
        RecipeError: the cache has another identity, or the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "cache.json"
    if header.is_dir():
        raise RecipeError(f"{header} is a folder, so this is no cache: name an empty cache.folder")
    with FileLock(folder / ".lock"):
        damaged = False
        try:
            found = sealed.read(header)
        except sealed.DamagedFileError as error:
            log.warning("%s: the teacher's outputs are computed again", error)
            found, damaged = None, True
        if found is None:
            _clear(folder, header, damaged)
            sealed.write(header, identity)
            found = dict(identity)
    names = [name for name in {**found, **identity} if found.get(name) != identity.get(name)]
    if names:
        differences = ", ".join(f"{name} is {identity.get(name)}, there {found.get(name)}" for name in names)
        raise RecipeError(f"the cache in {folder} is of something else ({differences}); name another cache.folder")


def _clear(folder: Path, header: Path, damaged: bool) -> None:
    """Remove the files of a cache that has no header."""
    taps = list(folder.glob("*.rows"))
    ours = {path.with_suffix(suffix) for path in taps for suffix in (".rows", ".checks", ".json")}
    ours |= {header} if damaged or taps else set()
    if others := sorted(path.name for path in folder.iterdir() if path.name[0] != "." and path not in ours):
        raise RecipeError(f"{folder} is no cache, but holds '{others[0]}': name an empty cache.folder")
    for path in ours:
        path.unlink(missing_ok=True)
