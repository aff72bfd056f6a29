"""JSON records that reveal when they were altered: each holds a digest of its other entries."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.files.atomic import replacing

DIGEST = "digest"
log = logging.getLogger(__name__)


class DamagedFileError(DistillError):
    """A file that cannot be read, or that is no longer what was written."""


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record``, which is plain JSON, whole or not at all."""
    plain = json.loads(json.dumps(dict(record)))
    with replacing(path) as part:
        part.write_text(json.dumps(plain | {DIGEST: _digest(plain)}, indent=1))


def read(path: Path) -> dict[str, Any] | None:
    """What `write` wrote, or None where the file is absent or is a JSON file of something else.

    Raises:
        DamagedFileError: the file is empty, unreadable, no JSON, or altered; the message says which.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DamagedFileError(f"{path} is not JSON") from None
    if not isinstance(record, dict) or DIGEST not in record:
        return None
    if record.pop(DIGEST) != _digest(record):
        raise DamagedFileError(f"{path} was altered")
    return record


def read_or_warn(path: Path, consequence: str) -> dict[str, Any] | None:
    """As `read`, but a damaged file is None, after one line that ends in ``consequence``."""
    try:
        return read(path)
    except DamagedFileError as error:
        log.warning("%s: %s", error, consequence)
        return None


def digest_of_file(path: Path) -> dict[str, Any]:
    """A file's size in bytes and its SHA-256, as plain JSON."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
