"""Files that commands make of a network for pictures of any size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distill
from distill import runtime
from distill.artifact import Artifact, open_artifact
from distill.cli.main import main
from distill.data import DataInfo
from distill.errors import ExportError
from distill.export import onnx_file
from distill.models.build import build_network

SIZES = [(33, 47), (50, 70), (64, 40), (20, 90)]


@pytest.fixture
def saved(tmp_path: Path) -> str:
    entry = {"name": "light_style_net", "width": 4}
    info = DataInfo(3, (32, 32), (0.5,) * 3, (0.25,) * 3, preprocessing={"mode": "RGB"})
    about = {"task": {"name": "style"}, "data": {"name": "image_folder"}, "info": info.to_json()}
    Artifact(build_network(entry).eval(), network=entry, about=about).save(tmp_path / "network.safetensors")
    return str(tmp_path / "network.safetensors")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    folder, random = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for number, size in enumerate(SIZES):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    return str(folder)


@pytest.fixture
def compress(saved: str, pictures: str, tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.yaml").write_text("compress: {quantize: {bits: 8}}\nexport: {onnx: {}}")
    output = str(tmp_path / "small" / "x.safetensors")
    return ["compress", saved, "--recipe", str(tmp_path / "recipe.yaml"), "--images", pictures, "--output", output]


def test_what_compress_exports_reads_any_size(compress: list[str], pictures: str, tmp_path: Path) -> None:
    assert main(compress) == 0
    found = distill.predict(tmp_path / "small" / "student.onnx", pictures)
    assert [(one["height"], one["width"]) for one in found] == SIZES


def test_an_export_that_fails_does_not_cost_the_network(
    compress: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise ExportError("it has no ONNX form")

    monkeypatch.setattr(onnx_file, "serialize", fails)
    assert main(compress) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: it has no ONNX form\n"
    assert "change of output" in printed.out
    assert open_artifact(tmp_path / "small" / "x.safetensors").history[-1].step == "compress/1-quantize"


def test_a_graph_is_of_the_size_of_training_whatever_pictures_it_is_checked_on(
    saved: str, pictures: str, tmp_path: Path
) -> None:
    for images in (pictures, f"{pictures}/0.png"):
        assert main(["export", saved, "--to", "runtime", "--images", images, "--output", str(tmp_path)]) == 0
        assert runtime.load(tmp_path / "student.runtime.safetensors").input == (3, 32, 32)
