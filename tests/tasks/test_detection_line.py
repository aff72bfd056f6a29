"""The whole line with boxes: recipes, files of COCO's form, predictions of artifacts and exported files."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

import distill
from distill.artifact import open_artifact
from distill.cli.main import main
from distill.data import DataInfo
from distill.errors import DistillError
from distill.pipeline.plan import plan
from distill.pipeline.predict import predict
from distill.pipeline.run import Result, run
from students.torchvision_detectors import COCO_IDS

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
OFF = "tracking.mode=disabled"
SMALLEST = ["data.samples=32", "data.test_samples=8"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, unchecked_shapes: None) -> Result:
    folder = tmp_path_factory.mktemp("runs")
    return run(distill.load_recipe("detection/smoke", [f"output={folder}", OFF]))


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Of other sizes than the network's."""
    random = np.random.default_rng(0)
    for number, size in enumerate([(80, 120, 3), (64, 64, 3)]):
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(2)]


def test_every_step_has_the_three_precisions(result: Result) -> None:
    report = json.loads((result.folder / "report.json").read_text())
    assert (report["monitor"], report["mode"], report["units"]["map"]) == ("map", "max", "%")
    names = {f"{split}/{name}" for split in ("val", "test") for name in ("map", "ap50", "ap75")}
    assert [set(step["metrics"]) for step in report["steps"]] == [names] * len(report["steps"])
    assert all(0 <= value <= 1 for step in report["steps"] for value in step["metrics"].values())
    assert len(report["figures"]["ap_by_class"]) == 10


def test_named_terms_of_the_loss_are_in_the_curves(result: Result) -> None:
    report = json.loads((result.folder / "report.json").read_text())
    row = report["curves"]["student/distill"][0]
    assert {"train/task_classes", "train/task_boxes", "train/detection_kd", "train/pkd"} <= set(row)


def test_artifact_and_exported_file_predict_the_same_boxes(result: Result, pictures: list[str]) -> None:
    files = [result.folder / "student.safetensors", result.folder / "export" / "student.onnx"]
    ours, theirs = (predict(file, pictures) for file in files)
    assert [one["file"] for one in ours] == pictures
    for one, other in zip(ours, theirs, strict=True):
        assert [thing["class"] for thing in one["objects"]] == [thing["class"] for thing in other["objects"]]
        for a, b in zip(one["objects"], other["objects"], strict=True):
            assert a["box"] == pytest.approx(b["box"], abs=1e-3)


def test_pictures_are_drawn_in_their_own_size(result: Result, pictures: list[str], tmp_path: Path) -> None:
    artifact = str(result.folder / "student.safetensors")
    assert main(["predict", artifact, *pictures, "--draw", str(tmp_path / "drawn")]) == 0
    drawn = sorted((tmp_path / "drawn").iterdir())
    sizes = [Image.open(file).size for file in drawn]
    assert [width / height for width, height in sizes] == [1.5, 1.0]


def test_the_finished_detector_is_compressed_to_a_file_that_suppresses_boxes(
    result: Result, pictures: list[str], tmp_path: Path
) -> None:
    model, folder = result.folder / "student" / "distill" / "network.safetensors", str(Path(pictures[0]).parent)
    output = tmp_path / "small" / "student.safetensors"
    given = ["--recipe", "detection/smoke", "--images", folder, "--output", str(output)]
    assert main(["compress", str(model), *given]) == 0
    session = onnxruntime.InferenceSession(str(output.with_suffix(".onnx")))
    assert [one.name for one in session.get_outputs()] == ["anchors", "detections"]


