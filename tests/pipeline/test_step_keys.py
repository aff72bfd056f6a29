"""Steps depend on the content of every file that a recipe names, not on its path."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import distill
from distill.pipeline.experiment import prepared
from students import student


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
