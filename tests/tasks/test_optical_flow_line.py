"""The smoke recipe of optical flow from end to end: hooks, the exported file, predictions for pairs of pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import distill
from distill.cli.main import main
from distill.data._flow_files import read_flo
from distill.data.flying_cutouts import FlyingCutouts
from distill.errors import RecipeError
from distill.pipeline.plan import plan
from distill.pipeline.run import Result, run
from tests.data.moves import write_flo


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(
        distill.load_recipe("flow/smoke", [f"output={tmp_path_factory.mktemp('flow')}", "tracking.mode=disabled"])
    )


def test_every_step_is_measured_in_pixels(result: Result) -> None:
    report = json.loads((result.folder / "report.json").read_text())
    steps = {step["step"]: step["metrics"] for step in report["steps"]}
    hooks = ["compress/1-svd", "compress/2-int8", "compress/3-encode"]
    assert list(steps) == ["teacher", "baseline", "student", *hooks, "export/onnx"]
    assert all(0 < metrics["test/epe"] < 20 and 0 <= metrics["test/fl_all"] <= 1 for metrics in steps.values())
    assert (report["monitor"], report["mode"], report["units"]["epe"]) == ("epe", "min", "px")
    assert {"train/task", "train/flow5", "train/flow3", "train/epe"} <= set(report["curves"]["student/distill"][0])
    page = (result.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5


def test_the_guess_to_beat_is_that_nothing_moves(result: Result) -> None:
    report = json.loads((result.folder / "report.json").read_text())
    assert report["guess"]["test/fl_all"] > 0
    lengths = []
    data = FlyingCutouts(0, samples=40, test_samples=16, image_size=64, workers=0)
    for batch in data.test_dataloader():
        lengths.append(torch.linalg.vector_norm(batch.labels["flow"], dim=1).flatten())
    assert report["guess"]["test/epe"] == pytest.approx(float(torch.cat(lengths).mean()), rel=1e-4)


def test_pairs_of_pictures_of_any_size_are_predicted_drawn_and_written(result: Result, tmp_path: Path) -> None:
    photo = Image.fromarray(load_sample_images().images[0]).resize((160, 107))
    for number, left in enumerate((0, 4)):
        photo.crop((left, 0, left + 150, 100)).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in (0, 1)]
    for network in ("student.safetensors", "export/student.onnx"):
        drawn = tmp_path / network.partition(".")[2]
        assert main(["predict", str(result.folder / network), *files, "--draw", str(drawn)]) == 0
        assert (
            Image.open(drawn / "0000-0.png").width == 3 * 300
        )  # of fewer than 112 pixels a side: drawn at twice the size
        assert read_flo(drawn / "0000-0.flo").shape == (2, 100, 150)
        flow = distill.predict(result.folder / network, files)[0]["flow"]
        assert np.array(flow).shape == (2, 25, 38)


def test_a_picture_without_its_second_is_refused(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert main(["predict", str(result.folder / "student.safetensors"), str(tmp_path / "a.png")]) != 0
    assert "the network reads 2 pictures at once, but there are 1" in capsys.readouterr().err


def test_losses_of_class_scores_are_refused_before_training(tmp_path: Path) -> None:
    recipe = distill.load_recipe("flow/smoke", [f"output={tmp_path}", "stages.distill.losses={kd: {}}"])
    with pytest.raises(
        RecipeError, match="at stages.distill: loss 'kd' compares scores of classes, but outputs of Opt"
    ):
        plan(recipe)


def test_the_recipe_at_the_size_of_the_paper_can_be_built(tmp_path: Path) -> None:
    """On files of FlyingChairs' form, with a teacher of fresh weights in place of torchvision's download."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "chairs" / "data"
    folder.mkdir(parents=True)
    for number in range(1, 41):
        for image in (1, 2):
            Image.fromarray(noise.integers(0, 256, (128, 136, 3), np.uint8)).save(
                folder / f"{number:05}_img{image}.ppm"
            )
        write_flo(folder / f"{number:05}_flow.flo", noise.normal(size=(2, 128, 136)))
    small = ["data.height=128", "data.width=128", "data.batch_size=2", "data.workers=0", "export="]
    fresh = ["teacher.weights=null", "teacher.epochs=1", f"data.root={folder.parent}", f"output={tmp_path}"]
    steps = plan(distill.load_recipe("flow/flying_chairs", [*small, *fresh, "tracking.mode=disabled"]))
    assert {step.name: step.params for step in steps}["teacher"] == 990_162
