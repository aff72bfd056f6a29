"""A stage of a recipe that trains block by block: its metrics, checkpoints and resumption."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill.data.digits import Digits
from distill.errors import RecipeError
from distill.measure import latency
from distill.pipeline.run import run
from distill.recipe.loading import load
from distill.recipe.schema import Cuts, Optimizer, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.distiller import Distiller
from distill.training.fit import fit
from students import student as students
from tests.nets import TEN_CLASSES, ConvNet
from tests.training.test_distiller import without_seconds

STAGES = ["stage1", "stage2"]


def digits() -> Digits:
    return Digits(0, limit=300, crop=1, batch_size=64)


def distiller(student: nn.Module, teacher: nn.Module, stage: Stage) -> Distiller:
    return Distiller(
        student,
        teacher,
        Classification(TEN_CLASSES),
        stage,
        optimizer=Optimizer(),
        schedule=Schedule(),
        example=digits().calibration(8)[0],
        injectable={},
        channels_last=True,
    )


def trained(folder: Path, stage: Stage, **settings: Any) -> Any:
    torch.manual_seed(0)
    module = distiller(ConvNet(), ConvNet(width=8), stage)
    return fit(module, digits(), folder, title="student", settings={"accelerator": "cpu", "devices": 1}, **settings)


def test_a_stage_reports_every_block_and_drops_the_adapters(tmp_path: Path) -> None:
    result = trained(tmp_path, Stage(epochs=2, blocks=Cuts(STAGES, STAGES), task_weight=0))
    assert {"train/block1", "train/adapter1", "train/block2"} < set(result.curve[0])
    assert result.curve[1]["train/block1"] < result.curve[0]["train/block1"]
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert {"method.blocks.cuts.0.encoder.0.weight", "method.blocks.cuts.0.decoder.weight"} < set(state)
    assert set(result.student.state_dict()) == set(ConvNet().state_dict())


class KilledError(Exception):
    """Stands for a power cut between two epochs."""


@pytest.mark.parametrize("order", ["parallel", "progressive"])
def test_a_killed_stage_goes_on_as_if_nothing_had_been(order: Any, tmp_path: Path) -> None:
    stage = Stage(epochs=3, blocks=Cuts(STAGES, STAGES, input="mixed", order=order))
    whole = trained(tmp_path / "whole", stage)

    def kill(title: str, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        trained(tmp_path / "cut", stage, on_epoch=kill)
    resumed = trained(tmp_path / "cut", stage)
    assert without_seconds(resumed.curve) == without_seconds(whole.curve)
    for ours, theirs in zip(resumed.student.state_dict().values(), whole.student.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_student_may_be_of_another_architecture() -> None:
    student = students.find("shufflenet_v2")(num_classes=10, channels=1, width=0.5, small_images=True)
    teacher = students.find("resnet20")(num_classes=10, channels=1)
    stage = Stage(epochs=1, blocks=Cuts(["stage2", "stage3"], ["layer2", "layer3"]), task_weight=0)
    module, example = distiller(student, teacher, stage), digits().calibration(8)[0]
    _, _, values = module.method.blocks(module.student, module.teacher(example), example, 0.0)
    assert all(value.isfinite() for value in values.values())


def test_a_recipe_trains_blocks_and_then_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "round_robin", lambda *_, **__: latency.Race({}, 0.0))
    cuts = "{student: [stage2, stage3], teacher: [layer2, layer3], input: mixed}"
    stages = f"stages={{blocks: {{epochs: 1, task_weight: 0, blocks: {cuts}}}, tune: {{epochs: 1, losses: {{kd: }}}}}}"
    fast = ["baseline=false", "data.limit=80", "compress={}", "export={}", "tracking.mode=disabled"]
    result = run(load("smoke", [stages, *fast, f"output={tmp_path}"]))
    assert [step.step for step in result.steps] == ["teacher", "student"]
    assert {path.name for path in (result.folder / "student").iterdir()} == {"blocks", "tune"}


def test_blocks_need_a_teacher() -> None:
    cuts = "{student: [stage2], teacher: [layer2]}"
    with pytest.raises(RecipeError, match="at stages.blocks: blocks learn from a teacher, but the recipe has none"):
        load("smoke", [f"stages={{blocks: {{epochs: 1, blocks: {cuts}}}}}", "teacher=null"])


def test_the_recipe_for_fashion_mnist_loads() -> None:
    stages = load("fashion_mnist/blocks").stages
    assert stages["blocks"].blocks
    assert not stages["tune"].blocks
