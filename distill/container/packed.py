"""The tensors of an encoded artifact as one block of bytes, from which each can be read alone.

The block is: the length of the index (4 bytes, little endian), the index, one CRC-32 (4 bytes) for each tensor of the
network, and the data of these tensors one after the other. The index is JSON in a zstd frame without magic number:
``{"forms": [settings, ...], "tensors": [[name, form, [[part, dtype, shape, lengths], ...]], ...]}``; ``form`` is -1 for
a tensor that is kept as it is, which has one part without a name. Lengths are those of `byte_planes`; one number in
place of their list says that the part has the bytes of that tensor's part of the same name (tensors count from 0).
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import zstandard

from distill.container import byte_planes
from distill.container.raw import SIZES, Raw

Record = tuple[Mapping[str, Any] | None, dict[str, Raw]]
"""The settings of a storage format, plain data, and its parts by name; what is kept as it is has neither settings nor a
name."""

INDEX = 2**24
"""Bytes of JSON that an index may have."""
SHORT = 8
"""Bytes that are written again rather than referred to."""


class Part(NamedTuple):
    """Where the bytes of one tensor are."""

    name: str
    kind: str
    shape: tuple[int, ...]
    lengths: tuple[int, ...]
    same: int | None = None
    """The number of the tensor whose part of this name it equals."""

    @property
    def nbytes(self) -> int:
        """Once decompressed."""
        return prod(self.shape) * SIZES[self.kind]

    @property
    def size(self) -> int:
        """In the block."""
        return 0 if self.same is not None else byte_planes.size(self.shape, self.lengths)


class Entry(NamedTuple):
    """One tensor of the network."""

    settings: Mapping[str, Any] | None
    """Of its storage format; None: kept as it is."""
    parts: list[Part]
    at: int
    """Where its data begins."""
    crc: int


def pack(records: Mapping[str, Record]) -> bytes:
    """The block."""
    forms: list[str] = []
    tensors: list[Any] = []
    checksums, body = [], []
    first: dict[tuple[str, bytes], int] = {}
    for number, (name, (settings, parts)) in enumerate(records.items()):
        form = -1
        if settings is not None:
            text = json.dumps(settings)
            form = forms.index(text) if text in forms else len(forms)
            forms += [text] if form == len(forms) else []
        described, data = [], b""
        for part, raw in parts.items():
            lengths, content = byte_planes.compress(raw)
            what = [part, raw.kind, list(raw.shape)]
            same = first.setdefault((json.dumps([*what, lengths]), content), number)
            if same < number and len(content) > SHORT:
                described.append([*what, same])
            else:
                described.append([*what, lengths])
                data += content
        tensors.append([name, form, described])
        body.append(data)
        checksums.append(zlib.crc32(data))
    index = json.dumps({"forms": [json.loads(text) for text in forms], "tensors": tensors}, separators=(",", ":"))
    compressor = zstandard.ZstdCompressor(level=byte_planes.LEVEL, write_content_size=True)
    head = compressor.compress(index.encode()).removeprefix(byte_planes.MAGIC)
    return struct.pack("<I", len(head)) + head + struct.pack(f"<{len(checksums)}I", *checksums) + b"".join(body)


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
        parts: dict[str, Raw] = {}
        for part in entry.parts:
            owner = entry if part.same is None else list(self.entries.values())[part.same]
            parts[part.name] = self._part(owner, part)
        return entry.settings, parts

    def _part(self, owner: Entry, wanted: Part) -> Raw:
        """A part, from the data of the tensor that has its bytes."""
        data, at = self._bytes(owner), 0
        if zlib.crc32(data) != owner.crc:
            raise ValueError(f"part '{wanted.name}' of a tensor is damaged")
        for part in owner.parts:
            if part.name == wanted.name and part[1:3] == wanted[1:3] and part.same is None:
                return byte_planes.decompress(data[at : at + part.size], part.kind, part.shape, part.lengths)
            at += part.size
        raise ValueError(f"part '{wanted.name}' equals none of the tensor that it names")

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
            parts = [_part(len(seen), *part) for part in described]
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


def _part(number: int, name: Any, kind: Any, shape: Any, lengths: Any) -> Part:
    same = lengths if type(lengths) is int else None
    numbers = [*shape, *([] if same is not None else lengths)]
    if type(name) is not str or kind not in SIZES or len(shape) > 15:
        raise ValueError(f"the packed block's index has an impossible part '{name}' of type '{kind}'")
    if not all(type(size) is int and 0 <= size < 2**40 for size in numbers) or not 0 <= (same or 0) <= number:
        raise ValueError(f"the packed block's index has an impossible size in part '{name}'")
    return Part(name, kind, tuple(shape), () if same is not None else tuple(lengths), same)
