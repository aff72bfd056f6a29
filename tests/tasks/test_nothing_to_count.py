"""A split in which metrics have nothing to count is named before anything is trained: they would be NaN or 0."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.batch import Batch
from distill.cli.main import main
from distill.data.kitti_flow import KITTIFlow
from distill.errors import DataError
from distill.pipeline.plan import plan
from distill.pipeline.run import run
from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from distill.tasks.segmentation import Segmentation
from tests.data import moves, objects, tiny
from tests.tasks.test_detection import INFO, label

QUICK = ["tracking.mode=disabled", "compress={}", "export={}", "baseline=false"]
FLOW = {"name": "kitti_flow", "height": 64, "width": 64, "crop": False, "batch_size": 4, "workers": 0}


def refused(recipe: str, data: dict[str, object], message: str, *overrides: str) -> None:
    with pytest.raises(DataError, match=message):
        plan(distill.load_recipe(recipe, [f"data={data}", *overrides]))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flow_that_is_known_nowhere(tmp_path: Path, split: str) -> None:
    root = moves.write_kitti_flow(tmp_path)
    data = KITTIFlow(0, root=root, height=64, width=64)
    nowhere = np.zeros((moves.HEIGHT, moves.WIDTH), bool)
    for number in getattr(data, split).chosen.tolist():
        moves.write_kitti(root / "training/flow_occ" / f"{number:06}_10.png", moves.flow(number), nowhere)
    name = {"train": "training", "val": "validation", "test": "test"}[split]
    refused("flow/smoke", {**FLOW, "root": str(root)}, f"the {name} split has no pixel with known flow: nothing can be")


def test_one_pair_with_known_flow_is_enough(tmp_path: Path) -> None:
    root = moves.write_kitti_flow(tmp_path)
    data = KITTIFlow(0, root=root, height=64, width=64, test=0.3)
    nowhere = np.zeros((moves.HEIGHT, moves.WIDTH), bool)
    for number in data.test.chosen.tolist()[:-1]:
        moves.write_kitti(root / "training/flow_occ" / f"{number:06}_10.png", moves.flow(number), nowhere)
    settings = {**FLOW, "root": str(root), "test": 0.3, "batch_size": 1}
    plan(distill.load_recipe("flow/smoke", [f"data={settings}", "stages={only: {epochs: 1}}", "cache=null", *QUICK]))


def test_vectors_that_are_too_long_to_be_known(tmp_path: Path) -> None:
    root = moves.write_chairs(tmp_path)
    for file in root.glob("data/*.flo"):
        moves.write_flo(file, np.full((2, moves.HEIGHT, moves.WIDTH), 1e10, np.float32))
    data = {**FLOW, "name": "flying_chairs", "root": str(root)}
    refused("flow/smoke", data, "the training split has no pixel with known flow")


def segmentation(root: Path) -> dict[str, object]:
    names = ["sky", "sea", "land"]
    return {"name": "image_masks", "root": str(root), "classes": names, "image_size": 32, "batch_size": 4, "workers": 0}


def test_masks_without_any_class(tmp_path: Path) -> None:
    root = tiny.masks(tmp_path)
    for file in root.glob("masks/*.png"):
        Image.new("L", Image.open(file).size, 255).save(file)
    refused("segmentation/smoke", segmentation(root), "the training split has no pixel with a class")


def test_boxes_of_crowds_alone(tmp_path: Path) -> None:
    def crowds(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1

    root = objects.write_coco(tmp_path, change=crowds)
    data = {"name": "coco", "root": str(root), "annotations": "annotations/things_pictures.json", "workers": 0}
    refused("detection/smoke", {**data, "image_size": 64, "batch_size": 4}, "the training split has no object that is")


def test_evaluating_on_such_a_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.masks(tmp_path / "known")
    result = run(
        distill.load_recipe(
            "segmentation/smoke",
            [f"output={tmp_path / 'runs'}", f"data={segmentation(root)}", "stages={only: {epochs: 1}}", *QUICK],
        )
    )
    other = tiny.masks(tmp_path / "unknown")
    for file in other.glob("masks/*.png"):
        Image.new("L", Image.open(file).size, 255).save(file)
    capsys.readouterr()
    assert main(["evaluate", str(result.folder / "student.safetensors"), f"data.root={other}"]) == 2
    assert "the test split has no pixel with a class" in capsys.readouterr().err


def batch(labels: object) -> Batch:
    return Batch(torch.zeros(2, 3, 8, 8), labels, torch.arange(2))


def test_batches_are_read_until_one_has_something() -> None:
    nothing = batch([label([], []), label([[0, 0, 4, 4]], [0], [1])])
    some = batch([label([], []), label([[0, 0, 4, 4]], [0])])
    read = iter([nothing, some, some])
    Detection(INFO, strides=[8]).check_countable(read, "a split")
    assert len(list(read)) == 1
    with pytest.raises(DataError, match="a split has no object"):
        Detection(INFO, strides=[8]).check_countable([nothing, nothing], "a split")


def test_a_split_without_samples_is_not_asked() -> None:
    Segmentation(INFO).check_countable([], "a split")


def test_tasks_that_always_count_read_nothing() -> None:
    read = iter([batch(torch.tensor([0, 1]))])
    Classification(INFO).check_countable(read, "a split")
    assert len(list(read)) == 1
