"""Optical flow of rendered chairs in front of photographs.

Dosovitskiy et al., FlowNet: Learning Optical Flow with Convolutional Networks, arXiv:1504.06852.
"""

from pathlib import Path

from distill.data import data
from distill.data._flow_files import FlowPairs, Pair, flow_augmentation, flow_info, read_flo
from distill.data._sample_data import Part, SampleData
from distill.data._scan import files_called
from distill.data.decoding import shown
from distill.errors import DataError
from distill.registry.ranges import BelowOne, Count, Index

LIST = "FlyingChairs_train_val.txt"


@data("flying_chairs")
class FlyingChairs(SampleData):
    """``root/data/00001_img1.ppm``, ``_img2.ppm`` and ``_flow.flo``; labels of a batch are a dict of "flow" (batch, 2,
    height, width) in pixels and "valid" (batch, height, width).

    Where ``root`` holds FlyingChairs_train_val.txt, the pairs that it marks with 2 are the test set; else a fraction
    is held out for it.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: Count = 8,
        val: BelowOne = 0.03,
        test: BelowOne = 0.03,
        limit: Count | None = None,
        height: Count = 320,
        width: Count = 448,
        crop: bool = True,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        info = flow_info(height, width)
        super().__init__(
            seed,
            {part: FlowPairs(root, pairs, read_flo).checked() for part, pairs in _parts(root).items()},
            info=info,
            augmentation=flow_augmentation(info, crop, flip),
            val=val,
            test=test,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _parts(root: Path) -> dict[Part, list[Pair]]:
    folder, listing = root / "data", root / LIST
    files = files_called(folder, "*_*.*")
    names = [name.removesuffix("_flow.flo") for name in files if name.endswith("_flow.flo")]
    if not names:
        raise DataError(f"{shown(folder)} holds no *_flow.flo (data.root)")
    called = [[f"{name}_{end}" for end in ("img1.ppm", "img2.ppm", "flow.flo")] for name in names]
    pairs = [Pair(*(files.get(name, folder / name) for name in pair)) for pair in called]
    if not listing.is_file():
        return {"train": pairs}
    marks = listing.read_text(encoding="utf-8", errors="replace").split()
    if len(marks) != len(pairs) or set(marks) != {"1", "2"}:
        raise DataError(f"{shown(listing)} should hold 1 (train) or 2 (test) for each of {len(pairs)} pairs")
    marked: dict[Part, str] = {"train": "1", "test": "2"}
    return {
        part: [pair for pair, found in zip(pairs, marks, strict=True) if found == mark] for part, mark in marked.items()
    }
