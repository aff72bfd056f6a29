"""An exported file coded for its way to the device, in the xz format, which every system and most languages read."""

import lzma
from pathlib import Path

import zstandard

from distill.container.file_format import memory_limit
from distill.errors import ArtifactError, ExportError
from distill.files.atomic import replacing

SUFFIX = ".xz"
PAYS = 0.9
"""The largest part of the bytes that is worth a second file."""
HOPELESS = 0.95
"""The part that a coder a hundred times as fast leaves of what xz will not bring below `PAYS`: plain floats, mostly."""

DECODER = 2**27
"""Bytes that decoding may take beside the content; a file could ask for gigabytes."""


def write_coded(content: bytes, path: Path, *, wanted: bool = True) -> Path | None:
    """Write ``path.xz``, unless that saves less than a tenth; where it is not written, one of another network goes.

    Args:
        content: of the exported file.
        path: of the exported file.
        wanted: False: not at all.

    Raises:
        ExportError: the folder cannot be written to.
    """
    target = path.with_name(path.name + SUFFIX)
    coded = _coded(content) if wanted else content
    if len(coded) > PAYS * len(content):
        target.unlink(missing_ok=True)
        return None
    with replacing(target, ExportError) as part:
        part.write_bytes(coded)
    return target


def _coded(content: bytes) -> bytes:
    if len(zstandard.ZstdCompressor(level=1).compress(content)) > HOPELESS * len(content):
        return content
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def read_coded(path: Path) -> bytes:
    """The exported file that `write_coded` coded.

    Raises:
        ArtifactError: the file is damaged, none, or stands for more memory than a file of its length may.
    """
    try:
        coded = path.read_bytes()
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, DECODER)
        content = decoder.decompress(coded, memory_limit(len(coded)))
        if not decoder.eof:
            raise EOFError("it ends too early, or holds more than a file of its length may")
        return content
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ArtifactError(
            f"cannot read {path}: {error}; export it again, or name the file without {SUFFIX}"
        ) from None
