"""The metric of a sweep is one that the recipe's task computes, and its goal the direction in which that is better."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import distill
from distill.errors import RecipeError
from distill.measure.evaluation import score
from distill.pipeline.build import initial_artifact
from distill.pipeline.experiment import prepared
from tests.sweep.objectives import COMMAND, go

GRID = {"seed": {"values": [1, 2]}}
BETTER = {
    "smoke": {"accuracy": "maximize"},
    "cifar100/resnet32x4_resnet8x4": {"accuracy": "maximize", "top5_accuracy": "maximize"},
    "segmentation/smoke": {"mean_iou": "maximize", "pixel_accuracy": "maximize"},
    "detection/smoke": {"map": "maximize", "ap50": "maximize", "ap75": "maximize"},
    "flow/smoke": {"epe": "minimize", "fl_all": "minimize"},
    "style/smoke": {"total": "minimize", "content": "minimize", "style": "minimize", "smooth": "minimize"},
    "unlabelled/smoke": {"agreement": "maximize", "top5_agreement": "maximize", "kl": "minimize"},
}
CASES = [(recipe, metric, goal) for recipe, better in BETTER.items() for metric, goal in better.items()]


def search(folder: Path, recipe: str, metric: str, goal: str) -> list[float]:
    command = [*COMMAND[:3], f"recipe={recipe}", COMMAND[-1]]
    found = {"name": f"val/{metric}", "goal": goal}

    def objective(*_: object) -> Mapping[str, float]:
        return {f"val/{metric}": 0.5}

    result = go(folder, objective=objective, method="grid", parameters=GRID, metric=found, command=command)
    return [trial.value for trial in result.trials]


@pytest.mark.parametrize(("recipe", "metric", "goal"), CASES)
def test_every_metric_of_every_task_can_be_optimised(tmp_path: Path, recipe: str, metric: str, goal: str) -> None:
    assert search(tmp_path, recipe, metric, goal) == [0.5, 0.5]
    other = {"maximize": "minimize", "minimize": "maximize"}[goal]
    with pytest.raises(RecipeError, match=rf"at metric.goal: of val/{metric} the task wants to {goal}; write that"):
        search(tmp_path, recipe, metric, other)


def test_an_unknown_metric_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown metric 'val/coco'. There are: val/map, val/ap50, val/ap75"):
        search(tmp_path, "detection/smoke", "coco", "maximize")


@pytest.mark.parametrize("recipe", ["smoke", "segmentation/smoke", "detection/smoke", "flow/smoke", "style/smoke"])
def test_these_are_what_is_computed(recipe: str) -> None:
    spec = distill.load_recipe(recipe, [])
    data, task, _ = prepared(spec)
    network = initial_artifact(spec.student, data, task, 0).model
    with torch.no_grad():
        computed = score(network, data.val_dataloader(), task)
    assert {*computed} == {*task.higher_is_better()} == {*BETTER[recipe]}
