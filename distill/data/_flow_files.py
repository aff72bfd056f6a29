"""Pairs of pictures with the optical flow between them, in the file formats of Middlebury and of KITTI."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torchvision.transforms import v2

from distill.data._flow import UNKNOWN, Flow
from distill.data._samples import Sample
from distill.data._scan import check_once
from distill.data.decoding import check_size, open_picture, picture_size, shown
from distill.data.info import DataInfo
from distill.data.pictures import file_identity
from distill.data.preprocessing import LARGEST, Preprocessing
from distill.errors import DataError

Vectors = Float32[np.ndarray, "2 height width"]
MAGIC = np.float32(202021.25)
"""The first bytes of every .flo file, "PIEH": Baker et al., A Database and Evaluation Methodology for Optical Flow,
IJCV 92(1), 2011, and its readers."""
TOO_LARGE = 1e9
"""What .flo files write where the flow is unknown is larger than this."""


class Pair(NamedTuple):
    """The files of one sample."""

    first: Path
    second: Path
    flow: Path


@dataclass(frozen=True)
class FlowPairs:
    """Two pictures of a sample, and where the pixels of the first one are in the second."""

    root: Path
    pairs: Sequence[Pair]
    read_flow: Callable[[Path], Vectors]
    classes: None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, position: int) -> Sample:
        pair = self.pairs[position]
        pictures, vectors = (open_picture(pair.first), open_picture(pair.second)), self.read_flow(pair.flow)
        for path, picture in zip(pair, pictures, strict=False):
            check_size(path, (picture.height, picture.width), vectors.shape[1:], f"{shown(pair.flow)} is of")
        return Sample(pictures, torch.from_numpy(vectors).as_subclass(Flow))

    def identity(self, position: int) -> bytes:
        return b"\t".join(file_identity(self.root, path) for path in self.pairs[position])

    def check(self, position: int) -> None:
        """Raises: DataError: the flow is damaged, or a picture is damaged or of another size."""
        pair = self.pairs[position]
        vectors = self.read_flow(pair.flow)
        for path in (pair.first, pair.second):
            check_size(path, picture_size(path), vectors.shape[1:], f"{shown(pair.flow)} is of")

    def checked(self) -> "FlowPairs":
        """Itself, after every file has been checked once."""
        files = [path for pair in self.pairs for path in pair]
        check_once("flow, known somewhere", range(len(self)), self.check, files)
        return self


def read_flo(path: Path) -> Vectors:
    """The flow in a .flo file, NaN where it is unknown.

    Raises:
        DataError: the file is missing, damaged, holds NaN or Inf, or nothing that is known.
    """
    content = _bytes(path)
    header = np.frombuffer(content, "<i4", 3) if len(content) >= 12 else np.zeros(3, "<i4")
    if header[:1].view("<f4")[0] != MAGIC:
        raise DataError(f"{shown(path)} is no .flo file: it does not begin with 'PIEH'")
    width, height = int(header[1]), int(header[2])
    if not (0 < width <= LARGEST and 0 < height <= LARGEST) or len(content) != 12 + 8 * width * height:
        raise DataError(f"{shown(path)} is damaged: {len(content)} bytes for flow of {width}x{height} pixels")
    vectors = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1).astype(np.float32)
    # Middlebury's own reader takes both for unknown, but files mark that with 1e10: these are of failed computations.
    if len(wrong := np.argwhere(~np.isfinite(vectors).all(0))):
        raise DataError(f"{shown(path)} holds NaN or Inf, first at pixel ({wrong[0][1]}, {wrong[0][0]})")
    vectors[:, (np.abs(vectors) > TOO_LARGE).any(0)] = UNKNOWN
    return _known(vectors, path)


def read_kitti(path: Path) -> Vectors:
    """The flow in a PNG file of 3 x 16 bits, NaN where it is unknown: (value - 2^15) / 64, and whether it is known.

    Menze and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015, and the readme of its development kit.

    Raises:
        DataError: the file is missing, damaged, of another kind, or holds nothing that is known.
    """
    high, low = _bytes_of_16(path, "RGB;16B"), _bytes_of_16(path, "RGB;16L")
    right, down, known = np.moveaxis(high.astype(np.float32) * 256 + low, -1, 0)
    return _known(np.where(known > 0, (np.stack([right, down]) - 2**15) / 64, np.float32(UNKNOWN)), path)


def _bytes_of_16(path: Path, layout: str) -> UInt8[np.ndarray, "height width 3"]:
    """Half of each value. Pillow reads 8 bits of 16: as if they were big-endian the high ones, which PNG has first, and
    as if they were little-endian the low ones.
    """
    try:
        with Image.open(path) as file:
            kind = file.tile[0].args if file.format == "PNG" else None
            if kind == "RGB;16B":
                file.tile = [file.tile[0]._replace(args=layout)]
                return np.array(file)
    except Exception as error:  # Pillow's readers of damaged files fail in many ways
        raise DataError(f"{shown(path)} is no readable picture ({error})") from None
    raise DataError(f"{shown(path)} holds no flow: KITTI writes PNG files of 3 channels and 16 bits")


def flow_info(height: int, width: int) -> DataInfo:
    """Two colour pictures, from which the centre is cut: resizing would change the flow."""
    preprocessing = Preprocessing(crop=(height, width)).to_json()
    return DataInfo(3, (height, width), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), images=2, preprocessing=preprocessing)


def flow_augmentation(info: DataInfo, crop: bool, flip: bool) -> list[v2.Transform]:
    """The same crop and mirroring of both pictures and of the flow."""
    size = list(info.image_size)
    cut = v2.RandomCrop(size, pad_if_needed=True) if crop else v2.CenterCrop(size)
    return [cut, v2.RandomHorizontalFlip()] if flip else [cut]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(path)}: {error.strerror}") from None


def _known(vectors: Vectors, path: Path) -> Vectors:
    """The vectors themselves.

    Raises:
        DataError: they are unknown everywhere.
    """
    if np.isnan(vectors).all():
        raise DataError(f"{shown(path)}: the flow of all its pixels is unknown; remove the pair")
    return vectors
