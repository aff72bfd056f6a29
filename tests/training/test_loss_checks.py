"""Losses that a task's outputs or labels do not fit are refused by name in the dry run."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import distill
from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.pipeline.plan import plan
from distill.recipe.schema import Loss
from distill.registry import schema
from distill.tasks import Task
from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from distill.tasks.imitation import Imitation
from distill.tasks.optical_flow import OpticalFlow
from distill.tasks.segmentation import Segmentation
from distill.tasks.style import Style
from distill.training.loss_checks import refuse_unfit
from distill.training.loss_terms import bind

INFO = DataInfo(3, (32, 32), (0.5,) * 3, (0.25,) * 3, ("cup", "hat", "bag"))
TASKS: dict[str, Task] = {
    "classification": Classification(INFO),
    "segmentation": Segmentation(INFO),
    "detection": Detection(INFO, strides=[8]),
    "flow": OpticalFlow(DataInfo(3, (32, 32), (0.5,) * 3, (0.25,) * 3, images=2)),
    "style": Style(INFO),
    "imitation": Imitation(INFO, None),
}
LABELS: dict[str, Any] = {
    "classification": torch.tensor([0, 1]),
    "segmentation": torch.zeros(2, 8, 8, dtype=torch.long),
    "detection": [{"boxes": torch.zeros(1, 4), "labels": torch.zeros(1).long(), "iscrowd": torch.zeros(1)}] * 2,
    "flow": {"flow": torch.zeros(2, 2, 8, 8), "valid": torch.ones(2, 8, 8, dtype=torch.bool)},
    "style": None,
    "imitation": None,
}
SCORES = ["kd", "dkd", "dist", "lskd", "mlld", "wttm", "tfkd"]
READS = {"dkd": "classes", "tfkd": "classes", "byot": "classes", "cirkd_memory": "masks", "fgd": "boxes"}
FITTING = {
    "dkd": {"classification", "segmentation"},
    "tfkd": {"classification", "segmentation"},
    "byot": {"classification"},
    "cirkd_memory": {"segmentation"},
    "fgd": {"detection"},
}
"""Tasks whose labels each loss reads."""


def check(task: str, name: str, taps: list[str], labels: Any = ...) -> None:
    given = LABELS[task] if labels is ... else labels
    batch = Batch(torch.zeros(2, 3, 8, 8), given, torch.arange(2))
    refuse_unfit({"mine": Loss(name, student=taps, teacher=taps)}, TASKS[task], batch)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("task", ["flow", "style"])
def test_outputs_without_class_scores(task: str, name: str) -> None:
    for tap in ("", "stage2"):
        with pytest.raises(RecipeError, match=r"loss 'mine' compares scores of classes, but outputs of \w+ hold none"):
            check(task, name, [tap])


@pytest.mark.parametrize("name", SCORES)
def test_a_detectors_output_holds_boxes_as_well(name: str) -> None:
    remedy = r"set student: \[':classes'\], teacher: \[':classes'\]"
    for tap, what in (("", "the output"), (":boxes", "':boxes'")):
        with pytest.raises(
            RecipeError, match=rf"'mine' compares scores of classes, but {what} of Detection .*{remedy}"
        ):
            check("detection", name, [tap])


@pytest.mark.parametrize("name", ["kd", "dist", "lskd", "mlld", "wttm"])
@pytest.mark.parametrize("tap", [":classes", ":bins", "head.0"])
def test_parts_that_are_class_scores_and_modules_are_taken(name: str, tap: str) -> None:
    check("detection", name, [tap])


@pytest.mark.parametrize("name", ["fitnet", "at", "pkd", "cwd", "difference"])
@pytest.mark.parametrize("task", TASKS)
def test_losses_of_anything_are_taken(task: str, name: str) -> None:
    for tap in ("", "stage2"):
        check(task, name, [tap])


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("task", TASKS)
def test_a_loss_reads_labels_of_its_kind(task: str, name: str) -> None:
    if task in FITTING[name]:
        check(task, name, ["stage2"])
        return
    with pytest.raises(RecipeError, match=r"loss 'mine' (reads|compares)"):
        check(task, name, ["stage2"])


def test_messages_name_both_kinds() -> None:
    with pytest.raises(RecipeError, match="loss 'mine' reads boxes, but the labels of this data are masks"):
        check("segmentation", "fgd", ["stage2"])
    with pytest.raises(RecipeError, match="loss 'mine' reads masks, but the labels of this data are classes"):
        check("classification", "cirkd_memory", ["stage2"])
    with pytest.raises(RecipeError, match="loss 'mine' reads labels, but Style has none"):
        check("style", "fgd", ["stage2"])


def test_labels_that_a_task_does_not_read_are_not_there_for_losses() -> None:
    """A teacher's classes are not the data's."""
    with pytest.raises(RecipeError, match="loss 'mine' reads labels, but Imitation has none"):
        check("imitation", "dkd", [""], labels=LABELS["classification"])


def anything(student: Tensor, labels: dict[str, Tensor] | None) -> Tensor:
    return student.mean()


def test_a_loss_of_ones_own_reads_what_it_says() -> None:
    check("flow", "tests.training.test_loss_checks:anything", ["stage2"])


@pytest.mark.parametrize(
    ("recipe", "losses", "message"),
    [
        ("flow/smoke", "{kd: {}}", "compares scores of classes, but outputs of OpticalFlow hold none"),
        ("style/smoke", "{dist: {}}", "compares scores of classes, but outputs of Style hold none"),
        ("style/smoke", "{fgd: {student: [blocks], teacher: [blocks]}}", "'fgd' reads labels, but Style has none"),
        ("detection/smoke", "{kd: {}}", r"scores of classes, but the output of Detection .* student: \[':classes'\]"),
        ("segmentation/smoke", "{fgd: {student: [up.1], teacher: [up.1]}}", "reads boxes, .* data are masks"),
    ],
)
def test_a_recipe_is_refused_before_training(recipe: str, losses: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"at stages.distill: loss .*{message}"):
        plan(distill.load_recipe(recipe, [f"stages.distill.losses={losses}"]))


def test_a_detectors_class_scores_are_distilled() -> None:
    taps = "student: [':classes'], teacher: [':classes']"
    plan(distill.load_recipe("detection/smoke", [f"stages.distill.losses={{kd: {{{taps}}}, wttm: {{{taps}}}}}"]))


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "segmentation/smoke",
            ["teacher.image_size=64"],
            "'' of the student is (8, 11, 32, 32) and '' of the teacher (8, 11, 64",
        ),
        (
            "segmentation/smoke",
            ["teacher.image_size=16", "{dist: {}}"],
            "(8, 11, 16, 16): tap others, or let both",
        ),
        ("segmentation/smoke", ["teacher.image_size=64", "{dkd: {}}"], "(8, 11, 64, 64)"),
        ("segmentation/smoke", ["teacher.image_size=64", "{difference: {}}"], "(8, 11, 64, 64)"),
        ("segmentation/smoke", ["{kd: {student: [up.1], teacher: [up.1]}}"], "'up.1' of the teacher (8, 8, 32, 32)"),
        ("smoke", ["{difference: {student: [stage3], teacher: [layer2]}}"], "'layer2' of the teacher (8, 32,"),
    ],
)
def test_shapes_that_differ_are_named(recipe: str, overrides: list[str], message: str) -> None:
    words = [f"stages.distill.losses={word}" if word[0] == "{" else word for word in overrides]
    with pytest.raises(RecipeError, match=f"compares tensors of one shape, .*{re.escape(message)}"):
        plan(distill.load_recipe(recipe, words))


def test_one_shape_is_not_another_by_repetition() -> None:
    """PyTorch would repeat the teacher's one position at every position of the student."""
    spec = schema(losses.find("kd"), Loss)(name="kd", student=["s"], teacher=["t"])
    features = {"s": torch.randn(2, 3, 4, 4)}, {"t": torch.randn(2, 3, 1, 1)}
    with pytest.raises(RecipeError, match=re.escape("is (2, 3, 4, 4) and 't' of the teacher (2, 3, 1, 1)")):
        bind(
            {"kd": spec},
            *features,
            Batch(torch.zeros(2, 3, 8, 8), None, torch.arange(2)),
            {},
        )


def test_a_larger_teacher_is_compared_where_sizes_may_differ() -> None:
    words = ["teacher.image_size=64", "stages.distill.losses={cwd: {student: [up.1], teacher: [up.1]}}"]
    plan(distill.load_recipe("segmentation/smoke", words))
