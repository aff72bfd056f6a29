"""A training's curve: the best epoch follows the monitor's direction, and the teacher's share of the time is known."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill.data.digits import Digits
from distill.errors import RecipeError
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.distiller import Distiller
from distill.training.fit import Trained, fit
from distill.training.stopwatch import Stopwatch
from tests.nets import ConvNet
from tests.training.test_distiller import term


class SlowTeacher(ConvNet):
    """Takes ten milliseconds for each batch."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return super().forward(inputs)


def data() -> Digits:
    return Digits(0, limit=100, crop=0, batch_size=30)


def trained(
    folder: Path, stage: Stage, teacher: nn.Module | None = None, trainer: dict[str, Any] | None = None, **settings: Any
) -> Trained:
    torch.manual_seed(0)
    digits = data()
    parts = {"optimizer": Optimizer(), "schedule": Schedule(), "injectable": {}}
    task, example = Classification(digits.info), digits.calibration(8)[0]
    module = Distiller(ConvNet(), teacher, task, stage, example=example, **parts)
    cpu = {"accelerator": "cpu", "devices": 1, **(trainer or {})}
    return fit(module, digits, folder, title="student", settings=cpu, **settings)


@pytest.mark.parametrize(("mode", "best"), [("max", max), ("min", min)])
def test_the_best_epoch_follows_the_direction_of_the_monitor(mode: Any, best: Any, tmp_path: Path) -> None:
    stage = Stage(epochs=4, keep="best", optimizer=Optimizer(lr=0.3), schedule=Schedule("constant"))
    student, _, curve = trained(tmp_path, stage, mode=mode)
    values = [row["val/accuracy"] for row in curve]
    assert len(set(values)) > 1
    digits = data()
    task = Classification(digits.info)
    metrics = task.metrics()
    with torch.no_grad():
        for batch in digits.val_dataloader():
            task.update(metrics, student(batch.inputs), batch)
    assert float(metrics.compute()["accuracy"]) == pytest.approx(best(values))


def test_an_epoch_that_was_not_validated_shows_no_older_metrics(tmp_path: Path) -> None:
    seen: list[set[str]] = []
    every_other = {"check_val_every_n_epoch": 2}
    found = trained(
        tmp_path,
        Stage(epochs=5),
        trainer=every_other,
        on_epoch=lambda *about: seen.append({*about[2]} & {"val/accuracy"}),
    )
    assert ["val/accuracy" in row for row in found.curve] == [False, True, False, True, False]
    assert [bool(metrics) for metrics in seen] == [False, True, False, True, False]
    assert all("train/loss" in row for row in found.curve)


def test_each_row_has_its_seconds_and_the_teachers_share(tmp_path: Path) -> None:
    stage = Stage(epochs=2, losses={"kd": term("kd")})
    for row in trained(tmp_path, stage, SlowTeacher()).curve:
        assert 0.03 <= row["teacher_seconds"] <= row["seconds"]  # three batches of ten milliseconds


def test_without_a_teacher_there_is_no_share(tmp_path: Path) -> None:
    (row,) = trained(tmp_path, Stage(epochs=1)).curve
    assert row["seconds"] > 0
    assert "teacher_seconds" not in row


def test_a_removed_stopwatch_leaves_no_hook() -> None:
    net = ConvNet().eval()
    watch = Stopwatch(net)
    net(torch.zeros(2, 1, 8, 8))
    assert watch.seconds() > 0
    watch.restart()
    assert watch.seconds() == 0
    watch.remove()
    net(torch.zeros(2, 1, 8, 8))
    assert watch.seconds() == 0


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_what_is_trained_in_another_precision_is_float32_again(precision: str, tmp_path: Path) -> None:
    found = trained(tmp_path, Stage(epochs=1), trainer={"precision": precision})
    assert {value.dtype for value in found.student.parameters()} == {torch.float32}


def test_a_part_of_the_batches_that_is_none_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at trainer: .*limit_train_batches"):
        trained(tmp_path, Stage(epochs=1), trainer={"limit_train_batches": 1e-6})
