"""What the dry run finds before anything is trained: real steps, in the run's layout, and every artifact saved."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import distill
from distill.console import console
from distill.errors import ExportError, RecipeError, TrainingError
from distill.pipeline.dry_run import DryRun
from distill.pipeline.experiment import prepared
from tests.nets import ConvNet

ME = "tests.pipeline.test_dry_run"
SMALL = ["teacher=null", "baseline=false", "export={}", "compress={}", "tracking.mode=disabled"]


class Flattening(nn.Module):
    """Runs on tensors whose channels lie first in memory, and on no others."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU())
        self.head = nn.Linear(36, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.head(features.view(features.size(0), -1))


class Unsteady(ConvNet):
    """Outputs something else when it is built again: no artifact of it can be loaded."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + id(self) % 1000


class Pooling(nn.Sequential):
    """Batch norm of a 1x1 map: fails in training on a batch of one image."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, num_classes))


class Frozen(ConvNet):
    """Its output has no gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach()


class Lazy(nn.Sequential):
    """Has no size until it sees an image."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))


class Deep(nn.Module):
    """One of its convolutions is three-dimensional."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 4, 3), nn.Conv3d(1, 2, 3)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.deep(self.stem(images)[:, None]).mean((3, 4)).flatten(1).repeat(1, 2))


class Branching(ConvNet):
    """Chooses what it computes by values."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if inputs.mean() > 0.3 else -inputs)


class Curved(ConvNet):
    """Ends in a function that the runtime does not have."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.special.i0(super().forward(inputs))


def vector(student, teacher):  # as somebody writes it who annotates nothing
    return (student - teacher).square().mean(dim=1)


def not_a_number(student: Tensor) -> Tensor:
    return student.mean() * torch.nan


def tried(*overrides: str, recipe: str = "smoke") -> DryRun:
    loaded = distill.load_recipe(recipe, [*(SMALL if recipe == "smoke" else SMALL[1:]), *overrides])
    return DryRun(loaded, *prepared(loaded))


VECTOR = f"stages={{only: {{epochs: 1, losses: {{v: {{name: '{ME}:vector'}}}}}}}}"


def student(name: str) -> str:
    return f"student={{name: '{ME}:{name}'}}"


def test_a_network_that_cannot_bear_channels_last_falls_back_in_one_line() -> None:
    with console.capture() as shown:
        found = tried(student("Flattening"), "stages={only: {epochs: 1}}")
    assert found.recipe.channels_last is False
    assert shown.get().count("channels_last=false") == 1
    assert found.trials["student/only"].module is not None
    assert found.trials["student/only"].seconds > 0


def test_a_three_dimensional_convolution_leaves_the_rest_channels_last() -> None:
    module = tried(student("Deep"), "stages={only: {epochs: 1}}").trials["student/only"].module
    assert module is not None
    network = module.student.model
    assert network.get_parameter("stem.weight").is_contiguous(memory_format=torch.channels_last)
    assert network.get_parameter("deep.weight").is_contiguous()


@pytest.mark.parametrize(
    ("network", "export", "message"),
    [
        ("Branching", "onnx", r"at export\.onnx: Branching has no ONNX form"),
        ("Branching", "runtime", r"at export\.runtime: Branching has no graph"),
        ("Curved", "runtime", r"at export\.runtime: Curved computes special_i0, .* export it to ONNX instead"),
    ],
)
def test_a_network_that_cannot_be_exported_is_named(network: str, export: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        tried(student(network), "stages={only: {epochs: 1}}", f"export={{{export}: {{}}}}")


def test_others_keep_it() -> None:
    assert tried("stages={only: {epochs: 1}}").recipe.channels_last is True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([student("Lazy"), "stages={only: {epochs: 1}}"], "Lazy: layer '1' finds out its size from its first input"),
        (
            [
                "teacher={name: resnet8, epochs: 1}",
                "stages={hint: {epochs: 1, losses: {crd: {student: [stage3], teacher: [layer3]}}}}",
                "+trainer.precision=bf16-true",
            ],
            "at stages.hint: .*not every loss and hook takes weights of bf16-true: .*bf16-mixed",
        ),
        (
            [
                "teacher={name: resnet20, epochs: 1}",
                "student={name: resnet8}",
                "stages={only: {epochs: 1, losses: {simkd: {student: [layer3.0.conv2], teacher: [layer3]}}}}",
            ],
            "at stages.only: loss 'simkd': simkd: between 'layer3.0.conv2' and .* the student does more than average",
        ),
        (["teacher={name: vit_b_16, epochs: 1}"], "teacher 'vit_b_16' cannot read inputs of .*: Wrong image height"),
        ([student("Frozen"), "stages={only: {epochs: 1}}"], "at stages.only: a training step fails: .*grad"),
        *(
            (
                [student("Pooling"), "stages={only: {epochs: 1}}", *few.split()],
                "at stages.only: .*; a process trains on one image at a time: raise data.batch_size",
            )
            for few in (
                "data.limit=2",
                "data.batch_size=1",
                "data.batch_size=2 trainer.accelerator=cpu trainer.devices=2 trainer.strategy=ddp",
            )
        ),
        (
            [student("Unsteady"), "stages={only: {epochs: 1}}", "compress={quantize: {bits: 8}}"],
            "at compress.quantize: the artifact computes something else after it was saved and loaded",
        ),
        (
            [
                "teacher={name: resnet20, epochs: 1}",
                VECTOR,
            ],
            r"at stages.only: loss 'v' .* returns a tensor of shape \(8,\), but a loss is one number",
        ),
    ],
)
def test_what_would_fail_later_is_named_now(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tried(*overrides)


SEGMENTATION = [
    "data.samples=24",
    "data.test_samples=6",
    "cache={views: 1, top_k: 2}",
    "stages.distill.losses={kd: {}}",
]
DETECTION = ["data.samples=16", "data.test_samples=4", "cache={views: 1, top_k: 2}"]
TEACHER = "teacher={name: resnet20, epochs: 1}"
KD = "stages={only: {epochs: 1, losses: {kd: {}}}}"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "segmentation/smoke",
            SEGMENTATION,
            r"at stages.distill: the teacher's outputs at the output cannot be cached: they are of shape "
            r"\(11, 32, 32\), but cache.top_k=2 needs a row of .*: set cache.top_k=null",
        ),
        ("detection/smoke", DETECTION, "cache.top_k=2 is for a teacher's whole output, which no stage compares: set "),
        ("smoke", [TEACHER, KD, "cache={top_k: 10}"], r"shape \(10,\), but .* more than 10 logits .* cache.top_k=null"),
        (
            "smoke",
            [TEACHER, KD, "cache={}", "+trainer.precision=64-true"],
            "at stages.only: .* are of type float64; a cache keeps .*: set cache=null",
        ),
    ],
)
def test_what_a_cache_cannot_keep_is_named_now(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tried(*overrides, recipe=name)


@pytest.mark.parametrize(
    ("name", "overrides"), [("smoke", [TEACHER, KD, "cache={top_k: 9}"]), ("unlabelled/smoke", ["cache={top_k: 9}"])]
)
def test_what_a_cache_can_keep_passes(name: str, overrides: list[str]) -> None:
    assert tried(*overrides, recipe=name).modules()


def test_a_loss_that_is_nan_names_its_stage_before_anything_is_trained() -> None:
    losses = f"stages={{only: {{epochs: 1, losses: {{mine: {{name: '{ME}:not_a_number'}}}}}}}}"
    with pytest.raises(TrainingError, match="at stages.only: .* in the first step: 'mine' is nan .* losses.mine"):
        tried(losses)


def test_random_numbers_and_loggers_are_left_as_they_were() -> None:
    log = logging.getLogger("distill.compress")
    level, before = log.level, torch.get_rng_state()
    tried("stages={only: {epochs: 1}}", "compress={prune: {sparsity: 0.5}}")
    assert torch.equal(torch.get_rng_state(), before)
    assert log.level == level


def test_trainings_of_teachers_stages_and_hooks_are_all_tried() -> None:
    found = tried("teacher={name: resnet20, epochs: 1}", "compress={quantize: {bits: 8, finetune: {epochs: 1}}}")
    trained = {name for name, trial in found.trials.items() if trial.module}
    assert trained == {"teacher", "student/hint", "student/distill", "compress/1-quantize"}


def test_a_data_set_that_lacks_something_is_named() -> None:
    with pytest.raises(RecipeError, match=f"data set '{ME}:Bare' has no 'info'"):
        prepared(distill.load_recipe("smoke", [*SMALL, f"data={{name: '{ME}:Bare'}}", "stages={only: {epochs: 1}}"]))


class Bare:
    """Nothing of a data module."""

    def __init__(self, seed: int, **_: Any) -> None:
        self.seed = seed
