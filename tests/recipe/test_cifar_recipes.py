"""The six pairs of the CIFAR-100 literature, on a tiny data set in CIFAR's own format."""

from pathlib import Path

import pytest

from distill.measure import latency
from distill.pipeline.run import run
from distill.recipe.files import names
from distill.recipe.loading import load
from tests.data.tiny import cifar100

PAIRS = [name for name in names() if name.startswith("cifar100/")]
COSTS = {  # parameters and millions of MACs of teacher and student in RepDistiller's networks
    "resnet32x4_shufflenet_v1": (7_433_860, 1083.0, 949_258, 38.7),
    "resnet32x4_shufflenet_v2": (7_433_860, 1083.0, 1_355_528, 44.5),
    "wrn_40_2_shufflenet_v1": (2_255_156, 327.6, 949_258, 38.7),
    "vgg13_mobilenet_v2": (9_462_180, 284.9, 812_836, 6.52),
    "resnet50_mobilenet_v2": (23_705_252, 1298.0, 812_836, 6.52),
    "resnet32x4_resnet8x4": (7_433_860, 1083.0, 1_233_540, 177.1),
}


def test_all_six_are_there() -> None:
    assert {name.removeprefix("cifar100/") for name in PAIRS} == set(COSTS)


@pytest.mark.parametrize("name", PAIRS)
def test_runs_with_the_networks_of_the_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Exporting a ResNet-50 takes longer than the rest.
    monkeypatch.setattr(latency, "predictor", lambda *_, **__: None)
    monkeypatch.setattr(latency, "round_robin", lambda *_, **__: latency.Race({}, 0.0))
    tiny = ["teacher.epochs=1", "stages.distill.epochs=1", "schedule={}", "data.batch_size=8", "baseline=false"]
    recipe = load(
        name,
        [
            *tiny,
            "trainer={limit_train_batches: 1}",
            "compress={}",
            "export={}",
            "tracking.mode=disabled",
            f"data.root={cifar100(tmp_path / 'data', train=100, test=100)}",
            f"output={tmp_path / 'runs'}",
        ],
    )
    teacher, student = run(recipe).steps
    found = (teacher.params, teacher.macs / 1e6, student.params, student.macs / 1e6)
    assert found == pytest.approx(COSTS[name.removeprefix("cifar100/")], rel=2e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_has_the_tables_hyperparameters(name: str) -> None:
    recipe = load(name)
    rate = 0.01 if "mobilenet" in name or "shufflenet" in name else 0.05
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (rate, 0.9, 5e-4)
    assert (recipe.schedule.milestones, recipe.schedule.gamma) == ([150, 180, 210], 0.1)
    stage = recipe.stages["distill"]
    assert (stage.epochs, stage.task_weight, stage.losses["kd"].weight, recipe.data.batch_size) == (240, 0.1, 0.9, 64)
    assert stage.losses["kd"].temperature == 4
