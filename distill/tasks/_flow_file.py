"""Middlebury's file format of optical flow: Baker et al., IJCV 92(1), 2011, and its readers."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

MAGIC = b"PIEH"


def write_flo(path: Path, flow: Float[np.ndarray, "2 height width"]) -> Path:
    """Width and height as 32-bit integers, then vectors row by row as 32-bit floats, all little-endian."""
    _, height, width = flow.shape
    head = MAGIC + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + flow.transpose(1, 2, 0).astype("<f4").tobytes())
    return path
