"""Stages on the device: what they compute, what they repeat, and what they leave behind."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill.recipe.schema import Cache, Cuts, Loss, Mix, Optimizer, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.cache import CachedTeacher
from distill.training.cache._store import Store
from distill.training.distiller import Distiller
from distill.training.fit import Trained, fit
from distill.training.teacher import Teacher
from distill.training.trial import try_steps
from tests.nets import TEN_CLASSES, ConvNet
from tests.training.test_distiller import digits, same, term, without_seconds

KD = {"kd": term("kd")}
TAPS = {"student": ["stage1"], "teacher": ["stage1"]}
LOSSES: dict[str, Loss] = {"kd": term("kd"), "at": term("at", weight=10.0, **TAPS), "crd": term("crd", weight=0.1)}
STAGES = {
    "feature maps and a memory bank": Stage(epochs=1, losses=LOSSES),
    "average": Stage(epochs=1, losses=KD, ema=0.9),
    "mixed images": Stage(epochs=1, losses=KD, mix=Mix(mixup=0.2, cutmix=1.0)),
    "blocks": Stage(epochs=1, losses=KD, blocks=Cuts(student=["stage1", "stage2"], teacher=["stage1", "stage2"])),
    "what is learned before": Stage(epochs=1, losses={"ft": term("ft", paraphraser_epochs=1, **TAPS)}),
}
WITH_GPU = pytest.mark.gpu


def module(stage: Stage, **settings: Any) -> Distiller:
    torch.manual_seed(0)
    data = digits()
    chosen = {"optimizer": Optimizer(), "schedule": Schedule(), "channels_last": True, **settings}
    return Distiller(
        ConvNet(),
        ConvNet(width=8),
        Classification(TEN_CLASSES),
        stage,
        example=data.calibration(8)[0],
        injectable={"train_labels": data.train_labels()},
        **chosen,
    )


def trained(module: Distiller, folder: Path, device: str, **settings: Any) -> Trained:
    chosen = {"accelerator": device, "devices": 1, **settings}
    return fit(module, digits(), folder, title="student", settings=chosen)


def finite(done: Trained) -> bool:
    return all(torch.tensor(value).isfinite() for row in done.curve for value in row.values())


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_and_comes_back_to_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    stage = module(STAGES[name])
    done = trained(stage, tmp_path, device)
    assert finite(done)
    assert {value.device.type for value in done.student.state_dict().values()} == {"cpu"}
    assert {value.device.type for value in stage.state_dict().values()} == {"cpu"}  # the teacher, for later stages


@pytest.mark.parametrize(
    "precision",
    ["bf16-mixed", "bf16-true", pytest.param("16-mixed", marks=WITH_GPU), pytest.param("16-true", marks=WITH_GPU)],
)
def test_half_precision_learns_about_as_full_precision(precision: str, device: str, tmp_path: Path) -> None:
    if precision.startswith("16") and device == "cpu":
        pytest.skip("CPUs do not compute in float16")
    full = trained(module(Stage(epochs=3, losses=KD)), tmp_path / "full", device)
    half = trained(module(Stage(epochs=3, losses=KD)), tmp_path / "half", device, precision=precision)
    assert half.curve[-1]["train/loss"] == pytest.approx(full.curve[-1]["train/loss"], rel=0.1)
    assert {value.dtype for value in half.student.parameters()} == {torch.float32}


def test_the_same_seed_gives_the_same_network(device: str, tmp_path: Path) -> None:
    stage = Stage(epochs=2, losses=KD, mix=Mix(mixup=0.2))
    first, second = (
        trained(module(stage), tmp_path / name, device, deterministic=True) for name in ("first", "second")
    )
    assert same(first.student, second.student)
    assert without_seconds(first.curve) == without_seconds(second.curve)


def test_a_killed_run_ends_as_an_uninterrupted_one(device: str, tmp_path: Path) -> None:
    stage = Stage(epochs=3, losses=KD, ema=0.9)
    whole = trained(module(stage), tmp_path / "whole", device, deterministic=True)

    def killed(_: str, epoch: int, __: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    settings = {"accelerator": device, "devices": 1, "deterministic": True}
    with pytest.raises(KeyboardInterrupt):
        fit(module(stage), digits(), tmp_path / "killed", title="", settings=settings, on_epoch=killed)
    resumed = trained(module(stage), tmp_path / "killed", device, deterministic=True)
    assert same(whole.student, resumed.student)


def test_a_cache_gives_what_the_teacher_gives(device: str, tmp_path: Path) -> None:
    stage = Stage(epochs=2, losses={"kd": term("kd"), "at": LOSSES["at"]})
    folder = tmp_path / "cache"
    folder.mkdir()

    def cached(teacher: Teacher) -> nn.Module:
        return CachedTeacher(teacher, Store(folder, teacher.paths, digits().samples, Cache(views=1, dtype="float32")))

    data = digits()
    data.views = 1
    settings = {"accelerator": device, "devices": 1, "deterministic": True}
    curves = [
        fit(module(stage, **how), data, tmp_path / str(number), title="", settings=settings).curve
        for number, how in enumerate([{}, {"cached": cached}, {"cached": cached}])
    ]
    live, filling, reading = ([row["train/loss"] for row in curve] for curve in curves)
    assert filling == pytest.approx(live, rel=1e-5)
    assert reading == filling


def test_all_of_a_batch_but_its_positions_goes_to_the_device() -> None:
    batch = digits().calibration(4)[0]
    moved = module(Stage(epochs=1)).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert (moved.inputs.device.type, moved.labels.device.type, moved.sample.device.type) == ("meta", "meta", "cpu")


def test_steps_are_timed_until_they_are_computed(device: str) -> None:
    batches = digits().calibration(128)
    seconds = try_steps(module(Stage(epochs=1, losses=KD)), batches, {"accelerator": device, "devices": 1})
    assert len(seconds) == len(batches)
    assert min(seconds) > 0


@WITH_GPU
def test_batches_are_read_into_pinned_memory() -> None:
    batch = next(iter(digits().train_dataloader()))
    assert batch.inputs.is_pinned()
    assert batch.labels.is_pinned()


@WITH_GPU
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_are_fused_unless_gradients_are_clipped(name: Any, tmp_path: Path) -> None:
    stage = Stage(epochs=1, losses=KD)
    chosen = {"optimizer": Optimizer(name=name, lr=0.01)}
    for clipping, fused in ({}, True), ({"gradient_clip_val": 1.0, "precision": "16-mixed"}, None):
        made = module(stage, **chosen)
        folder = tmp_path / str(fused)
        assert finite(trained(made, folder, "cuda", **clipping))
        (state,) = torch.load(folder / "last.ckpt", weights_only=True)["optimizer_states"]
        assert state["param_groups"][0]["fused"] is fused


@WITH_GPU
def test_compiled_networks_learn_the_same(tmp_path: Path) -> None:
    plain, compiled = (
        trained(module(Stage(epochs=2, losses=KD), compiled=how), tmp_path / str(how), "cuda") for how in (False, True)
    )
    assert compiled.curve[-1]["train/loss"] == pytest.approx(plain.curve[-1]["train/loss"], rel=0.02)


@WITH_GPU
def test_one_process_of_ddp_learns_the_same(tmp_path: Path) -> None:
    alone, ddp = (
        trained(module(Stage(epochs=1, losses=KD)), tmp_path / how, "cuda", strategy=how, deterministic=True)
        for how in ("auto", "ddp")
    )
    assert ddp.curve[-1]["train/loss"] == pytest.approx(alone.curve[-1]["train/loss"], rel=1e-3)


@WITH_GPU
def test_no_memory_is_kept_from_step_to_step_nor_after_a_stage(tmp_path: Path) -> None:
    trained(module(Stage(epochs=1, losses=KD)), tmp_path / "first", "cuda")
    gc.collect()
    before, peaks = torch.cuda.memory_allocated(), []
    for epochs in (1, 4):
        torch.cuda.reset_peak_memory_stats()
        trained(module(Stage(epochs=epochs, losses=KD)), tmp_path / str(epochs), "cuda")
        gc.collect()
        peaks.append(torch.cuda.max_memory_allocated())
        assert torch.cuda.memory_allocated() <= before + 2**20
    assert peaks[1] <= 1.05 * peaks[0]
