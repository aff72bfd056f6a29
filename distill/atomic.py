"""A file appears under its final name when it is whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import DistillError


@contextmanager
def replacing(path: Path, refuse: type[DistillError] = DistillError) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to. It takes ``path``'s place when the block ends well and is removed
    when it does not; a file that was at ``path`` before is then still there.

    Args:
        path: the final name; its folder is made.
        refuse: raised when the file system will not have the file, be it read-only, full or forbidden.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise refuse(f"cannot write {path}: {error.strerror or error}; choose another folder or make room") from error
