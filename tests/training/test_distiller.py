"""One stage: what trains, what stays, what resuming repeats."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from distill.data.digits import Digits
from distill.errors import RecipeError, TrainingError
from distill.losses import loss as losses
from distill.recipe.schema import Loss, Optimizer, Schedule, Stage
from distill.registry import schema
from distill.tasks.classification import Classification
from distill.training._not_finite import explain
from distill.training.distiller import Distiller
from distill.training.fit import fit
from tests.nets import TEN_CLASSES, ConvNet

SETTINGS = {"accelerator": "cpu", "devices": 1}


def test_the_mean_over_an_epoch_is_exact_in_half_precision() -> None:
    module = distiller(Stage(epochs=1))
    module.trainer = SimpleNamespace(is_last_batch=False)  # type: ignore[assignment]
    module.sums = {}
    for _ in range(2000):
        module._log({"loss": torch.tensor(2.3, dtype=torch.bfloat16)})
    total, steps = module.sums["loss"]
    assert float(total / steps) == pytest.approx(2.3, abs=0.01)


def term(name: str, **settings: Any) -> Loss:
    return schema(losses.find(name), Loss)(name=name, **settings)


def distiller(
    stage: Stage, *, student: nn.Module | None = None, lr: float = 0.05, seed: int = 0, channels_last: bool = True
) -> Distiller:
    torch.manual_seed(0)
    data = digits(seed)
    return Distiller(
        student or ConvNet(),
        ConvNet(width=8),
        Classification(TEN_CLASSES),
        stage,
        optimizer=Optimizer(lr=lr),
        schedule=Schedule(),
        example=data.calibration(8)[0],
        injectable={"train_labels": data.train_labels()},
        seed=seed,
        channels_last=channels_last,
    )


def digits(seed: int = 0) -> Digits:
    return Digits(seed, limit=300, crop=1, batch_size=64)


def trained(stage: Stage, folder: Path, **settings: Any) -> tuple[nn.Module, list[dict[str, float]]]:
    done = fit(distiller(stage, **settings), digits(), folder, title="student", settings=SETTINGS)
    return done.student, without_seconds(done.curve)


def without_seconds(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in curve]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


HINTS = {"at": term("at", weight=10.0, student=["stage1"], teacher=["stage1"]), "kd": term("kd")}


def test_every_term_is_reported_and_the_loss_is_their_sum(tmp_path: Path) -> None:
    _, curve = trained(Stage(epochs=2, losses=HINTS), tmp_path)
    assert [row["epoch"] for row in curve] == [1, 2]
    for row in curve:
        parts = row["train/task"] + row["train/at"] + row["train/kd"]
        assert row["train/loss"] == pytest.approx(parts, rel=1e-4)
        assert 0 <= row["val/accuracy"] <= 1


def test_supervised_training_learns(tmp_path: Path) -> None:
    _, curve = trained(Stage(epochs=15), tmp_path)
    assert curve[-1]["val/accuracy"] > 0.6
    assert curve[-1]["train/loss"] < curve[0]["train/loss"]


def test_the_teacher_is_never_touched(tmp_path: Path) -> None:
    module = distiller(Stage(epochs=1, losses=HINTS))
    before = {k: v.clone() for k, v in module.teacher.state_dict().items()}
    module.train()
    assert not module.teacher.training
    fit(module, digits(), tmp_path, title="student", settings=SETTINGS)
    assert all(torch.equal(v, before[k]) for k, v in module.teacher.state_dict().items())
    assert all(p.grad is None for p in module.teacher.parameters())


def test_a_teacher_may_normalise_by_the_batch_and_still_remembers_nothing() -> None:
    batch = digits().calibration(32)[0]
    answers = {}
    for mode in ("eval", "train"):
        module = distiller(Stage(epochs=1, losses=HINTS, teacher_bn=mode)).train()
        before = {k: v.clone() for k, v in module.teacher.state_dict().items()}
        answers[mode] = module.teacher(batch)["stage1"]
        assert all(torch.equal(v, before[k]) for k, v in module.teacher.state_dict().items())
    normalised = answers["train"].mean(dim=(0, 2, 3))
    assert not torch.allclose(answers["eval"].mean(dim=(0, 2, 3)), normalised, atol=1e-3)


def test_a_checkpoint_does_not_contain_the_teacher(tmp_path: Path) -> None:
    trained(Stage(epochs=1, losses=HINTS), tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert any(key.startswith("method.student.") for key in state)
    assert not any(key.startswith("method.teacher.") for key in state)


def test_several_processes_do_not_send_what_each_of_them_has() -> None:
    crd = term("crd", student=["stage3"], teacher=["stage3"], negatives=16)
    module = distiller(Stage(epochs=1, losses={"crd": crd}))
    left_out = module._ddp_params_and_buffers_to_ignore
    sent = {name for name, _ in module.named_buffers()} - set(left_out)
    assert {name.rpartition(".")[2] for name in left_out} >= {"rows", "classes", "running_mean"}
    assert all(name.startswith(("method.student.", "method.terms.")) for name in sent)
    assert {name.rpartition(".")[2] for name in sent} >= {"running_mean", "running_var", "log_z"}
    assert not any("memory" in name for name in sent)


def test_frozen_parts_keep_weights_and_batch_statistics(tmp_path: Path) -> None:
    start = ConvNet()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    student, _ = trained(Stage(epochs=1, train=["stage3.*", "head.*"]), tmp_path, student=start)
    changed = {k.partition(".")[0] for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"stage3", "head"}


class Outer(nn.Module):
    """Has a parameter of its own beside layers, as a vision transformer has its class token."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.body, self.drop, self.frozen = ConvNet(), nn.Dropout(), nn.Sequential(nn.Linear(10, 10), nn.Dropout())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.drop(self.body(inputs))) + self.token


