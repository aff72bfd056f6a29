"""Pictures of coloured rectangles with their boxes, in the formats of COCO and VOC."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

NAMES = ["disc", "square"]
COLOURS = [(255, 0, 0), (0, 0, 255)]


def things(number: int) -> list[tuple[int, int, int, int, int]]:
    """(left, top, right, bottom, label) of two objects, none in every fifth picture."""
    random = np.random.default_rng(number)
    left, top = int(random.integers(2, 20)), int(random.integers(2, 12))
    apart = [(left, top, left + 12, top + 14, number % 2), (left + 30, top + 10, left + 50, top + 26, 1)]
    return [] if number % 5 == 4 else apart


def picture(number: int) -> Image.Image:
    """Those objects on grey."""
    image = Image.new("RGB", (80, 60), (128, 128, 128))
    for left, top, right, bottom, label in things(number):
        image.paste(COLOURS[label], (left, top, right, bottom))
    return image


def write_coco(
    root: Path, samples: int = 20, folder: str = "pictures", change: Callable[[Any], Any] = lambda content: None
) -> Path:
    """``root/<folder>/<number>.png`` and ``root/annotations/things_<folder>.json``, changed before it is written."""
    (root / folder).mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number in range(samples):
        picture(number).save(root / folder / f"{number}.png")
        images.append({"id": 100 + number, "file_name": f"{number}.png", "height": 60, "width": 80})
        for left, top, right, bottom, label in things(number):
            box = [left, top, right - left, bottom - top]
            entry = {"id": len(annotations), "image_id": 100 + number, "category_id": [90, 7][label], "bbox": box}
            annotations.append({**entry, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": 90, "name": "disc"}, {"id": 7, "name": "square"}]
    content = {"images": images[::-1], "annotations": annotations, "categories": categories}
    change(content)
    (root / f"annotations/things_{folder}.json").write_text(json.dumps(content))
    return root


def write_voc(root: Path, samples: int = 20) -> Path:
    """The folders of VOC: three quarters of the pictures in the list "train", the others in "val"."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(samples):
        picture(number).save(root / f"JPEGImages/{number:06}.jpg", quality=95)
        top = ET.Element("annotation")
        ET.SubElement(top, "filename").text = f"{number:06}.jpg"
        size = ET.SubElement(top, "size")
        for side, pixels in {"width": 80, "height": 60, "depth": 3}.items():
            ET.SubElement(size, side).text = str(pixels)
        for *box, label in things(number):
            thing = ET.SubElement(top, "object")
            ET.SubElement(thing, "name").text = NAMES[label]
            ET.SubElement(thing, "difficult").text = str(label)
            corners = ET.SubElement(thing, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, *box[2:]), strict=True):
                ET.SubElement(corners, side).text = str(value)
        ET.ElementTree(top).write(root / f"Annotations/{number:06}.xml")
    names = [f"{number:06}" for number in range(samples)]
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:15]))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[15:]) + "\n")
    return root
