"""Whom a stage learns from: earlier stages, several teachers, a peer; what it learns before, and what it keeps."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import distill
from distill.artifact import open_artifact
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.pipeline.run import Result, run
from distill.recipe.loading import load
from distill.recipe.schema import Loss
from distill.registry import schema
from distill.training.ensemble import Ensemble
from distill.training.loss_terms import Term
from tests.nets import ConvNet

RECIPE = """
task: {name: classification}
data: {name: digits, limit: 200, batch_size: 50}
student: {name: "tests.nets:ConvNet", arguments: {width: 2}}
tracking: {mode: disabled}
trainer: {accelerator: cpu, devices: 1}
"""
TEACHER = 'teacher: {name: "tests.nets:ConvNet", arguments: {width: 4}, epochs: 1}\n'
KD = "losses: {kd: {}}"


def trained(folder: Path, text: str) -> tuple[Result, list[str]]:
    """Run a recipe; also the steps that were trained, in order."""
    file = folder / "stages.yaml"
    file.write_text(RECIPE + text)
    steps: list[str] = []
    result = run(load(str(file), [f"output={folder / 'runs'}"]), on_epoch=lambda title, *_: steps.append(title))
    return result, list(dict.fromkeys(steps))


def network(result: Result, step: str) -> nn.Module:
    return open_artifact(result.folder / step / "network.safetensors", allow=["tests.nets"]).model


def test_an_assistant_learns_from_the_teacher_and_teaches_the_student(tmp_path: Path) -> None:
    stages = f"""
stages:
  assistant: {{epochs: 1, student: {{name: "tests.nets:ConvNet", arguments: {{width: 3}}}}, {KD}}}
  distill: {{epochs: 1, teacher: assistant, {KD}}}
"""
    result, steps = trained(tmp_path, TEACHER + stages)
    assert steps == ["teacher", "baseline", "student/assistant", "student/distill"]
    assert network(result, "student/assistant").stage1[0].out_channels == 3
    assert network(result, "student/distill").stage1[0].out_channels == 2
    assert [step.step for step in result.steps] == ["teacher", "baseline", "assistant/assistant", "student"]


def test_a_network_is_born_again_from_its_elder_self(tmp_path: Path) -> None:
    stages = f"""
baseline: false
stages:
  elder: {{epochs: 1, student: {{name: "tests.nets:ConvNet", arguments: {{width: 2}}}}}}
  again: {{epochs: 1, task_weight: 0, teacher: elder, optimizer: {{lr: 1e-9}}, {KD}}}
"""
    result, steps = trained(tmp_path, stages)
    assert steps == ["student/elder", "student/again"]
    fresh = run_first_weights(tmp_path)
    reborn = network(result, "student/again")
    assert torch.allclose(reborn.head.weight, fresh.head.weight, atol=1e-6), "the younger starts from first weights"
    assert not torch.allclose(network(result, "student/elder").head.weight, fresh.head.weight, atol=1e-6)


def run_first_weights(folder: Path) -> nn.Module:
    torch.manual_seed(0)
    return ConvNet(width=2)


def test_peers_both_learn_and_the_first_is_kept(tmp_path: Path) -> None:
    stages = """
stages:
  mutual: {epochs: 2, peer: {name: "tests.nets:ConvNet", arguments: {width: 3}}, losses: {kd: {temperature: 1}}}
"""
    rows: list[dict[str, float]] = []
    file = tmp_path / "stages.yaml"
    file.write_text(RECIPE + "baseline: false\n" + stages)
    recipe = load(str(file), [f"output={tmp_path / 'runs'}"])
    result = run(recipe, on_epoch=lambda title, epoch, metrics: rows.append(metrics))
    assert {"train/task", "train/kd", "train/peer_task", "train/peer_kd"} <= rows[0].keys()
    assert rows[1]["train/peer_task"] < rows[0]["train/peer_task"], "the peer learns too"
    assert network(result, "student/mutual").stage1[0].out_channels == 2


def test_several_teachers_teach_as_one_and_any_of_them_can_be_tapped(tmp_path: Path) -> None:
    text = """
baseline: false
teachers:
  narrow: {name: "tests.nets:ConvNet", arguments: {width: 3}, epochs: 1}
  wide: {name: "tests.nets:ConvNet", arguments: {width: 4}, epochs: 1}
stages:
  distill:
    epochs: 1
    teacher: {narrow: 1, wide: 3}
    losses: {kd: {}, at: {student: [stage1], teacher: [wide.stage1]}}
