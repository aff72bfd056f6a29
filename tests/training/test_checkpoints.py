"""Checkpoints are whole or absent, and training goes on from the newest that is whole."""

import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from distill.data.digits import Digits
from distill.errors import DistillError
from distill.recipe.schema import Optimizer, Schedule, Stage
from distill.tasks.classification import Classification
from distill.training.distiller import Distiller
from distill.training.fit import MovableCheckpoint, fit
from tests.nets import ConvNet
from tests.training.disks import small_disk

EPOCHS = 3


class Versioned(nn.BatchNorm2d):
    """A module whose state dict has a version and cannot be loaded without it, as torchvision's MNASNet."""

    _version = 3

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") != self._version:
            raise ValueError(f"version {metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)


class Net(nn.Module):
    """A few weights, a batch norm, a version."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), Versioned(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layers(inputs).flatten(1))


class KilledError(Exception):
    """Stands for a power cut."""


class Ended(NamedTuple):
    weights: dict[str, Tensor]
    epochs: list[int]


def train(folder: Path, *, keep: Any = "best", killed_in: int = 0, net: nn.Module | None = None) -> Ended:
    """Train for `EPOCHS`, or until the end of the epoch before its checkpoint."""
    torch.manual_seed(0)
    data = Digits(0, limit=60, crop=1, batch_size=20)
    module = Distiller(
        net or Net(),
        None,
        Classification(data.info),
        Stage(epochs=EPOCHS, keep=keep),
        optimizer=Optimizer(),
        schedule=Schedule(),
        example=data.calibration(8)[0],
        injectable={},
    )
    epochs: list[int] = []

    def on_epoch(title: str, epoch: int, metrics: dict[str, float]) -> None:
        epochs.append(epoch)
        if epoch == killed_in:
            raise KilledError

    settings = {"accelerator": "cpu", "devices": 1}
    done = fit(module, data, folder, title="student", settings=settings, on_epoch=on_epoch)
    return Ended(done.student.state_dict(), epochs)


def same(one: Ended, other: Ended) -> bool:
    pairs = zip(one.weights.items(), other.weights.items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two of three epochs have their checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KilledError):
        train(folder, killed_in=3)
    return folder


def test_a_folder_that_was_moved_still_has_its_best_epoch(killed: Path, tmp_path: Path, uninterrupted: Ended) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(killed, moved)
    away = killed.rename(tmp_path / "away")  # a path in a checkpoint leads nowhere now
    try:
        assert same(train(moved), uninterrupted)
    finally:
        away.rename(killed)
    state = torch.load(moved / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = [kept for kept in state.values() if kept.get("monitor")]
    here = MovableCheckpoint(tmp_path / "third", filename="best", monitor=best["monitor"], mode="max")
    here.load_state_dict(best)
    assert here.best_model_score == best["best_model_score"]
    assert here.best_model_path == str(tmp_path / "third" / "best.ckpt")


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    # A checkpoint knows its folder by name, so the same name comes back after each test.
    kept = tmp_path / "kept"
    shutil.copytree(killed, kept)
    yield killed
    shutil.rmtree(killed)
    shutil.copytree(kept, killed)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    """One bit of a tensor: torch itself would load it."""
    content = bytearray(file.read_bytes())
    state = torch.load(file, weights_only=True)["state_dict"]
    (weight,) = [value for name, value in state.items() if name.endswith("head.weight")]
    content[content.index(weight.numpy().tobytes())] ^= 4
    file.write_bytes(content)


def foreign(file: Path) -> None:
    with pytest.raises(KilledError):
        train(file.parent / "other", killed_in=2, net=Net(width=8))
    (file.parent / "other" / "last.ckpt").replace(file)
    shutil.rmtree(file.parent / "other")


@pytest.mark.parametrize("damage", [cut, empty, flip, foreign])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    damage: Any, folder: Path, uninterrupted: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / "last.ckpt")
    resumed = train(folder)
    assert resumed.epochs == [2, 3]
    assert same(resumed, uninterrupted)
    (line,) = [record.message for record in caplog.records if record.name.startswith("distill")]
    assert str(folder / "last.ckpt") in line
    assert "set aside" in line


@pytest.mark.parametrize("files", [("last.ckpt", "previous.ckpt"), ("best.ckpt",)])
def test_where_none_is_left_training_begins_anew(files: tuple[str, ...], folder: Path, uninterrupted: Ended) -> None:
    for file in files:
        cut(folder / file)
    resumed = train(folder)
    assert resumed.epochs == [1, 2, 3]
    assert same(resumed, uninterrupted)


def test_another_epoch_in_the_place_of_the_best_one_is_noticed(folder: Path, uninterrupted: Ended) -> None:
    shutil.copyfile(folder / "previous.ckpt", folder / "best.ckpt")
    assert train(folder).epochs == [1, 2, 3]
    shutil.copyfile(folder / "last.ckpt", folder / "best.ckpt")
    assert same(train(folder), uninterrupted)


def test_a_lost_best_epoch_is_trained_again(folder: Path, uninterrupted: Ended) -> None:
    (folder / "best.ckpt").unlink()
    assert same(train(folder), uninterrupted)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_versions_of_modules_survive_resuming_and_the_best_epoch(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path / "cut", keep=keep, killed_in=2)
    assert same(train(tmp_path / "cut", keep=keep), train(tmp_path / "whole", keep=keep))


def mnasnet() -> nn.Module:
    """For the digits, with one channel. Its batch norms have versions in its state dict, and it drops neurons out."""
    torch.manual_seed(1)
    net = models.mnasnet0_5(num_classes=10)
    first = net.layers[0]
    net.layers[0] = nn.Conv2d(1, first.out_channels, 3, padding=1, bias=False)
    return net


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_killed_mnasnet_goes_on_as_if_nothing_had_happened(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path / "killed", keep=keep, killed_in=2, net=mnasnet())
    resumed = train(tmp_path / "killed", keep=keep, net=mnasnet())
    assert resumed.epochs == [2, 3]
    assert same(resumed, train(tmp_path / "whole", keep=keep, net=mnasnet()))


def test_the_temporary_folder_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    train(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_kill_while_a_checkpoint_is_written_costs_one_epoch(
    epoch: int, tmp_path: Path, uninterrupted: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.save

    def half(checkpoint: dict[str, Any], file: Any) -> None:
        if checkpoint["epoch"] == epoch and "last" in file.name:
            file.write(b"PK half a checkpoint")
            raise KilledError
        whole(checkpoint, file)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KilledError):
        train(tmp_path)
    monkeypatch.undo()
    resumed = train(tmp_path)
    assert resumed.epochs[0] == epoch + 1
    assert same(resumed, uninterrupted)
    assert not list(tmp_path.glob(".*"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As after ``ulimit -f``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_is_larger_than_a_file_may_be_is_named_with_the_limit(tmp_path: Path) -> None:
    refused = pytest.raises(DistillError, match=r"cannot write .*last.ckpt: File too large; .*ulimit -f")
    with refused, largest_file(500_000):
        train(tmp_path, keep="last", net=ConvNet(width=40))
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    net = ConvNet(width=40)  # checkpoints of about 1 MB
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        with pytest.raises(DistillError, match=r"cannot write .*last.ckpt: No space left .*make room"):
            train(disk.path / "run", keep="last", net=net)
        assert not list((disk.path / "run").glob(".*"))
        disk.grow()
        assert train(disk.path / "run", keep="last", net=ConvNet(width=40)).epochs[-1] == EPOCHS
