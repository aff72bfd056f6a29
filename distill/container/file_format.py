"""One safetensors file of tensors and plain data, in which any changed byte is noticed.

The plain data is JSON in the file's metadata. Its ``checksum`` covers every byte of the file but itself; ``checksums``,
one for each tensor in order of their names, tell which of them is damaged.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from distill.artifact.byte_planes import raw
from distill.artifact.packed import Block
from distill.errors import ArtifactError

FORMAT = 2
"""Raised when an older program would misread a file."""
MEMORY, RATIO = 2**26, 2**12
"""A file may stand for 64 MiB of tensors, and for as many bytes more for each of its own."""
KEY = "distill"
PACKED = "packed"
"""The only tensor of an encoded artifact's file: see `distill.artifact.packed`."""
BLANK = b"?" * 16


def encode(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """The file's content."""
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    checksums = "".join(_crc(raw(whole[name])) for name in sorted(whole))
    head = {"checksum": BLANK.decode(), "format": FORMAT, **about, "checksums": checksums}
    data = save(whole, {KEY: json.dumps(head, separators=(",", ":"))})
    return data.replace(BLANK, _digest(data), 1)


def decode(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain data of a file's content.

    Args:
        data: the content.
        name: of the file, for messages.

    Raises:
        ArtifactError: the content is truncated, altered, from a newer version, or something else altogether.
    """
    try:
        parts = dict(safetensors.deserialize(data))
        head = json.loads(_metadata(data)[KEY])
        version, checksum = int(head["format"]), str(head["checksum"]).encode()
    except SafetensorError as error:
        raise ArtifactError(f"{name} is truncated, damaged or not a safetensors file ({error})") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        raise ArtifactError(f"{name} is a safetensors file, but not an artifact, or it is damaged") from None
    if version != FORMAT:
        age = "newer than this program's" if version > FORMAT else "older than all that this program reads,"
        raise ArtifactError(f"{name} has format {version}, {age} {FORMAT}: upgrade distill or make the file again")
    if _digest(data.replace(checksum, BLANK, 1)) != checksum:
        expected = str(head.get("checksums"))
        wrong = [
            part for at, part in enumerate(sorted(parts)) if _crc(parts[part]["data"]) != expected[8 * at : 8 * at + 8]
        ]
        raise ArtifactError(f"{name} has been altered: {_which(wrong, parts)} is damaged")
    try:
        return load(data), head
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{name} holds tensors of a type that this program does not know: {error}") from None


def memory_limit(size: int) -> int:
    """How many bytes of tensors a file of that size may stand for."""
    return MEMORY + RATIO * size


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`decode` of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    return decode(data, str(path))


def _metadata(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _which(wrong: list[str], parts: Mapping[str, Any]) -> str:
    """What is damaged; of a packed block, the first tensor in it whose own checksum does not fit."""
    if not wrong:
        return "its header"
    if wrong[0] != PACKED:
        return f"tensor {wrong[0]!r}"
    try:
        inside = Block(bytes(parts[PACKED]["data"])).damaged()
    except (LookupError, TypeError, ValueError, RecursionError):
        inside = []
    return f"tensor {inside[0]!r}" if inside else "the index of its packed block"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[: len(BLANK)].encode()


def _crc(data: Any) -> str:
    return f"{zlib.crc32(data):08x}"
