"""Masks of classes as plain data, and drawn over their picture."""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

Mask = Shaped[np.ndarray, "height width"]


def mask_runs(mask: Mask) -> dict[str, Any]:
    """``{"size": [height, width], "runs": [[class, pixels], ...]}``, row after row."""
    values = mask.ravel()
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return {"size": list(mask.shape), "runs": [[int(values[start]), end - start] for start, end in pairwise(edges)]}


def mask_from_runs(runs: dict[str, Any]) -> Mask:
    """The inverse of `mask_runs`."""
    classes, lengths = np.array(runs["runs"]).T
    return np.repeat(classes, lengths).reshape(runs["size"])


def colour_of(number: int) -> tuple[int, int, int]:
    """PASCAL VOC's: bits 0, 3, 6 of the class are the highest of red, bits 1, 4, 7 those of green, and so on."""
    red, green, blue = (
        sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(3)) for channel in range(3)
    )
    return red, green, blue


def overlaid(image: Image.Image, mask: Mask, hidden: int | None) -> Image.Image:
    """The picture, half covered by the colours of a mask that is stretched to its size.

    Args:
        image: in colours.
        mask: of classes; 255 is white.
        hidden: a class that leaves the picture as it is.
    """
    stretched = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST))
    palette = np.array([colour_of(number) for number in range(256)], np.uint8)
    palette[255] = 255
    covered = (palette[stretched].astype(np.uint16) + np.asarray(image)) // 2
    shown = (stretched == hidden)[..., None]
    return Image.fromarray(np.where(shown, np.asarray(image), covered).astype(np.uint8))
