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

from distill.container.packed import Block
from distill.container.raw import SIZES, Raw
from distill.errors import ArtifactError

FORMAT = 2
"""Raised when an older program would misread a file."""
MEMORY, RATIO = 2**26, 2**12
"""A file may stand for 64 MiB of tensors, and for as many bytes more for each of its own."""
KEY = "distill"
PACKED = "packed"
"""The only tensor of an encoded artifact's file: see `distill.container.packed`."""
BLANK = b"?" * 16
NAMES = {
    **{"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"},
}
"""Of types, as safetensors has them."""
KINDS = {name: kind for kind, name in NAMES.items()}


def encode(tensors: Mapping[str, Raw], about: Mapping[str, Any]) -> bytes:
    """The file's content."""
    checksums = "".join(_crc(tensors[name].data) for name in sorted(tensors))
    head = {"checksum": BLANK.decode(), "format": FORMAT, **about, "checksums": checksums}
    data = _safetensors(tensors, {KEY: _json(head)})
    return data.replace(BLANK, _digest(data), 1)


def decode(data: bytes, name: str) -> tuple[dict[str, Raw], dict[str, Any]]:
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
    if strange := {part["dtype"] for part in parts.values()} - KINDS.keys():
        raise ArtifactError(f"{name} holds tensors of a type that this program does not know: {min(strange)}")
    return {key: Raw(KINDS[p["dtype"]], tuple(p["shape"]), bytes(p["data"])) for key, p in parts.items()}, head


def memory_limit(size: int) -> int:
    """How many bytes of tensors a file of that size may stand for."""
    return MEMORY + RATIO * size


def read(path: Path) -> tuple[dict[str, Raw], dict[str, Any]]:
    """`decode` of a file."""
    return decode(content(path), str(path))


def content(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None


def _safetensors(tensors: Mapping[str, Raw], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: the length of its header, 8 bytes, the header in JSON, and the arrays, the widest first."""
    header: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(tensors.items(), key=lambda item: (-SIZES[item[1].kind], item[0]))
    end = 0
    for name, raw in ordered:
        start, end = end, end + len(raw.data)
        header[name] = {"dtype": NAMES[raw.kind], "shape": list(raw.shape), "data_offsets": [start, end]}
    text = _json(header).encode()
    text += b" " * (-len(text) % 8)  # arrays begin where every type may
    return len(text).to_bytes(8, "little") + text + b"".join(raw.data for _, raw in ordered)


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


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
