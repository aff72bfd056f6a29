"""Steps depend on the content of every file that a recipe names, not on its path."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import distill
from distill.pipeline.experiment import Experiment, _effects, prepared
from distill.recipe.plain import key, plain
from students import student
from tests.data import objects, tiny


def keys(recipe: str, *overrides: str) -> dict[str, str]:
    return {step.name: step.key for step in prepared(distill.load_recipe(recipe, overrides))[2].steps}


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert list(before) == list(after)
    return {name for name, key in before.items() if after[name] != key}


def test_another_style_picture_in_the_same_file_paints_anew(tmp_path: Path) -> None:
    file = tmp_path / "style.png"
    Image.new("RGB", (64, 48), "red").save(file)
    content = file.read_bytes()
    before = keys("style/smoke", f"task.picture={file}")
    Image.new("RGB", (64, 48), "blue").save(file)
    after = keys("style/smoke", f"task.picture={file}")
    assert differing(before, after) == {*before}
    file.write_bytes(content)
    assert keys("style/smoke", f"task.picture={file}") == before


def weights(file: Path, seed: int, **settings: int) -> None:
    torch.manual_seed(seed)
    torch.save(student.find("mobilenet_v1")(**settings).state_dict(), file)


def test_other_weights_of_the_perceptual_network_train_anew(tmp_path: Path) -> None:
    file = tmp_path / "seen.pt"
    weights(file, 0, num_classes=1000)
    before = keys("style/smoke", f"task.perceptual.weights={file}")
    weights(file, 1, num_classes=1000)
    assert differing(before, keys("style/smoke", f"task.perceptual.weights={file}")) == {*before}


@pytest.mark.parametrize(
    ("place", "stays"),
    [
        ("teacher.weights={}", {"baseline"}),
        ("student.weights={}", {"teacher"}),
        ("+stages.distill.peer={{name: lenet5, weights: '{}'}}", {"teacher", "baseline", "student/hint"}),
    ],
)
def test_other_weights_in_the_same_file_train_anew(tmp_path: Path, place: str, stays: set[str]) -> None:
    file = tmp_path / "network.pt"
    file.write_bytes(b"one")
    before = keys("smoke", place.format(file))
    file.write_bytes(b"two")
    after = keys("smoke", place.format(file))
    assert {*before} - differing(before, after) == stays


@pytest.mark.parametrize(
    "place",
    [
        "teacher.weights={}",
        "student.weights={}",
        "+stages.hint.student={{name: lenet5, weights: '{}'}}",
        "+stages.distill.peer={{name: lenet5, weights: '{}'}}",
        "teachers={{other: {{name: lenet5, weights: '{}'}}}}",
    ],
)
def test_the_same_weights_elsewhere_change_no_step_and_no_folder(tmp_path: Path, place: str) -> None:
    here, there = tmp_path / "here.pt", tmp_path / "there" / "renamed.pth"
    there.parent.mkdir()
    here.write_bytes(b"one")
    there.write_bytes(b"one")
    before, folder = keys("smoke", place.format(here)), folder_of("smoke", place.format(here))
    assert keys("smoke", place.format(there)) == before
    assert folder_of("smoke", place.format(there)) == folder
    here.write_bytes(b"two")
    assert differing(before, keys("smoke", place.format(here)))
    assert folder_of("smoke", place.format(here)) != folder


def folder_of(recipe: str, *overrides: str) -> str:
    return key(_effects(distill.load_recipe(recipe, overrides)))


def test_weights_in_no_file_are_part_of_keys_as_they_always_were() -> None:
    loaded = distill.load_recipe("smoke", ["teacher.weights=random", "+stages.hint.student={name: lenet5}"])
    *_, line = prepared(loaded)
    for step in line.steps:
        assert step.key == key(type(step.inputs).__name__, plain(step.inputs), step.continued)
    assert _effects(loaded).items() <= (plain(loaded) | {"data": _effects(loaded)["data"]}).items()


def folders_of_pictures(root: Path, *, workers: int = 0) -> str:
    return f"data={{name: image_folder, root: {root}, image_size: 16, batch_size: 4, workers: {workers}}}"


def test_the_same_data_elsewhere_and_other_workers_change_no_step(tmp_path: Path) -> None:
    here = tiny.pictures(tmp_path / "here")
    there = shutil.copytree(here, tmp_path / "there", copy_function=shutil.copyfile)
    before = keys("smoke", folders_of_pictures(here))
    assert keys("smoke", folders_of_pictures(there, workers=2)) == before
    Image.new("RGB", (50, 40)).save(there / "train/cat/0.jpg")
    assert differing(before, keys("smoke", folders_of_pictures(there))) == {*before}


def test_a_run_has_a_folder_for_its_data_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.pipeline.experiment.DryRun", lambda recipe, *_: SimpleNamespace(recipe=recipe))
    here, other = tiny.pictures(tmp_path / "here"), tiny.pictures(tmp_path / "other", each=6)
    there = shutil.copytree(here, tmp_path / "there", copy_function=shutil.copyfile)

    def folder(root: Path, *, workers: int) -> Path:
        overrides = [f"output={tmp_path}/runs", "tracking.mode=disabled", folders_of_pictures(root, workers=workers)]
        with Experiment.open(distill.load_recipe("smoke", overrides)) as experiment:
            return experiment.folder

    first = folder(here, workers=0)
    assert folder(there, workers=2) == first
    assert folder(other, workers=0) != first


def test_corrected_names_of_classes_make_every_artifact_anew(tmp_path: Path) -> None:
    root = objects.write_coco(tmp_path / "coco")
    file = root / "annotations/things_pictures.json"
    data = f"data={{name: coco, root: {root}, annotations: annotations/{file.name}, image_size: 64, workers: 0}}"
    before = keys("detection/smoke", data)
    file.write_text(file.read_text().replace("disc", "disk"))
    assert differing(before, keys("detection/smoke", data)) == {*before}