def test_only_what_is_frozen_as_a_whole_stops_training() -> None:
    module = distiller(Stage(epochs=1, train=["body.*"]), student=Outer()).train()
    module.on_train_epoch_start()
    training = {name for name, part in module.student.model.named_modules() if part.training}
    assert training >= {"", "body", "body.stage1.1", "drop"}
    assert not training & {"frozen", "frozen.0", "frozen.1"}


def test_without_task_weight_the_classifier_stays(tmp_path: Path) -> None:
    start = ConvNet()
    before = start.head.weight.clone()
    hint = {"fitnet": term("fitnet", student=["stage2"], teacher=["stage2"])}
    student, _ = trained(Stage(epochs=1, task_weight=0, losses=hint), tmp_path, student=start)
    assert torch.equal(student.head.weight, before)


class KilledError(Exception):
    """Stands for a power cut between two epochs."""


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_killed_run_goes_on_and_ends_as_an_uninterrupted_one(keep: Any, tmp_path: Path) -> None:
    stage = Stage(epochs=4, losses=HINTS, keep=keep)
    whole, whole_curve = trained(stage, tmp_path / "whole")

    def kill(title: str, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        fit(distiller(stage), digits(), tmp_path / "cut", title="student", settings=SETTINGS, on_epoch=kill)
    again: list[int] = []
    module, on_epoch = distiller(stage), lambda title, epoch, metrics: again.append(epoch)
    resumed, _, curve = fit(module, digits(), tmp_path / "cut", title="student", settings=SETTINGS, on_epoch=on_epoch)
    assert again == [3, 4]
    assert same(whole, resumed)
    assert without_seconds(curve) == whole_curve


def test_the_same_seed_gives_the_same_network_and_another_does_not(tmp_path: Path) -> None:
    stage = Stage(epochs=1)
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        module, data = distiller(stage, seed=seed), digits(seed)
        runs.append(fit(module, data, tmp_path / str(number), title="student", settings=SETTINGS)[0])
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_best_keeps_the_best_epoch(tmp_path: Path) -> None:
    stage = Stage(epochs=4, keep="best", optimizer=Optimizer(lr=0.3), schedule=Schedule("constant"))
    student, curve = trained(stage, tmp_path)
    metrics = Classification(TEN_CLASSES).metrics()
    for batch in digits().val_dataloader():
        metrics.update(student(batch.inputs), batch.labels)
    assert float(metrics.compute()["accuracy"]) == pytest.approx(max(row["val/accuracy"] for row in curve))


def test_a_loss_that_explodes_says_where(tmp_path: Path) -> None:
    stage = Stage(epochs=3, losses={"kd": term("kd", weight=1e30)})
    with pytest.raises(
        TrainingError, match=r"student: .*NaN or Inf in epoch 1, step 1: '\w+' is (nan|inf) .*lower opt"
    ):
        trained(stage, tmp_path, lr=1e20)


def test_a_loss_that_is_nan_before_anything_is_learned_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    stage = Stage(epochs=1, losses={"kd": term("kd"), "mine": term("kd", weight=float("nan"))})
    with pytest.raises(
        TrainingError, match="student: the loss is NaN or Inf in the first step: 'mine' is nan"
    ) as raised:
        trained(stage, tmp_path)
    assert "check the settings of losses.mine" in str(raised.value)
    assert "lr" not in str(raised.value)


def test_inputs_that_are_not_finite_are_named() -> None:
    values = {"task": torch.tensor(float("nan")), "kd": torch.tensor(1.0)}
    at = {"epoch": 1, "step": 0, "lr": 0.1}
    assert "inputs of this batch" in explain(values, torch.tensor([[float("inf")]]), **at, precision="32-true")
    assert "that the network starts from" in explain(values, torch.zeros(1, 1), **at, precision="32-true")
    assert "trainer.precision=bf16-mixed" in explain(values, torch.zeros(1, 1), **at, precision="16-mixed")


def test_a_sum_that_overflows_is_named() -> None:
    values = {"task": torch.tensor(3e38), "kd": torch.tensor(3e38)}
    told = explain(values, torch.zeros(1, 1), epoch=2, step=7, lr=0.1, precision="32-true")
    assert told == (
        "the loss is NaN or Inf in epoch 2, step 7: the sum of the loss's terms is Inf (task 3e+38, kd 3e+38); "
        "lower optimizer.lr (now 0.1)"
    )


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (term("at", student=["stage9"], teacher=["stage1"]), "no module 'stage9'"),
        (term("at"), "loss 'it' does not fit these networks"),
        (term("at", student=["stage1", "stage2"], teacher=["stage1"]), "gives 2 of the student and 1 of the teacher"),
    ],
)
def test_what_cannot_be_compared_is_said_before_training(spec: Loss, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        distiller(Stage(epochs=1, losses={"it": spec}))


def test_taps_may_be_all_stages() -> None:
    module = distiller(Stage(epochs=1, losses={"at": term("at", taps="stages")}))
    assert module.student.paths == ("stage1", "stage2", "stage3")


def test_training_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"train: \['stem.\*'\] matches no parameter"):
        distiller(Stage(epochs=1, train=["stem.*"]))
