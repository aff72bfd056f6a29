"""Boxes in the format of COCO: its own files, or any JSON file of that form with a folder of pictures.

Lin et al., Microsoft COCO: Common Objects in Context, arXiv:1405.0312; format at cocodataset.org/#format-data.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from errno import ENAMETOOLONG
from hashlib import blake2b
from pathlib import Path
from typing import Any

from distill.data import data
from distill.data._boxes import Box, Invalid, box_augmentation, boxes_label, check_objects, checked, detection_info
from distill.data._sample_data import Part, SampleData, warn_of_shared
from distill.data._samples import Sample
from distill.data._scan import check_once
from distill.data.decoding import check_size, open_picture, picture_size, shown
from distill.data.pictures import file_identity
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Index

BOXED = "its boxes are for"
"""What a message says before the size that a picture should be of."""


@dataclass(frozen=True)
class BoxedPictures:
    """Pictures, and the boxes of the objects in each of them."""

    root: Path
    files: Sequence[Path]
    sizes: Sequence[tuple[int, int]]
    """(height, width) that boxes are given for."""
    boxes: Sequence[tuple[Box, ...]]
    classes: None = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, position: int) -> Sample:
        picture = open_picture(self.files[position])
        check_size(self.files[position], (picture.height, picture.width), self.sizes[position], BOXED)
        return Sample((picture,), boxes_label(self.boxes[position], *self.sizes[position]))

    def identity(self, position: int) -> bytes:
        return file_identity(self.root, self.files[position]) + repr(self.boxes[position]).encode()

    def check(self) -> None:
        """Raises: DataError: a picture is missing, none, or of another size than its boxes are for."""
        sizes = blake2b(repr(self.sizes).encode(), digest_size=8).hexdigest()
        check_once(f"pictures {sizes}", range(len(self)), self._check_header, self.files)

    def _check_header(self, position: int) -> None:
        check_size(self.files[position], picture_size(self.files[position]), self.sizes[position], BOXED)


@data("coco")
class COCO(SampleData):
    """``root/annotations/instances_train2017.json`` with ``root/train2017/*.jpg``, or files of your own.

    Labels of a batch are a list with one dict of tensors for each image: "boxes" (n, 4) as left, top, right and bottom
    in pixels, "labels" (n,) by position in ``info.class_names``, "iscrowd" (n,). Pictures without objects have n = 0.

    ``annotations`` and the others are relative to ``root``. Pictures are looked for by their ``file_name`` in ``root``,
    beside the JSON file, in ``root/images`` and in the folder that the JSON file is called after. Without a file for
    the test set or for validation, fractions of the training set are held out.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        annotations: str = "annotations/instances_train2017.json",
        val_annotations: str | None = None,
        test_annotations: str | None = None,
        invalid: Invalid = "refuse",
        batch_size: Count = 16,
        val: BelowOne = 0.1,
        test: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 320,
        crop: bool = True,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        names: dict[Part, str | None] = {"train": annotations, "val": val_annotations, "test": test_annotations}
        read = {part: _read(root, root / name, invalid) for part, name in names.items() if name}
        class_names = read["train"][1]
        for part, (_, others) in read.items():
            if others != class_names:
                raise DataError(f"{root / str(names[part])} and {root / annotations} have other categories")
        for reader, _ in read.values():
            reader.check()
        warn_of_shared({part: reader.files for part, (reader, _) in read.items()})
        info = detection_info(image_size, class_names)
        super().__init__(
            seed,
            {part: reader for part, (reader, _) in read.items()},
            info=info,
            augmentation=box_augmentation(info, crop, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _read(root: Path, path: Path, invalid: Invalid) -> tuple[BoxedPictures, tuple[str, ...]]:
    """All pictures of one JSON file by id, and the names of its categories by id."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{shown(path)}: {error.strerror}; name the file with data.annotations") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(path)} is no JSON file ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{shown(path)} is not of COCO's form: a mapping of images, annotations and categories")
    categories = _by_id(path, content, "categories", {"name": str})
    images = _by_id(path, content, "images", {"file_name": str, "height": int, "width": int})
    if not images or not categories:
        raise DataError(f"{shown(path)} lists {len(images)} images and {len(categories)} categories")
    names = [entry["name"] for entry in categories.values()]
    if wrong := [number for number, name in zip(categories, names, strict=True) if not _is_text(name)]:
        raise DataError(f"{shown(path)}: the name of category {wrong[0]} is not UTF-8")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{shown(path)}: two categories have the name '{twice}'")
    labels = {number: label for label, number in enumerate(categories)}
    boxes: defaultdict[int, list[Box]] = defaultdict(list)
    for number, entry in _by_id(path, content, "annotations", {"image_id": int, "category_id": int}).items():
        image = images.get(entry["image_id"])
        if image is None or entry["category_id"] not in labels:
            missing = f"image {entry['image_id']}" if image is None else f"category {entry['category_id']}"
            raise DataError(f"{shown(path)}: annotation {number} is of {missing}, which the file does not list")
        box = _box(path, number, entry, labels[entry["category_id"]])
        if kept := checked(box, image["height"], image["width"], invalid, path, f"annotation {number}"):
            boxes[entry["image_id"]].append(kept)
    check_objects(boxes.values(), path)
    reader = BoxedPictures(
        root,
        _files(root, path, {number: image["file_name"] for number, image in images.items()}),
        [(image["height"], image["width"]) for image in images.values()],
        [tuple(boxes[number]) for number in images],
    )
    return reader, tuple(names)


def _is_text(name: str) -> bool:
    """Whether a string can be written: JSON may hold half of a character, such as U+D800."""
    return name.encode(errors="replace").decode() == name


def _box(path: Path, number: int, entry: Mapping[str, Any], label: int) -> Box:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is(value, int) or _is(value, float) for value in box):
        raise DataError(f"{shown(path)}: annotation {number} has no 'bbox' of left, top, width and height")
    crowd = entry.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise DataError(f"{shown(path)}: annotation {number} has 'iscrowd' {json.dumps(crowd):.40}; 0 or 1 is needed")
    left, top, width, height = box
    return Box(left, top, left + width, top + height, label, bool(crowd))


def _is(value: object, kind: type) -> bool:
    """Whether a value is of this type; integers, which JSON has without limit, of 64 bits."""
    return type(value) is kind and (not isinstance(value, int) or value.bit_length() < 64)


def _by_id(path: Path, content: Mapping[str, Any], section: str, needed: Mapping[str, type]) -> dict[int, Any]:
    """The entries of a section, by ascending id, each with what is needed of it."""
    entries = content.get(section)
    if not isinstance(entries, list):
        raise DataError(f"{shown(path)} has no list '{section}'")
    found: dict[int, Any] = {}
    for position, entry in enumerate(entries):
        for key, kind in {"id": int, **needed}.items():
            if not isinstance(entry, dict) or not _is(entry.get(key), kind) or not str(entry[key]).strip():
                raise DataError(f"{shown(path)}: entry {position} of '{section}' has no '{key}' ({kind.__name__})")
        if entry["id"] in found:
            raise DataError(f"{shown(path)}: two entries of '{section}' have the id {entry['id']}")
        found[entry["id"]] = entry
    return dict(sorted(found.items()))


def _found(name: Path, place: Path, places: Sequence[Path]) -> Path:
    """A picture in the folder where others are, or in another one if it is there alone."""
    return next((other / name for other in (place, *places) if (other / name).is_file()), place / name)


def _files(root: Path, path: Path, names: Mapping[int, str]) -> list[Path]:
    """The picture of each image, by the ids of images: in the folder of the first one, or where else it lies."""
    found: dict[Path, int] = {}
    for number, name in names.items():
        if not _is_possible(root / name):
            raise DataError(f"{shown(path)}: no file can be called as 'file_name' of image {number} says")
        if (first := found.setdefault(Path(name), number)) != number:
            raise DataError(
                f"{shown(path)}: images {first} and {number} have one 'file_name', '{shown(name)}'; keep one"
            )
    places = [root, path.parent, root / "images", root / path.stem.rpartition("_")[2]]
    for place in places:
        if (place / next(iter(found))).is_file():
            return [_found(name, place, places) for name in found]
    raise DataError(
        f"{shown(path)}: its picture '{shown(next(iter(found)))}' is in none of {', '.join(map(shown, places))}"
    )


def _is_possible(path: Path) -> bool:
    """Whether a file may have this name, be there one or not."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno != ENAMETOOLONG
    except ValueError:  # NUL, or what is no text
        return False
    return True
