"""Data whose labels are of another kind than the task's: refused before any network is built."""

import pytest
import torch

import distill
from distill.data.flying_cutouts import FlyingCutouts
from distill.errors import RecipeError
from distill.measure.evaluation import evaluate
from distill.pipeline.experiment import prepared
from distill.pipeline.plan import plan
from distill.tasks.segmentation import Segmentation
from tests.tasks.test_detection import INFO, batch

SCENES = "data={name: fashion_scenes, articles: digits, samples: 32, test_samples: 8, image_size: 32, workers: 0, "


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("detection/smoke", "data.labels=masks", "Detection needs boxes, .* are masks: use coco, voc, or fashion_s"),
        ("detection/smoke", "data={name: digits}", "Detection needs boxes, but the labels of this data are classes"),
        ("segmentation/smoke", "data.labels=boxes", "Segmentation needs masks, .* are boxes: use image_masks, voc_m"),
        ("segmentation/smoke", "data={name: digits}", "Segmentation needs masks, but the labels of this .* classes"),
        ("smoke", SCENES + "labels: masks}", "Classification needs classes, but .* are masks: use image_folder"),
        ("smoke", SCENES + "labels: boxes}", "Classification needs classes, but the labels of this data are boxes"),
    ],
)
def test_labels_of_another_kind_are_refused(recipe: str, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(distill.load_recipe(recipe, [override]))


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection, strides: [8]"])
def test_flow_has_no_classes(task: str) -> None:
    flow = "data={name: flying_cutouts, samples: 40, test_samples: 16, image_size: 64, workers: 0}"
    with pytest.raises(RecipeError, match="needs a data set with class_names"):
        prepared(distill.load_recipe("flow/smoke", [f"task={{name: {task}}}", flow, "stages.distill.losses={}"]))


@pytest.mark.parametrize("data", ["{name: digits}", SCENES.partition("=")[2] + "labels: masks}"])
def test_flow_needs_pairs(data: str) -> None:
    with pytest.raises(RecipeError, match="needs pairs of images"):
        prepared(distill.load_recipe("flow/smoke", [f"data={data}"]))


@pytest.mark.parametrize("recipe", ["smoke", "segmentation/smoke", "detection/smoke", "flow/smoke", "style/smoke"])
def test_every_task_takes_the_data_of_its_recipes(recipe: str) -> None:
    data, task, _ = prepared(distill.load_recipe(recipe, []))
    for split in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        task.check_labels(next(iter(split)))


def test_evaluation_of_other_data_is_refused() -> None:
    with pytest.raises(RecipeError, match="Segmentation needs masks, but the labels of this data are boxes"):
        evaluate({"": lambda inputs: torch.zeros(len(inputs), 3, 96, 96)}, [batch()], Segmentation(INFO))


def test_a_task_of_ones_own_reads_what_it_likes() -> None:
    flow = next(iter(FlyingCutouts(0, samples=40, test_samples=16, image_size=64, workers=0).test_dataloader()))

    class Own(Segmentation):
        label_kind = "any"

    for one in (flow, batch(), flow._replace(labels=None), flow._replace(labels={"place": torch.zeros(2, 2)})):
        Own(INFO).check_labels(one)
