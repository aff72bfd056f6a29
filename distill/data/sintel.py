"""Optical flow of an animated film.

Butler et al., A Naturalistic Open Source Movie for Optical Flow Evaluation, ECCV 2012.
"""

from pathlib import Path
from typing import Literal

from distill.data import data
from distill.data._flow_files import FlowPairs, Pair, flow_augmentation, flow_info, read_flo
from distill.data._sample_data import SampleData
from distill.data._scan import files_called, is_folder
from distill.data._split import shuffled
from distill.data.decoding import shown
from distill.errors import DataError, RecipeError
from distill.registry.ranges import BelowOne, Count, Index


@data("sintel")
class Sintel(SampleData):
    """``root/training/<rendering>/<scene>/frame_0001.png`` with ``root/training/flow/<scene>/frame_0001.flo``; labels
    of a batch are as those of `flying_chairs`.

    Whole scenes are held out as the test set: frames of one scene are much alike.
    """

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        rendering: Literal["clean", "final"] = "clean",
        batch_size: Count = 8,
        val: BelowOne = 0.1,
        test: BelowOne = 0.2,
        limit: Count | None = None,
        height: Count = 384,
        width: Count = 768,
        crop: bool = True,
        flip: bool = True,
        workers: Index = 4,
    ) -> None:
        root = root.expanduser()
        scenes = _scenes(root / "training", rendering)
        held_out = max(1, round(test * len(scenes)))
        if not test or held_out >= len(scenes):
            raise RecipeError(f"data.test={test} of {len(scenes)} scenes: above 0, and some must be left to train on")
        order = shuffled(len(scenes), None).tolist()
        info = flow_info(height, width)
        super().__init__(
            seed,
            {
                "train": FlowPairs(root, _joined(scenes, sorted(order[held_out:])), read_flo).checked(),
                "test": FlowPairs(root, _joined(scenes, sorted(order[:held_out])), read_flo).checked(),
            },
            info=info,
            augmentation=flow_augmentation(info, crop, flip),
            val=val,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
        )


def _scenes(training: Path, rendering: str) -> list[list[Pair]]:
    """The pairs of each scene, in order."""
    folders = sorted(path for path in (training / "flow").glob("*") if is_folder(path))
    if not folders:
        raise DataError(f"{shown(training / 'flow')} holds no scenes (data.root)")
    scenes = []
    for folder in folders:
        frames = list(files_called(training / rendering / folder.name, "frame_*.png").values())
        flows = list(files_called(folder, "frame_*.flo").values())
        if [path.stem.lower() for path in frames[:-1]] != [path.stem.lower() for path in flows]:
            raise DataError(f"{shown(folder)}: {len(flows)} flows for {len(frames)} frames, but one less is expected")
        scenes.append([Pair(*files) for files in zip(frames, frames[1:], flows, strict=False)])
    return scenes


def _joined(scenes: list[list[Pair]], chosen: list[int]) -> list[Pair]:
    return [pair for position in chosen for pair in scenes[position]]
