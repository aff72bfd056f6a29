"""Optical flow as a picture: hue is direction, saturation is length.

The colour wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 92(1), 2011, section 4.
"""

import numpy as np
from jaxtyping import Float, UInt8

RED, YELLOW, GREEN, CYAN, BLUE, MAGENTA = (
    (255, 0, 0),
    (255, 255, 0),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (255, 0, 255),
)
HUES = ((RED, 15), (YELLOW, 6), (GREEN, 4), (CYAN, 11), (BLUE, 13), (MAGENTA, 6))
"""Pure colours, and steps from each to the next: as many as people tell apart."""
DARKER = 0.75
"""Of the brightness, for flow beyond the range."""


def wheel() -> Float[np.ndarray, "steps 3"]:
    """Colours by angle, from 0 to 1."""
    following = [*HUES[1:], HUES[0]]
    arcs = [
        np.array(start) + (np.array(end) - np.array(start)) * np.arange(steps)[:, None] / steps
        for (start, steps), (end, _) in zip(HUES, following, strict=True)
    ]
    return np.concatenate(arcs) / 255


def flow_colours(flow: Float[np.ndarray, "2 height width"], longest: float) -> UInt8[np.ndarray, "height width 3"]:
    """White where nothing moves, pure colours for vectors of ``longest`` pixels, darker ones for longer vectors.

    Red moves to the right, and with the angle turning down: yellow, green, cyan to the left, and back up by blue and
    magenta. NaN is grey.
    """
    colours, known = wheel(), np.isfinite(flow).all(0)
    right, down = np.where(known, flow, 0) / max(longest, 1e-6)
    length = np.hypot(right, down)
    place = np.arctan2(down, right) / (2 * np.pi) % 1 * len(colours)
    before = np.floor(place).astype(int) % len(colours)
    share = (place - np.floor(place))[..., None]
    hue = (1 - share) * colours[before] + share * colours[(before + 1) % len(colours)]
    inside = 1 - np.minimum(length, 1)[..., None] * (1 - hue)
    picture = np.where(length[..., None] <= 1, inside, DARKER * hue)
    return (np.where(known[..., None], picture, 0.5) * 255).round().astype(np.uint8)
