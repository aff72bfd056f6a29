"""Imitation: metrics against plain formulas, recipes that cannot work named, and the whole line without labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

import distill
from distill.batch import Batch, Predict
from distill.cli.main import main
from distill.data import DataInfo
from distill.errors import DataError, RecipeError
from distill.pipeline.experiment import prepared
from distill.pipeline.run import run
from distill.recipe.typed import built
from distill.registry import task as tasks
from distill.tasks import injectable
from distill.tasks.imitation import Imitation

INFO = DataInfo(3, (8, 8), (0.5,) * 3, (0.25,) * 3, preprocessing={"mode": "RGB"})
CLASSES = 7


class Counting(nn.Sequential):
    """A linear teacher that counts its calls."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(inputs)


@pytest.fixture
def teacher() -> Counting:
    torch.manual_seed(0)
    return Counting().requires_grad_(False)


def imitation(teacher: Predict | None, **settings: Any) -> Imitation:
    return built({"name": "imitation", **settings}, tasks, injectable(INFO, lambda: teacher))


def batch(samples: int = 20) -> Batch:
    inputs = torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(inputs, None, torch.arange(samples))


def scores(task: Imitation, output: Tensor, given: Batch) -> dict[str, float]:
    metrics = task.metrics().clone(prefix="val/")
    for part in (slice(0, 3), slice(3, None)):
        task.update(metrics, output[part], given.take(part))
    return {name.removeprefix("val/"): float(value) for name, value in metrics.compute().items()}


def test_metrics_compare_with_the_teacher_image_by_image(teacher: Counting) -> None:
    given, output = batch(), torch.randn(20, CLASSES, generator=torch.Generator().manual_seed(2))
    p, q = (logits.double().softmax(1).numpy() for logits in (teacher(given.inputs), output))
    best = p.argmax(1)
    assert scores(imitation(teacher), output, given) == pytest.approx(
        {
            "agreement": np.mean([row.argmax() == one for row, one in zip(q, best, strict=True)]),
            "top5_agreement": np.mean([one in np.argsort(row)[-5:] for row, one in zip(q, best, strict=True)]),
            "kl": np.mean([sum(a * np.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q)]),
        },
        rel=1e-5,
    )


def test_the_teacher_agrees_with_itself_whatever_the_labels(teacher: Counting) -> None:
    given = batch()._replace(labels=torch.zeros(20))
    assert scores(imitation(teacher), teacher(given.inputs), given) == {"agreement": 1, "top5_agreement": 1, "kl": 0}


def test_of_a_split_that_is_evaluated_again_the_teacher_s_outputs_are_kept(teacher: Counting) -> None:
    task, given = imitation(teacher), batch()
    output = torch.zeros(20, CLASSES)
    first = scores(task, output, given)
    calls = teacher.calls
    assert scores(task, output, given) == first
    assert teacher.calls == calls
    scores(task, output, given._replace(inputs=given.inputs + 1))
    assert teacher.calls > calls


def test_the_loss_has_its_least_value_and_no_gradient_at_the_teacher_s_logits(teacher: Counting) -> None:
    task, given = imitation(teacher), batch()
    same = (teacher(given.inputs) + 3).requires_grad_()  # probabilities know no offset
    loss = task.loss(same, given)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(same.grad, torch.zeros_like(same), atol=1e-6, rtol=0)
    assert task.loss(torch.zeros(20, CLASSES), given) > 0.01


