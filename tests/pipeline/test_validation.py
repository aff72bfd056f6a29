"""What the validation split decides needs one, which the data set knows and not the recipe."""

from pathlib import Path

import pytest
import torch

import distill
from distill.errors import RecipeError, TrainingError
from distill.models.build import build_network
from distill.pipeline.experiment import prepared
from distill.pipeline.run import run
from tests.data import objects, tiny

DECIDED = pytest.mark.parametrize("decided", ["stages.distill.keep=best", "compress.svd.max_drop=0.01"])


def prepare(recipe: str, data: str, *overrides: str) -> None:
    prepared(distill.load_recipe(recipe, [f"data={{{data}, batch_size: 4, val: 0, workers: 0}}", *overrides]))


@DECIDED
def test_none_is_found_before_anything_is_trained(tmp_path: Path, decided: str) -> None:
    folders = f"name: image_folder, root: {tiny.pictures(tmp_path)}, image_size: 16"
    prepare("smoke", folders)
    with pytest.raises(RecipeError, match=r"(decided|measured) on the validation split, which is empty; hold out"):
        prepare("smoke", folders, decided)


@DECIDED
def test_one_of_its_own_is_enough(tmp_path: Path, decided: str) -> None:
    tiny.pictures(tmp_path, parts=("train", "val", "test"))
    prepare("smoke", f"name: image_folder, root: {tmp_path}, image_size: 16", decided)


def test_one_in_a_file_or_a_list_of_its_own_is_enough(tmp_path: Path) -> None:
    root, other = (objects.write_coco(tmp_path / folder, folder=folder) for folder in ("train", "val"))
    (other / "val").rename(root / "val")
    names = f"annotations: annotations/things_train.json, val_annotations: {other}/annotations/things_val.json"
    prepare("detection/smoke", f"name: coco, root: {root}, image_size: 64, {names}", "stages.distill.keep=best")
    root = objects.write_voc(tmp_path / "voc")
    lists = "val_list: val, test_list: null, classes: [disc, square]"
    prepare("detection/smoke", f"name: voc, root: {root}, image_size: 64, {lists}", "stages.distill.keep=best")
    for part in ("train", "val", "test"):
        tiny.masks(tmp_path / "masks" / part)
    masks = f"name: image_masks, root: {tmp_path / 'masks'}, image_size: 32, classes: [a, b, c]"
    prepare("segmentation/smoke", masks, "stages.distill.keep=best")


def test_a_trained_network_that_answers_nan_is_named(tmp_path: Path) -> None:
    network = build_network({"name": "resnet8", "num_classes": 10, "channels": 1})
    network.bn1.running_var.fill_(-1e6)  # finite, and unseen while batch statistics normalise
    torch.save(network.state_dict(), tmp_path / "spoilt.pt")
    student = f"student={{name: resnet8, weights: {tmp_path / 'spoilt.pt'}}}"
    stages = "stages={plain: {epochs: 1}}"
    recipe = distill.load_recipe("smoke", [f"output={tmp_path}", student, stages, "compress={}", "export={}"])
    with pytest.raises(TrainingError, match="student/plain: the network answers NaN on the validation split"):
        run(recipe)
