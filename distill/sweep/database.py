"""The SQLite file of a sweep: checked before it is used, set aside where it is damaged."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)

COMPANIONS = ("-journal", "-wal", "-shm")
"""SQLite's files beside a database; a new database must not find those of the old one."""
SECONDS = 60
"""How long to wait for a process that writes."""


def check_integrity(file: Path) -> None:
    """
    Raises:
        sqlite3.DatabaseError: the file is no database, or is damaged.
    """
    if not file.exists():
        return
    with closing(sqlite3.connect(file, timeout=SECONDS)) as database:
        ((result, *_), *_) = database.execute("PRAGMA integrity_check(1)").fetchall()
    if result != "ok":
        raise sqlite3.DatabaseError(" ".join(str(result).split()))


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the content is damaged, and not that the file is locked or the disk is full."""
    kinds = list(_causes(error))
    if any(isinstance(kind, sqlite3.OperationalError | OSError) for kind in kinds):
        return False
    return any(isinstance(kind, sqlite3.DatabaseError | LookupError | TypeError | ValueError) for kind in kinds)


def set_aside(file: Path, reason: str) -> None:
    """Rename a damaged database, so that a new one takes its place."""
    aside = file.with_name(f"{file.name}.damaged")
    file.replace(aside)
    for companion in COMPANIONS:
        file.with_name(f"{file.name}{companion}").unlink(missing_ok=True)
    log.warning("%s is damaged (%s): set aside as '%s', its trials are repeated", file, reason, aside.name)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
