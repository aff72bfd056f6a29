"""Boxes in the format of PASCAL VOC: an XML file for each picture.

Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 88(2), 2010.
"""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from distill.data import data
from distill.data._boxes import Box, Invalid, box_augmentation, check_objects, checked, detection_info
from distill.data._sample_data import Part, SampleData, warn_of_shared
from distill.data.coco import BoxedPictures
from distill.data.decoding import shown
from distill.data.info import chosen_classes
from distill.errors import DataError, RecipeError
from distill.registry.ranges import BelowOne, Count, Index

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@data("voc")
class VOC(SampleData):
    """``root/JPEGImages/*.jpg`` with ``root/Annotations/*.xml`` and lists of names in ``root/ImageSets/Main``.

    Labels of a batch are as those of `coco`; difficult objects have "iscrowd" 1. ``train_list`` names the pictures to
    train on, of which fractions are held out where there is no ``val_list`` or ``test_list``.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        train_list: str = "train",
        val_list: str | None = None,
        test_list: str | None = "val",
        classes: list[str] | None = None,
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
        root, names = root.expanduser(), chosen_classes(classes, CLASSES)
        if len(set(names)) < len(names):
            raise RecipeError(f"data.classes={classes}: a name is there twice")
        lists: dict[Part, str | None] = {"train": train_list, "val": val_list, "test": test_list}
        parts = {part: _read(root, name, names, invalid) for part, name in lists.items() if name}
        for reader in parts.values():
            reader.check()
        warn_of_shared({part: reader.files for part, reader in parts.items()})
        info = detection_info(image_size, names)
        super().__init__(
            seed,
            dict(parts),
            info=info,
            augmentation=box_augmentation(info, crop, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _read(root: Path, name: str, classes: tuple[str, ...], invalid: Invalid) -> BoxedPictures:
    """The pictures of one list."""
    pictures = listed(root, "Main", name)
    entries = [_entry(root / "Annotations" / f"{picture}.xml", classes, invalid) for picture in pictures]
    check_objects((boxes for _, boxes in entries), root / "ImageSets" / "Main" / f"{name}.txt")
    files = [root / "JPEGImages" / f"{picture}.jpg" for picture in pictures]
    return BoxedPictures(root, files, [size for size, _ in entries], [boxes for _, boxes in entries])


def listed(root: Path, kind: str, name: str) -> list[str]:
    """The names of pictures in one of VOC's lists.

    Raises:
        DataError: there is no such list, it is empty, or one of its lines is not a name or one that was there before.
    """
    listing = root / "ImageSets" / kind / f"{name}.txt"
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(listing)} cannot be read ({error}); name the list with data.train_list") from None
    pictures = [line.strip() for line in lines if line.strip()]
    if not pictures:
        raise DataError(f"{shown(listing)} names no pictures")
    if wrong := [line for line in pictures if len(line.split()) > 1 or "\0" in line]:
        raise DataError(
            f"{shown(listing)}: {wrong[0][:40]!r} is not the name of one picture; the lists of single classes hold "
            f"flags: take one of all classes, such as 'train'"
        )
    if len(set(pictures)) < len(pictures):
        twice, _ = Counter(pictures).most_common(1)[0]
        raise DataError(f"{shown(listing)} names '{twice}' more than once; remove the others")
    return pictures


def _entry(path: Path, classes: tuple[str, ...], invalid: Invalid) -> tuple[tuple[int, int], tuple[Box, ...]]:
    """(height, width) and boxes of one picture."""
    try:
        tree = ElementTree.parse(path)
        height, width = (int(tree.findtext(f"size/{side}", "")) for side in ("height", "width"))
        found = [(thing.findtext("name", ""), _box(thing, classes)) for thing in tree.iterfind("object")]
    except OSError as error:
        raise DataError(f"{shown(path)}: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that Python has not
        raise DataError(f"{shown(path)} is not of VOC's form ({error})") from None
    kept = []
    for position, (name, box) in enumerate(found):
        if name not in classes:
            raise DataError(f"{shown(path)}: object {position} is a '{name}', which is none of data.classes")
        kept.append(checked(box, height, width, invalid, path, f"object {position}"))
    return (height, width), tuple(box for box in kept if box)


def _box(thing: ElementTree.Element, classes: tuple[str, ...]) -> Box:
    """VOC counts pixels from 1, and the right and bottom ones belong to the object."""
    left, top, right, bottom = (
        float(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    name = thing.findtext("name", "")
    label = classes.index(name) if name in classes else -1
    difficult = thing.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"'difficult' of an object '{name}' is '{difficult:.40}', not 0 or 1")
    return Box(left - 1, top - 1, right, bottom, label, difficult == "1")
