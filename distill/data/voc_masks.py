"""Masks in the format of PASCAL VOC: palette PNGs, 255 at the edges of objects.

Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 88(2), 2010.
"""

from pathlib import Path

from distill.batch import IGNORED
from distill.data import data
from distill.data._sample_data import Part, SampleData, crop_and_flip, photographs, warn_of_shared
from distill.data.image_masks import MaskedPictures, check_masks
from distill.data.info import chosen_classes
from distill.data.voc import CLASSES, listed
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count, Fraction, Index


@data("voc_masks")
class VOCMasks(SampleData):
    """``root/JPEGImages/*.jpg`` with ``root/SegmentationClass/*.png`` and lists in ``root/ImageSets/Segmentation``.

    Labels of a batch are as those of `image_masks`; class 0 is the background. ``classes`` names the others, in the
    order of their numbers. ``train_list`` names the pictures to train on, of which fractions are held out where there
    is no ``val_list`` or ``test_list``.
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
        batch_size: Count = 16,
        val: BelowOne = 0.1,
        test: BelowOne = 0.1,
        limit: Count | None = None,
        image_size: Count = 512,
        crop: bool = True,
        smallest_crop: Fraction = 0.25,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        root, names = root.expanduser(), ("background", *chosen_classes(classes, CLASSES))
        if len(names) > IGNORED or len(set(names)) < len(names):
            raise RecipeError(f"data.classes={classes}: up to {IGNORED - 1} different names beside 'background'")
        lists: dict[Part, str | None] = {"train": train_list, "val": val_list, "test": test_list}
        parts = {part: _masked(root, name, len(names)) for part, name in lists.items() if name}
        check_masks(parts, names)
        warn_of_shared({part: [picture for picture, _ in reader.pairs] for part, reader in parts.items()})
        info = photographs(image_size, names, whole=True)
        super().__init__(
            seed,
            dict(parts),
            info=info,
            augmentation=crop_and_flip(info, smallest_crop if crop else None, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _masked(root: Path, name: str, num_classes: int) -> MaskedPictures:
    """The pictures of one list with their masks."""
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    pairs = [(images / f"{entry}.jpg", masks / f"{entry}.png") for entry in listed(root, "Segmentation", name)]
    return MaskedPictures(root, pairs, num_classes)
