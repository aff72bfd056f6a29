"""Pictures that move, with their flow, in the formats of FlyingChairs, Sintel and KITTI."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def flow(number: int) -> np.ndarray:
    """(2, height, width): a constant motion of a few whole pixels, another one in each pair."""
    right, down = [(3, -2), (-4, 1), (0, 5), (2, 2)][number % 4]
    return np.broadcast_to(np.array([right, down], np.float32)[:, None, None], (2, HEIGHT, WIDTH)).copy()


def pictures(number: int) -> tuple[Image.Image, Image.Image]:
    """Two smooth gradients, the second as `flow` moves the first."""
    right, down = flow(number)[:, 0, 0]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [np.stack([3 * (x - a) + 20, 4 * (y - b) + 20, 0 * x], -1) for a, b in ((0, 0), (right, down))]
    first, second = (Image.fromarray(plane.astype(np.uint8)) for plane in planes)
    return first, second


def write_flo(path: Path, values: np.ndarray) -> None:
    height, width = values.shape[1:]
    head = struct.pack("<fii", 202021.25, width, height)
    path.write_bytes(head + values.transpose(1, 2, 0).astype("<f4").tobytes())


def write_kitti(path: Path, values: np.ndarray, known: np.ndarray) -> None:
    """A PNG file of 3 x 16 bits, which Pillow cannot write."""
    height, width = known.shape
    pixels = np.stack([*(values * 64 + 2**15), known], -1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_chairs(root: Path, samples: int = 20) -> Path:
    (root / "data").mkdir(parents=True)
    for number in range(samples):
        name = root / "data" / f"{number + 1:05}"
        for count, picture in enumerate(pictures(number), 1):
            picture.save(f"{name}_img{count}.ppm")
        write_flo(Path(f"{name}_flow.flo"), flow(number))
    return root


def write_sintel(root: Path, scenes: int = 10, frames: int = 3) -> Path:
    """In every scene the picture moves once and comes back."""
    for scene in range(scenes):
        folders = [root / "training" / kind / f"scene_{scene}" for kind in ("clean", "final", "flow")]
        for folder in folders:
            folder.mkdir(parents=True)
        for frame in range(frames):
            for folder in folders[:2]:
                pictures(scene)[frame % 2].save(folder / f"frame_{frame + 1:04}.png")
            if frame < frames - 1:
                write_flo(folders[2] / f"frame_{frame + 1:04}.flo", flow(scene) * (-1) ** frame)
    return root


def write_kitti_flow(root: Path, samples: int = 20) -> Path:
    """Flow is known in the lower half of each picture."""
    for folder in ("image_2", "flow_occ"):
        (root / "training" / folder).mkdir(parents=True)
    known = np.arange(HEIGHT)[:, None].repeat(WIDTH, 1) >= HEIGHT // 2
    for number in range(samples):
        for end, picture in zip(("10", "11"), pictures(number), strict=True):
            picture.save(root / "training/image_2" / f"{number:06}_{end}.png")
        write_kitti(root / "training/flow_occ" / f"{number:06}_10.png", flow(number), known)
    return root
