"""A network that was trained here, written as Caffe would, read again and compressed from the command line."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from distill.artifact import open_artifact
from distill.cli.main import main
from distill.console import console
from distill.models.caffe import CaffeNet
from tests.models.caffe.writer import Files, layers_of, write

TRAINED_ON = 1200


class Trained(NamedTuple):
    files: Files
    pictures: Path
    """Of the training set, in a folder for each class."""
    images: Tensor
    """Of the test set."""
    labels: Tensor
    accuracy: float
    """On the test set, in PyTorch, before anything was written."""


def network() -> nn.Sequential:
    model = nn.Sequential()
    for number, (inputs, outputs) in enumerate([(1, 16), (16, 32)], start=1):
        model.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        model.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
        model.add_module(f"relu{number}", nn.ReLU())
    model.add_module("pool", nn.MaxPool2d(2, 2, ceil_mode=True))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc1", nn.Linear(512, 64))
    model.add_module("relu3", nn.ReLU())
    model.add_module("fc2", nn.Linear(64, 10))
    return model


def fit(images: Tensor, labels: Tensor) -> nn.Sequential:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for part in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((model(images).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    bits, target = load_digits(return_X_y=True)
    pixels = (bits * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(pixels))
    images, labels = torch.from_numpy(pixels[order, None] / 255).float(), torch.from_numpy(target[order])
    model = fit(images[:TRAINED_ON], labels[:TRAINED_ON])
    for position in range(0, TRAINED_ON, 4):
        path = folder / "pictures" / str(int(labels[position])) / f"{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[order[position]]).save(path)
    files = write(folder, layers_of(model), (1, 1, 8, 8))
    tested = images[TRAINED_ON:], labels[TRAINED_ON:]
    return Trained(files, folder / "pictures", *tested, accuracy(model, *tested))


def imported(trained: Trained, folder: Path) -> Path:
    path = folder / "net.safetensors"
    arguments = ["import-caffe", *map(str, trained.files), "--scale", str(1 / 255), "--output", str(path)]
    assert main(arguments) == 0
    return path


def compressed(model: Path, trained: Trained, recipe: str, *more: str) -> int:
    (model.parent / "recipe.yaml").write_text(recipe)
    arguments = ["compress", str(model), "--recipe", str(model.parent / "recipe.yaml")]
    return main([*arguments, "--images", str(trained.pictures), *more])


def test_what_was_imported_is_as_accurate_as_what_was_trained(trained: Trained, tmp_path: Path) -> None:
    assert trained.accuracy > 0.93
    net = open_artifact(imported(trained, tmp_path)).model
    assert isinstance(net, CaffeNet)
    assert accuracy(net, trained.images, trained.labels) == trained.accuracy


@pytest.mark.parametrize("labels", [[], ["--labels"]])
def test_a_fifth_of_the_bytes_costs_no_more_than_a_point(trained: Trained, tmp_path: Path, labels: list[str]) -> None:
    path = imported(trained, tmp_path)
    assert (
        compressed(path, trained, "compress: {svd: {max_params: 0.75}, quantize: {bits: 5}, encode: {}}", *labels) == 0
    )
    small = tmp_path / "net.small.safetensors"
    assert path.stat().st_size / small.stat().st_size > 5
    assert accuracy(open_artifact(small).model, trained.images, trained.labels) >= trained.accuracy - 0.01


def test_hooks_that_narrow_or_round_follow_the_network(trained: Trained, tmp_path: Path) -> None:
    path = imported(trained, tmp_path)
    recipe = "compress: {prune_channels: {ratio: 0.75}, int8: {}}\nexport: {onnx: {}}"
    assert compressed(path, trained, recipe, "--output", str(tmp_path / "out" / "small.safetensors")) == 0
    small = open_artifact(tmp_path / "out" / "small.safetensors")
    assert small.model.get_submodule("conv2").out_channels == 24
    assert (tmp_path / "out" / "student.onnx").is_file()
    assert accuracy(small.model, trained.images, trained.labels) > 0.5 * trained.accuracy


def test_the_table_says_what_each_hook_changes(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 160)  # in 80 columns, as pytest-xdist sets, headings stand in two lines
    assert compressed(imported(trained, tmp_path), trained, "compress: {quantize: {bits: 8}}", "--labels") == 0
    out = capsys.readouterr().out
    for words in ("compress/1-quantize", "smaller", "change of", "same class", "accuracy", "hooks have not seen them"):
        assert words in out


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("export: {onnx: {}}", [], "no hooks"),
        ("compress: {quantise: {}}", [], "Did you mean 'quantize'"),
        ("compress: {quantize: {bits: 8}, prune_channels: {}}", [], "prune_channels"),
        ("compress: {quantize: {}}", ["--labels", "missing.txt"], "cannot read the labels"),
        ("compress: {quantize: {}}", ["--images", "missing"], "no folder 'missing'"),
        ("compress: {quantize: {}}", ["compress.quantize.bits=9"], "bits"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, more: list[str], message: str
) -> None:
    path = imported(trained, tmp_path)
    assert compressed(path, trained, recipe, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors", "recipe.yaml"]


def test_training_between_hooks_is_left_out_and_said(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = "compress: {quantize: {bits: 8, finetune: {epochs: 1}}}"
    assert compressed(imported(trained, tmp_path), trained, recipe) == 0
    assert "compress.quantize.finetune is left out" in caplog.text


def test_an_import_that_fails_writes_nothing(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "half.caffemodel").write_bytes(trained.files.caffemodel.read_bytes()[:-100])
    assert main(["import-caffe", str(trained.files.prototxt), str(tmp_path / "half.caffemodel")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["half.caffemodel"]