"""
    result, steps = trained(tmp_path, text)
    assert steps == ["teachers/narrow", "teachers/wide", "student/distill"]
    assert [step.step for step in result.steps] == ["teachers/narrow", "teachers/wide", "student"]


def test_an_ensemble_is_the_weighted_mean_of_its_members() -> None:
    first, second = ConvNet(width=2).eval(), ConvNet(width=3).eval()
    images = torch.randn(4, 1, 8, 8)
    expected = 0.25 * first(images) + 0.75 * second(images)
    both = Ensemble({"first": first, "second": second}, {"second": 3, "first": 1}).eval()
    torch.testing.assert_close(both(images), expected)


def test_a_loss_that_reads_a_classifier_reads_that_of_the_member_it_taps(tmp_path: Path) -> None:
    both = Ensemble({"first": ConvNet(width=2), "second": ConvNet(width=2)}, {"first": 1, "second": 1})
    shape = (4, 8, 1, 1)
    features = {"stage3": torch.randn(shape)}
    for name in ("first", "second"):
        spec = schema(losses.find("srrl"), Loss)(name="srrl", student=["stage3"], teacher=[f"{name}.stage3"])
        term = Term("srrl", spec, features, {f"{name}.stage3": torch.randn(shape)}, {"teacher_model": both})
        copies = [value for value in term.parts[0].buffers() if value.shape == (10, 8)]
        assert torch.equal(copies[0], both.get_submodule(name).head.weight)


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ("a: {epochs: 1, teacher: assistent, losses: {kd: {}}}", "unknown teacher 'assistent'. .*There are: teacher"),
        ("a: {epochs: 1, student: {name: resnet20}}", "the recipe's is never trained"),
        ("teacher: {epochs: 1}", "a teacher has that name too"),
        ("a: {epochs: 1, peer: {name: resnet20}}", "the peer teaches nothing"),
        ("a: {epochs: 1, peer: {name: resnet20}, teacher: teacher, losses: {kd: {}}}", "its teacher or from its peer"),
        ("a: {epochs: 1, teacher: {teacher: 0}, losses: {kd: {}}}", "weights above 0"),
        ("a: {epochs: 1, peer: {name: resnet20}, losses: {srrl: {}}}", "reads a trained teacher's weights"),
        ("a: {epochs: 1, losses: {tfkd: {teacher: [stage1]}}}", "reads the student alone"),
    ],
)
def test_mistakes_are_named_before_training(stages: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=complaint):
        trained(tmp_path, TEACHER + f"stages:\n  {stages}\n")


LEARNED: list[float] = []


class Prepared(nn.Module):
    """Learns the mean of the teacher's features before its stage."""

    def __init__(self, student_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def prepare(self, teacher_features: Iterable[Tensor]) -> None:
        self.mean.fill_(torch.cat(list(teacher_features)).mean())
        assert len(list(teacher_features)) > 1, "it can be iterated over again"
        LEARNED.append(self.mean.item())

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.mean() - self.mean).square()


def test_what_is_learned_before_a_stage_is_learned_once_and_survives_a_kill(tmp_path: Path) -> None:
    stages = """
baseline: false
stages:
  only: {epochs: 2, losses: {own: {name: "tests.pipeline.test_stages:Prepared", student: [stage1], teacher: [stage1]}}}
"""
    (tmp_path / "stages.yaml").write_text(RECIPE + TEACHER + stages)
    recipe = load(str(tmp_path / "stages.yaml"), [f"output={tmp_path / 'runs'}"])
    LEARNED.clear()

    def kill(title: str, epoch: int, metrics: dict[str, float]) -> None:
        if title == "student/only" and epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, on_epoch=kill)
    (checkpoint,) = tmp_path.glob("runs/stages/*/student/only.part/last.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert LEARNED[1:] == [state["method.terms.own.parts.0.mean"]], (
        "learned by the dry run, on an example, and then once"
    )
    epochs: list[int] = []
    run(recipe, on_epoch=lambda title, epoch, metrics: epochs.append(epoch))
    assert epochs == [2]
    assert LEARNED[2:] == LEARNED[:1], "the dry run's again, and nothing on the data"


def test_the_student_of_simkd_ships_with_projector_and_the_teachers_classifier(tmp_path: Path) -> None:
    stages = """
baseline: false
stages:
  only: {epochs: 1, task_weight: 0, losses: {simkd: {student: [stage3], teacher: [stage3]}}}
"""
    result, _ = trained(tmp_path, TEACHER + stages)
    teacher, student = network(result, "teacher"), network(result, "student/only")
    assert torch.equal(student.head.weight, teacher.head.weight)
    loaded = distill.load(result.folder / "student.safetensors", allow=["tests.nets"])
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(loaded(images), student(images))
    assert result.steps[-1].params == sum(p.numel() for p in loaded.parameters())