def test_the_same_recipe_again_trains_nothing(result: Result) -> None:
    trained: list[str] = []
    output = f"output={result.folder.parents[1]}"
    again = run(distill.load_recipe("detection/smoke", [output, OFF]), on_epoch=lambda step, *_: trained.append(step))
    assert trained == []
    assert [step.metrics for step in again.steps] == [step.metrics for step in result.steps]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.strides=[8,16]", r"task.scales has 3 entries for 2 maps"),
        ("task.strides=[16,32,64]", r"the teacher .* has 336 anchors, but the task 84 \(4x4 cells of 4"),
        (
            "stages.distill.losses={ld: {student: [':bins', ':classes'], teacher: [':bins', ':classes']}}",
            "no part ':bins'",
        ),
        ("stages.distill.losses={detection_kd: {}}", "detection_kd reads two taps"),
        ("stages.distill.losses={crd: {student: ['maps.2'], teacher: ['maps.2']}}", "no single class"),
        ("task.name=classification", "misspelt|no setting|unknown|strides"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=message) as refused:
        plan(distill.load_recipe("detection/smoke", [override, *SMALLEST, f"output={tmp_path}", OFF]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bins", [0, 5])
def test_other_losses_fit_too(bins: int, tmp_path: Path) -> None:
    losses = {"fgd": {"taps": "stages"}, "mgd": {"taps": "stages"}, "cwd": {"taps": "stages"}}
    losses |= {"kd": {"student": [":classes"], "teacher": [":classes"]}}
    parts = [":bins", ":classes"]
    losses |= {"ld": {"student": parts, "teacher": parts}} if bins else {"crosskd": {"taps": "stages"}}
    overrides = [
        f"stages.distill.losses={json.dumps(losses)}",
        f"task.bins={bins}",
        *SMALLEST,
        f"output={tmp_path}",
        OFF,
    ]
    assert plan(distill.load_recipe("detection/smoke", overrides))[0].name == "teacher"


def write_coco(folder: Path) -> None:
    """Pictures of two sizes with boxes of all 80 classes, one of them without any."""
    random = np.random.default_rng(0)
    (folder / "train2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images = [
        {"id": 7 * n, "file_name": f"{n:012}.jpg", "height": 300, "width": 400 if n % 2 else 300} for n in range(12)
    ]
    for image in images:
        pixels = random.integers(0, 255, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(pixels).save(folder / "train2017" / image["file_name"])
    boxes = [
        {
            "id": n,
            "image_id": 7 * (n % 11),
            "category_id": c,
            "bbox": [10, 20, 50.5, 60],
            "area": 3030,
            "iscrowd": n % 9 == 0,
        }
        for n, c in enumerate(COCO_IDS)
    ]
    boxes = [{**box, "iscrowd": int(box["iscrowd"])} for box in boxes]
    categories = [{"id": number, "name": f"thing {number}"} for number in COCO_IDS]
    content = {"images": images, "annotations": boxes, "categories": categories}
    for name in ("train", "val"):
        (folder / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(content))
    (folder / "val2017").symlink_to(folder / "train2017")


def test_the_recipe_at_the_size_of_the_paper_can_be_built(tmp_path: Path) -> None:
    """On a file of COCO's form, with a teacher of fresh weights in place of torchvision's download."""
    write_coco(tmp_path / "coco")
    fresh = ["teacher.weights=null", "teacher.epochs=1", f"data.root={tmp_path / 'coco'}", "data.batch_size=2"]
    steps = plan(distill.load_recipe("detection/coco", [*fresh, "data.workers=0", f"output={tmp_path}", OFF]))
    params = {step.name: step.params for step in steps}
    assert params["teacher"] == 35_641_826
    assert 5e6 < params["baseline"] < 8e6


def test_what_an_artifact_says_of_its_task_rebuilds_the_anchors(result: Result) -> None:
    artifact = open_artifact(result.folder / "student.safetensors")
    assert artifact.about["task"]["strides"] == [8, 16, 32]
    assert artifact.network["anchors"] == (4, 4, 4) or artifact.network["anchors"] == [4, 4, 4]
    assert DataInfo.from_json(artifact.about["info"]).num_classes == 10
    assert artifact.model(torch.zeros(1, 3, 64, 64)).shape == (1, 336, 15)


def test_networks_of_timm_teach_learn_and_ship(tmp_path: Path) -> None:
    weights = tmp_path / "resnet.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    network = "name: ssd_timm, strides: [8, 16, 32], extras: []"
    teacher = f"teacher={{{network}, backbone: test_resnet, weights: '{weights}', epochs: 1}}"
    student = f"student={{{network}, backbone: test_convnext}}"
    settings = [teacher, student, "baseline=false", f"output={tmp_path / 'runs'}", OFF, *SMALLEST]
    folder = run(distill.load_recipe("detection/smoke", settings)).folder
    loaded = distill.load(folder / "student.safetensors")
    images = torch.randn(3, 3, 64, 64)
    session = onnxruntime.InferenceSession(folder / "export" / "student.onnx")
    (output,) = session.run(["anchors"], {"input": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), loaded(images).detach(), rtol=1e-3, atol=1e-3)
