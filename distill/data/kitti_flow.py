"""Optical flow of street scenes, known where a laser scanner measured it.

Menze and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015 (KITTI 2015); Geiger et al., Are we ready for
Autonomous Driving? The KITTI Vision Benchmark Suite, CVPR 2012 (KITTI 2012).
"""

from pathlib import Path

from distill.data import data
from distill.data._flow_files import FlowPairs, Pair, flow_augmentation, flow_info, read_kitti
from distill.data._sample_data import SampleData
from distill.data._scan import files_called, is_folder
from distill.data.decoding import shown
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Index

FOLDERS = ("image_2", "colored_0", "image_0")
"""Of the left camera: in colours of 2015, of 2012, and in grey of 2012."""


@data("kitti_flow")
class KITTIFlow(SampleData):
    """``root/training/image_2/000000_10.png`` and ``_11.png`` with ``root/training/flow_occ/000000_10.png``; labels of
    a batch are as those of `flying_chairs`. Fractions are held out as the test set and for validation.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: Count = 4,
        val: BelowOne = 0.1,
        test: BelowOne = 0.2,
        limit: Count | None = None,
        height: Count = 320,
        width: Count = 1152,
        crop: bool = True,
        flip: bool = False,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        info = flow_info(height, width)
        super().__init__(
            seed,
            {"train": FlowPairs(root, _pairs(root / "training"), read_kitti).checked()},
            info=info,
            augmentation=flow_augmentation(info, crop, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _pairs(training: Path) -> list[Pair]:
    flows = files_called(training / "flow_occ", "*_10.png")
    if not flows:
        raise DataError(f"{shown(training / 'flow_occ')} holds no *_10.png (data.root)")
    found = [folder for folder in FOLDERS if is_folder(training / folder)]
    if not found:
        raise DataError(f"{shown(training)} holds none of {', '.join(FOLDERS)}")
    folder = training / found[0]
    images = files_called(folder, "*.png")
    pairs = []
    for name, flow in flows.items():
        first, second = (images.get(one, folder / one) for one in (name, name.replace("_10.png", "_11.png")))
        pairs.append(Pair(first, second, flow))
    return pairs
