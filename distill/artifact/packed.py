"""The tensors of an encoded artifact as one block of bytes, from which each can be read alone.

The block is: the length of the index (4 bytes, little endian), the index, one CRC-32 (4 bytes) for each tensor of the
network, and the data of these tensors one after the other. The index is JSON in a zstd frame without magic number:
``{"forms": [settings, ...], "tensors": [[name, form, [[part, dtype, shape, lengths], ...]], ...]}``; ``form`` is -1 for
a tensor that is kept as it is, which has one part without a name. Lengths are those of `byte_planes`.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
import zstandard
from torch import Tensor

from distill.artifact import byte_planes
from distill.artifact.storage import Record

INDEX = 2**24
"""Bytes of JSON that an index may have."""


class Part(NamedTuple):
    """Where the bytes of one tensor are."""

    name: str
    kind: str
    shape: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Once decompressed."""
        return prod(self.shape) * byte_planes.TYPES[self.kind].itemsize

    @property
    def size(self) -> int:
        """In the block."""
        return byte_planes.size(self.shape, self.lengths)


class Entry(NamedTuple):
    """One tensor of the network."""

    settings: Mapping[str, Any] | None
    """Of its storage format; None: kept as it is."""
    parts: list[Part]
    at: int
    """Where its data begins."""
    crc: int


def pack(records: Mapping[str, Record]) -> Tensor:
    """The block, as one uint8 tensor."""
    forms: list[str] = []
    tensors, checksums, body = [], [], []
    for name, (settings, parts) in records.items():
        form = -1
        if settings is not None:
            text = json.dumps(settings)
            form = forms.index(text) if text in forms else len(forms)
            forms += [text] if form == len(forms) else []
        packed = {part: byte_planes.compress(tensor) for part, tensor in parts.items()}
        described = [
            [part, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), packed[part][0]]
            for part, tensor in parts.items()
        ]
        tensors.append([name, form, described])
        body.append(b"".join(data for _, data in packed.values()))
        checksums.append(zlib.crc32(body[-1]))
    index = json.dumps({"forms": [json.loads(text) for text in forms], "tensors": tensors}, separators=(",", ":"))
    compressor = zstandard.ZstdCompressor(level=byte_planes.LEVEL, write_content_size=True)
    head = compressor.compress(index.encode()).removeprefix(byte_planes.MAGIC)
    data = struct.pack("<I", len(head)) + head + struct.pack(f"<{len(checksums)}I", *checksums) + b"".join(body)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


class Block:
    """Reads what `pack` wrote; nothing but the index is decompressed before it is asked for.

    Raises:
        ValueError: the bytes are no such block.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        if len(self.data) < 4:
            raise ValueError("the packed block ends within its header")
        (length,) = struct.unpack_from("<I", self.data)
        if length > len(self.data) - 4:
            raise ValueError("the packed block ends within its index")
        self.entries: dict[str, Entry] = dict(self._entries(_index(self.data[4 : 4 + length]), 4 + length))

    def damaged(self) -> list[str]:
        """Names of the tensors whose checksum does not fit."""
        return [name for name, entry in self.entries.items() if zlib.crc32(self._bytes(entry)) != entry.crc]

    def read(self, name: str) -> Record:
        """Settings and parts of one tensor.

        Raises:
            ValueError: its bytes are damaged.
        """
        entry = self.entries[name]
        data, at = self._bytes(entry), 0
        if zlib.crc32(data) != entry.crc:
            raise ValueError(f"tensor '{name}' is damaged")
        parts: dict[str, Tensor] = {}
        for part in entry.parts:
            parts[part.name] = byte_planes.decompress(data[at : at + part.size], part.kind, part.shape, part.lengths)
            at += part.size
        return entry.settings, parts

    def _bytes(self, entry: Entry) -> bytes:
        return self.data[entry.at : entry.at + sum(part.size for part in entry.parts)]

    def _entries(self, index: Any, at: int) -> Iterator[tuple[str, Entry]]:
        forms, tensors = index["forms"], index["tensors"]
        at, table = at + 4 * len(tensors), at
        if at > len(self.data):
            raise ValueError("the packed block ends within its checksums")
        checksums = struct.unpack_from(f"<{len(tensors)}I", self.data, table)
        seen: set[str] = set()
        for (name, form, described), crc in zip(tensors, checksums, strict=True):
            parts = [_part(*part) for part in described]
            names = [part.name for part in parts]
            if type(name) is not str or name in seen or len(set(names)) < len(names) or not -1 <= form < len(forms):
                raise ValueError(f"the packed block's index has an impossible entry '{name}'")
            if form == -1 and names != [""]:
                raise ValueError(f"tensor '{name}' has parts but no form")
            seen.add(name)
            size = sum(part.size for part in parts)
            if size > len(self.data) - at:
                raise ValueError(f"the packed block ends within tensor '{name}'")
            yield name, Entry(None if form == -1 else forms[form], parts, at, crc)
            at += size
        if at != len(self.data):
            raise ValueError("the packed block has bytes after its last tensor")


def _index(frame: bytes) -> Any:
    """The JSON of the index, whose size the frame's header says; it is checked before it is believed."""
    size = zstandard.frame_content_size(byte_planes.MAGIC + frame)
    if not 0 < size <= min(INDEX, 1024 * len(frame)):
        raise ValueError(f"the packed block's index of {len(frame)} bytes claims {size} once decompressed")
    return json.loads(byte_planes.unzip(frame, size))


def _part(name: Any, kind: Any, shape: Any, lengths: Any) -> Part:
    numbers = [*shape, *lengths]
    if type(name) is not str or kind not in byte_planes.TYPES or len(shape) > 15:
        raise ValueError(f"the packed block's index has an impossible part '{name}' of type '{kind}'")
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise ValueError(f"the packed block's index has an impossible size in part '{name}'")
    return Part(name, kind, tuple(shape), tuple(lengths))