def test_predictions_are_named_after_the_teacher_s_classes(teacher: Counting) -> None:
    output = torch.eye(CLASSES)[[2]] * 9
    (number,) = imitation(teacher).predict(output)
    (name,) = json.loads(json.dumps(imitation(None, class_names=list("abcdefg")).predict(output)))
    assert (number["class"], name["class"], len(name["top"])) == (2, "c", 5)
    assert name["probability"] == pytest.approx(float(output.softmax(1).max()))
    assert imitation(None, class_names="imagenet").class_names == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert imitation(teacher).draw(Image.new("RGB", (120, 120)), number).height > 120


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nn.Conv2d(3, CLASSES, 1), r"logits \(batch, classes\), not of shape \(1, 7, 8, 8\)"),
        (nn.Conv2d(1, 1, 3), "the teacher cannot read inputs of 3x8x8"),
        (lambda inputs: {"out": inputs}, "not a dict"),
    ],
)
def test_a_teacher_that_does_not_output_logits_is_refused(wrong: Predict, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        imitation(wrong)
    assert "\n" not in str(error.value)


def test_names_of_other_classes_and_metrics_without_the_teacher_are_refused(teacher: Counting) -> None:
    with pytest.raises(RecipeError, match="3 names, but the teacher outputs 7 classes"):
        imitation(teacher, class_names=list("abc"))
    with pytest.raises(RecipeError, match="no artifact holds"):
        scores(imitation(None), torch.zeros(20, CLASSES), batch())


def recipe(tmp_path: Path, *overrides: str) -> Any:
    return distill.load_recipe("unlabelled/smoke", [f"output={tmp_path}", "tracking.mode=disabled", *overrides])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher=null", "needs a section 'teacher' with weights"),
        ("teacher={name: mobilenet_v1, epochs: 3}", "no labels to train a teacher with"),
        ("teacher={name: mobilenet_v1, weights: nowhere.pth}", "no checkpoint file 'nowhere.pth'"),
        ("teacher={name: mobilenet_v1, weights: random, channels: 1}", "reads 1 channels, but mean has 3 values"),
    ],
)
def test_a_recipe_without_a_ready_teacher_is_refused(tmp_path: Path, override: str, message: str) -> None:
    overrides = [override]
    if override == "teacher=null":
        overrides += ["stages.distill={epochs: 1}", "cache=null"]
    with pytest.raises(RecipeError, match=message) as error:
        prepared(recipe(tmp_path, *overrides))
    assert "\n" not in str(error.value)


def test_a_teacher_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the teacher has no weights"):
        recipe(tmp_path, "teacher={name: mobilenet_v1}")


def test_steps_depend_on_the_teacher_that_the_task_compares_with(tmp_path: Path) -> None:
    keys = set()
    for width in (0.5, 0.5, 0.25):
        teacher = f"teacher={{name: mobilenet_v1, weights: random, width: {width}, num_classes: 10}}"
        *_, line = prepared(recipe(tmp_path, teacher, "cache=null", "stages={distill: {epochs: 1}}"))
        keys.add(line.stages["distill"].key)
    assert len(keys) == 2


def test_a_student_of_other_classes_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the student 'mobilenet_v1' outputs 4 values, but its teacher outputs 10"):
        run(recipe(tmp_path, "student={name: mobilenet_v1, width: 0.25, num_classes: 4}", "teacher.num_classes=null"))


@pytest.mark.parametrize("data", ["photo_crops", "pictures"])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, data: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty .*holds no pictures"):
        prepared(recipe(tmp_path, f"data={{name: {data}, root: {empty}}}"))


def photographs(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        size = (40 + number, 50)
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)).save(folder / "grey.png")
    return folder


def test_the_whole_line_on_any_folder_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photographs(tmp_path / "photographs")
    data = f"data={{name: pictures, root: {folder}, image_size: 32, batch_size: 4, val: 0.2, test: 0.2, workers: 0}}"
    result = run(recipe(tmp_path, data))
    report = json.loads((result.folder / "report.json").read_text())
    steps = {step["step"]: step["metrics"] for step in report["steps"]}
    assert "baseline" not in steps
    assert (result.monitor, report["units"]["kl"]) == ("val/agreement", "nats")
    assert (steps["teacher"]["test/agreement"], steps["teacher"]["test/kl"]) == (1, pytest.approx(0, abs=1e-6))
    assert 0 < steps["student"]["test/kl"] < np.inf
    assert {"train/kd", "train/features"} <= set(report["curves"]["student/distill"][0])
    files = (result.folder / "student.safetensors", result.folder / "export" / "student.onnx")
    artifact, exported = (distill.predict(file, [folder / "grey.png"])[0]["top"] for file in files)
    for ours, other in zip(artifact, exported, strict=True):
        assert ours["probability"] == pytest.approx(other["probability"], abs=0.02)
    assert main(["evaluate", str(files[0])]) != 0
    assert "no artifact holds" in capsys.readouterr().err
