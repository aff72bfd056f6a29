"""Pictures below a folder, links followed, every one of them a picture by its first bytes."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from distill.data.decoding import check_picture, shown
from distill.errors import DataError, DistillError
from distill.files.atomic import replacing

T = TypeVar("T")
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those that torchvision's ImageFolder reads."""
READERS = 16
"""Threads that read headers: on network file systems most of the time is waiting."""


def pictures_below(folder: Path) -> list[Path]:
    """All pictures of a folder and its sub-folders, by the ending of their names; ordered by folder, then by name.
    Hidden files and folders are passed over.

    Raises:
        DataError: a folder cannot be read, a link leads nowhere or back to a folder that it is in.
    """
    found = sorted(_walk(folder, ()))
    return [Path(parent, name) for parent, name in found if name.lower().endswith(IMG_EXTENSIONS)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, those behind links included.

    Raises:
        DataError: the folder cannot be read, a link in it leads nowhere, or the name of a folder is not UTF-8.
    """
    found = sorted(Path(entry.path) for entry in _entries(folder) if is_folder(entry))
    for path in found:
        if path.name != shown(path.name):
            raise DataError(f"{shown(path)}: the name of this folder is not UTF-8; rename it")
    return found


def is_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Whether there is a folder, perhaps behind a link.

    Raises:
        DataError: a link cannot be followed.
    """
    try:
        if entry.is_symlink():
            Path(entry).stat()  # is_dir() is silent about links that lead nowhere
        return entry.is_dir()
    except OSError as error:
        raise DataError(
            f"{shown(Path(entry))} is a link that cannot be followed ({error.strerror}); remove it"
        ) from None


def files_called(folder: Path, pattern: str) -> dict[str, Path]:
    """The files in a folder whose names match a glob in lower case, by and in the order of their names in lower case;
    none where there is no folder.

    Raises:
        DataError: two names differ by upper and lower case alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        name = path.name.lower()
        if fnmatchcase(name, pattern) and found.setdefault(name, path) != path:
            raise DataError(f"{shown(path)} and {shown(found[name])} are one name; remove one of them")
    return dict(sorted(found.items()))


def check_pictures(paths: Sequence[Path]) -> None:
    """Reads beginning and end of every picture, so that a damaged one costs no training.

    Raises:
        DataError: one of them is missing, cut off, no picture or an animation.
    """
    check_once("pictures", paths, check_picture, paths)


def check_once(
    what: str,
    items: Sequence[T],
    check: Callable[[T], Iterable[int] | None],
    files: Iterable[Path],
    threads: int = READERS,
) -> set[int]:
    """Checks every item, in parallel; not again while the files that it was done for keep their names, sizes and times.

    Args:
        what: names the check: one word, with all settings that its result depends on.
        items: what to check.
        check: raises DataError where an item is damaged; may return numbers that are to be known of all items.
        files: what the items are read from.
        threads: 1 where ``check`` cannot be called by several at once.

    Returns:
        All different numbers that ``check`` returned, now or when it was called.

    Raises:
        DataError: an item or a file is damaged or missing.
    """
    listing = blake2b(what.encode(), digest_size=16)
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{shown(path)}: {error.strerror}; replace or remove it") from None
        listing.update(os.fsencode(path.absolute()) + f"\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    checked = Path.home() / ".cache" / "distill" / "checked" / listing.hexdigest()
    if checked.exists():
        return {int(number) for number in checked.read_text().split()}
    with ThreadPoolExecutor(threads) as readers:
        found = {number for numbers in readers.map(check, items) for number in numbers or ()}
    # A home that cannot be written: everything is checked again next time.
    with suppress(DistillError), replacing(checked) as part:
        part.write_text(" ".join(map(str, found)))
    return found


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Folder and name of every file."""
    status = folder.stat()
    this = (status.st_dev, status.st_ino)
    if this in above:
        raise DataError(f"{shown(folder)} is a link back to a folder that it is in; remove it")
    for entry in _entries(folder):
        if is_folder(entry):
            yield from _walk(Path(entry.path), (*above, this))
        else:
            yield str(folder), entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Of a folder, without what is hidden: copies that notebooks and macOS leave beside pictures."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{shown(folder)}: {error.strerror}") from None
