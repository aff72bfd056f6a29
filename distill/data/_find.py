"""Where a data set's files are: a folder the recipe names, $DISTILL_DATA, a system package, or a download."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from distill.errors import DataError


@dataclass(frozen=True)
class Origin:
    """Where a data set usually is, and how to get it."""

    title: str
    files: tuple[str, ...]
    """Its files, here perhaps with .gz; a folder with any of them is the data set's."""
    folders: tuple[str, ...]
    """What that folder may be called inside a folder of data sets."""
    download: Callable[..., Any]
    """torchvision's data set: ``download(folder, download=True)`` fetches, verifies and unpacks."""
    advice: str
    """How else to get it."""
    packages: tuple[Path, ...] = ()
    """Where system packages install it."""


def find(origin: Origin, root: Path | None) -> Path:
    """The folder with a data set's files: in ``root`` if given; else in $DISTILL_DATA, a system package or ~/.cache;
    else downloaded, into $DISTILL_DATA if set.

    Raises:
        DataError: it is nowhere and cannot be downloaded; the message says how to get it.
    """
    contents = ", ".join(origin.files)
    if root is not None:
        if found := _holder(origin, [root.expanduser()]):
            return found
        # Nowhere else: a copy in another place need not be the one that the recipe means.
        raise DataError(f"no {origin.title} in data.root={root}: its files are {contents}. {origin.advice}")
    named = [Path(folder).expanduser() for folder in [os.environ.get("DISTILL_DATA")] if folder]
    places = [*named, *origin.packages, Path.home() / ".cache" / "distill"]
    if found := _holder(origin, places):
        return found
    try:
        return _downloaded(origin, named[0] if named else places[-1])
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(
            f"no {origin.title} in {', '.join(map(str, places))}, and it cannot be downloaded "
            f"({' '.join(str(error).split())}). Its files are {contents}: name their folder with data.root=FOLDER or "
            f"$DISTILL_DATA. {origin.advice}"
        ) from None


def _holder(origin: Origin, places: Iterable[Path]) -> Path | None:
    """The first folder with any of the files: if others are missing, their reader will name them."""
    for place in places:
        for folder in [*(place / name for name in origin.folders), place]:
            if any((folder / f"{name}{suffix}").is_file() for name in origin.files for suffix in ("", ".gz")):
                return folder
    return None


def _downloaded(origin: Origin, cache: Path) -> Path:
    """Fetch into a scratch folder beside the final one, so that a final name never holds half a file."""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".download.lock"):  # of processes that start together, one downloads
        if found := _holder(origin, [cache]):
            return found
        with TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
            origin.download(scratch, download=True)
            for file in Path(scratch).rglob("*"):
                if file.is_file() and file.suffix != ".gz":
                    target = cache / file.relative_to(scratch)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
        if found := _holder(origin, [cache]):
            return found
        raise RuntimeError(f"the download holds none of {origin.files}")
