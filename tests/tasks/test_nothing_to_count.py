"""A split in which metrics have nothing to count is named before anything is trained: they would be NaN or 0."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distill
from distill.batch import Batch
from distill.cli.main import main
from distill.data.coco import COCO
from distill.data.kitti_flow import KITTIFlow
from distill.errors import DataError
from distill.pipeline.plan import plan
from distill.pipeline.run import run
from distill.tasks import Task
from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from distill.tasks.segmentation import Segmentation
from tests.data import moves, objects
from tests.tasks.test_detection import INFO, label

QUICK = ["tracking.mode=disabled", "compress={}", "export={}", "baseline=false", "stages={only: {epochs: 1}}"]
NAMES = {"train": "training", "val": "validation", "test": "test"}


def refused(recipe: str, data: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan(distill.load_recipe(recipe, [f"data={data}"]))


@pytest.mark.parametrize("split", NAMES)
def test_flow_that_is_known_only_where_it_is_cut_off(tmp_path: Path, split: str) -> None:
    root = moves.write_kitti_flow(tmp_path)
    settings: dict[str, Any] = {"height": 32, "width": 32, "crop": False, "workers": 0}
    border = np.zeros((moves.HEIGHT, moves.WIDTH), bool)
    border[0] = True
    for number in getattr(KITTIFlow(0, root=root, **settings), split).chosen.tolist():
        moves.write_kitti(root / "training/flow_occ" / f"{number:06}_10.png", moves.flow(number), border)
    message = f"the {NAMES[split]} split has no pixel with known flow: nothing can be learned"
    refused("flow/smoke", {"name": "kitti_flow", "root": str(root), **settings}, message)


def coco(root: Path, empty: str | None = None) -> dict[str, object]:
    """Settings of a data set of squares and discs, none of them in one of the splits."""
    file = root / "annotations/things_pictures.json"
    settings: dict[str, Any] = {"annotations": "annotations/things_pictures.json", "image_size": 64, "workers": 0}
    objects.write_coco(root)
    if empty:
        part = getattr(COCO(0, root=root, **settings), empty)
        names = {part.reader.files[position].name for position in part.chosen.tolist()}
        content = json.loads(file.read_text())
        gone = {image["id"] for image in content["images"] if image["file_name"] in names}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in gone]
        file.write_text(json.dumps(content))
    return {"name": "coco", "root": str(root), **settings}


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_objects(tmp_path: Path, split: str) -> None:
    refused("detection/smoke", coco(tmp_path, empty=split), f"the {NAMES[split]} split has no object that is no crowd")


def test_evaluating_on_such_a_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = coco(tmp_path / "known")
    result = run(distill.load_recipe("detection/smoke", [f"output={tmp_path / 'runs'}", f"data={data}", *QUICK]))
    other = coco(tmp_path / "unknown", empty="test")["root"]
    capsys.readouterr()
    assert main(["evaluate", str(result.folder / "student.safetensors"), f"data.root={other}"]) == 2
    assert "the test split has no object that is no crowd" in capsys.readouterr().err


def batch(labels: object) -> Batch:
    return Batch(torch.zeros(2, 3, 8, 8), labels, torch.arange(2))


@pytest.mark.parametrize(
    ("task", "nothing", "something"),
    [
        (Segmentation(INFO), torch.full((2, 8, 8), 255), torch.full((2, 8, 8), 255).index_fill(1, torch.tensor(3), 0)),
        (Detection(INFO, strides=[8]), [label([], [])] * 2, [label([], []), label([[0, 0, 4, 4]], [0])]),
        (Detection(INFO, strides=[8]), [label([[0, 0, 4, 4]], [0], [1])], [label([[0, 0, 4, 4]], [0], [0])]),
    ],
)
def test_batches_are_read_until_one_has_something(task: Task, nothing: Any, something: Any) -> None:
    read = iter([batch(nothing), batch(something), batch(something)])
    task.check_countable(read, "a split")
    assert len(list(read)) == 1
    with pytest.raises(DataError, match="a split has no"):
        task.check_countable([batch(nothing), batch(nothing)], "a split")


def test_a_split_without_samples_is_not_asked() -> None:
    Segmentation(INFO).check_countable([], "a split")


def test_tasks_that_always_count_read_nothing() -> None:
    read = iter([batch(torch.tensor([0, 1]))])
    Classification(INFO).check_countable(read, "a split")
    assert len(list(read)) == 1
