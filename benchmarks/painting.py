"""Paints the picture in whose style `style` paints unless a recipe names another one.

    python -m benchmarks.painting

Some thousand curved brush strokes along a smooth field of directions, in six colours that change from place to place;
each stroke is a bundle of bristles of slightly different brightness. From a fixed seed; nothing of anybody else's.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from distill.tasks.style import PAINTING

SIDE, SEED = 512, 7
PALETTE = [(20, 33, 84), (31, 97, 141), (236, 178, 46), (214, 84, 35), (120, 28, 44), (240, 226, 190)]
SCALES = [(64, 900, 90), (26, 2200, 60), (10, 3600, 34)]
"""Width of the brush, number of strokes and length of each, in pixels, one layer over the other."""


def field(random: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth random field, (SIDE, SIDE), of mean 0 and variance 1."""
    noise = Image.fromarray(random.normal(size=(cells, cells)).astype(np.float32))
    smooth = np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return (smooth - smooth.mean()) / smooth.std()


def stroke(
    page: ImageDraw.ImageDraw,
    random: np.random.Generator,
    start: tuple[float, float],
    angles: np.ndarray,
    colour: np.ndarray,
    width: int,
    length: int,
) -> None:
    """One stroke from a place along the field, bristle by bristle."""
    x, y = start
    points = []
    for _ in range(length):
        row, column = int(y) % SIDE, int(x) % SIDE
        points.append((x, y, angles[row, column]))
        x, y = x + np.cos(angles[row, column]) * 1.5, y + np.sin(angles[row, column]) * 1.5
    for bristle in np.linspace(-width / 2, width / 2, max(width // 2, 3)):
        shade = colour * random.uniform(0.72, 1.18) + random.normal(0, 5, 3)
        first, last = int(random.uniform(0, 0.15) * length), length - int(random.uniform(0, 0.25) * length)
        path = [(px - np.sin(a) * bristle, py + np.cos(a) * bristle) for px, py, a in points[first:last]]
        page.line(path, tuple(int(value) for value in shade.clip(0, 255)), width=3, joint="curve")


def painted() -> Image.Image:
    """The picture."""
    random = np.random.default_rng(SEED)
    angles = 1.7 * field(random, 4) + 0.3 * field(random, 9)
    mixtures = np.stack([field(random, 5) + 0.5 * field(random, 11) for _ in PALETTE])
    image = Image.new("RGB", (SIDE, SIDE), PALETTE[0])
    page = ImageDraw.Draw(image)
    for width, count, length in SCALES:
        for _ in range(count):
            row, column = random.integers(0, SIDE, 2)
            chosen = np.argmax(mixtures[:, row, column] + random.normal(0, 0.35, len(PALETTE)))
            colour = np.array(PALETTE[chosen], float)
            stroke(page, random, (float(column), float(row)), angles, colour, width, length)
    return image


if __name__ == "__main__":
    painted().save(PAINTING, quality=85)
    print(Path(PAINTING).stat().st_size, "bytes")
