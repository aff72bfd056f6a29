"""Photographs with QR codes drawn into them: scikit-learn's two sample photographs, codes by segno."""

import io
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.ops import box_iou

SIZE = 384


class Scenes(NamedTuple):
    images: Tensor
    """(scenes, 1, 384, 384), grey, from 0 to 1."""
    boxes: Tensor
    """(scenes, 4): left, top, right and bottom of the one code in each, as parts of the image."""


def scenes(count: int, seed: int) -> Scenes:
    """So many crops of photographs, each with one code of random content, size, angle, place and contrast."""
    roll = np.random.default_rng(seed)
    photographs = [Image.fromarray(image).convert("L") for image in load_sample_images().images]
    drawn = [_scene(photographs[k % len(photographs)], roll) for k in range(count)]
    images = np.stack([np.asarray(image, np.float32) for image, _ in drawn])[:, None] / 255
    return Scenes(torch.from_numpy(images), torch.tensor([box for _, box in drawn]))


def found(detections: Tensor, boxes: Tensor, overlap: float = 0.5) -> Tensor:
    """Which of the codes have a detection over them.

    Args:
        detections: (1, 1, detections, 7), as `DetectionOutput` has them.
        boxes: of one code in each scene.
        overlap: intersection over union from which on a code counts as found.
    """
    rows = detections[0, 0]
    best = torch.zeros(len(boxes))
    for index, box in enumerate(boxes):
        here = rows[rows[:, 0] == index, 3:]
        best[index] = box_iou(here, box[None].to(here)).max() if len(here) else 0.0
    return best >= overlap


def _scene(photograph: Image.Image, roll: np.random.Generator) -> tuple[Image.Image, list[float]]:
    side = int(roll.integers(250, min(photograph.size) + 1))
    left, top = (int(roll.integers(0, size - side + 1)) for size in photograph.size)
    scene = photograph.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    code = _code(roll)
    size, angle = int(roll.integers(40, 200)), float(roll.uniform(-25, 25))
    code = code.resize((size, size), Image.Resampling.BILINEAR)
    code = ImageEnhance.Brightness(ImageEnhance.Contrast(code).enhance(roll.uniform(0.6, 1))).enhance(
        roll.uniform(0.7, 1)
    )
    mask = Image.new("L", code.size, 255).rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
    code = code.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
    x, y = (int(roll.integers(0, SIZE - extent)) for extent in code.size)
    scene.paste(code, (x, y), mask)
    return scene, [x / SIZE, y / SIZE, (x + code.width) / SIZE, (y + code.height) / SIZE]


def _code(roll: np.random.Generator) -> Image.Image:
    import segno  # of the test extra

    text = "".join(roll.choice(list("abcdefghijklmnopqrstuvwxyz0123456789/:."), int(roll.integers(8, 60))))
    png = io.BytesIO()
    segno.make_qr(text).save(png, kind="png", scale=6, border=2)
    return Image.open(png).convert("L")
