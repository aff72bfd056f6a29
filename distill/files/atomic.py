"""A file appears under its final name when it is whole, or not at all."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EBADF, EINVAL, ENOSYS, ENOTSUP, EPERM
from pathlib import Path

from distill.errors import DistillError
from distill.files.advice import advice

_UNFLUSHED = (EACCES, EPERM, EBADF, EINVAL, ENOSYS, ENOTSUP)
"""How folders refuse to be waited for: written but not read, or on a network or shared file system."""


@contextmanager
def replacing(path: Path, refuse: type[DistillError] = DistillError, *, previous: Path | None = None) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to.

    When the block ends without an error and the neighbour's content has reached the disk, it takes ``path``'s place.
    Otherwise it is removed, and the file that was at ``path`` before is still there. The neighbour is on the same file
    system as ``path``: the last step is one rename. What a killed process of this machine left behind is removed.

    Args:
        path: the final name; its folder is made.
        refuse: the error to raise when the file system refuses the file: read-only, full, forbidden, ...
        previous: where the file that was at ``path`` is kept; None keeps it only until the new one is whole.
    """
    part = path.with_name(f"{_prefix(path)}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        try:
            yield part
            _flush(part)
            if previous and path.exists():
                path.replace(previous)
            part.replace(path)
            _flush(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        remedy = advice(error) or "choose another folder"
        raise refuse(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def _prefix(path: Path) -> str:
    return f".{path.name}.{platform.node()}-"


def _remove_orphans(path: Path) -> None:
    for orphan in path.parent.glob(f"{_prefix(path)}*"):
        process = orphan.name.removeprefix(_prefix(path))
        if process.isdecimal() and not _runs(int(process)):
            orphan.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in _UNFLUSHED:
            raise
