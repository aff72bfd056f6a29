import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from distill import __version__
from distill.artifact import Artifact
from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import ExportError
from distill.export import exporter, onnx_file
from distill.export.exported import Exported
from distill.registry import injected
from distill.tasks.classification import Classification

ABOUT = {
    "task": {"name": "classification"},
    "data": {"name": "digits", "root": "/home/somebody"},
    "info": DataInfo(1, (8, 8), (0.3,), (0.4,), ("zero", "one", "two")).to_json(),
}
TASK = Classification(DataInfo.from_json(ABOUT["info"]))


def export(artifact: Artifact, folder: Path, samples: list[Batch], **settings: Any) -> Exported:
    return exporter.find("onnx")(artifact, folder, samples, TASK, **settings)


class Doubling(nn.Module):
    """Runs as something that has no ONNX form; ships as a plain convolution."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * (2 if inputs.sum().item() else 1)

    def deploy(self) -> nn.Module:
        layer = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(layer.weight, 2)
        return layer


def artifact(**change: nn.Module) -> Artifact:
    torch.manual_seed(0)
    layers = {"first": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4), "flat": nn.Flatten(), "last": nn.Linear(144, 3)}
    return Artifact(nn.Sequential(*(layers | change).values()).eval(), about=ABOUT)


def batches(*sizes: int) -> list[Batch]:
    torch.manual_seed(1)
    return [
        Batch(torch.randn(size, 1, 8, 8), torch.zeros(size, dtype=torch.int64), torch.arange(size)) for size in sizes
    ]


def tampered(monkeypatch: pytest.MonkeyPatch, tamper: Callable[[nn.Module], Any]) -> None:
    """From here on, what is written differs from the model."""
    honest = onnx_file.serialize

    def serialize(model: nn.Module, *args: Any, **kwargs: Any) -> bytes:
        changed = deepcopy(model)
        with torch.no_grad():
            tamper(changed)
        return honest(changed, *args, **kwargs)

    monkeypatch.setattr(onnx_file, "serialize", serialize)


def test_asks_for_what_the_framework_offers():
    assert injected(exporter.find("onnx")) == ["artifact", "folder", "samples", "task"]


def test_the_file_computes_what_pytorch_does_at_any_batch_size(tmp_path: Path):
    made = export(artifact(), tmp_path, batches(5, 3))
    assert made.path == tmp_path / "student.onnx"
    assert [file.name for file in tmp_path.iterdir()] == ["student.onnx"]
    assert made.difference < 1e-5
    for batch in batches(1, 6):
        with torch.no_grad():
            torch.testing.assert_close(made.predict(batch.inputs), artifact().model(batch.inputs))


def test_the_file_says_how_to_use_it_and_keeps_paths_private(tmp_path: Path):
    graph = onnx.load(export(artifact(), tmp_path, batches(2)).path)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata.pop("distill") == __version__
    assert {key: json.loads(value) for key, value in metadata.items()} == {
        key: json.loads(json.dumps(ABOUT[key])) for key in ("task", "info")
    }
    assert b"somebody" not in graph.SerializeToString()


def test_layers_ship_in_their_deployed_form(tmp_path: Path):
    made = export(artifact(first=nn.Sequential(Doubling(), nn.Conv2d(1, 4, 3))), tmp_path, batches(2))
    assert {node.op_type for node in onnx.load(made.path).graph.node} <= {"Conv", "Gemm", "Reshape", "Flatten"}


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tampered(monkeypatch, lambda model: model[-1].bias.add_(1))
    with pytest.raises(ExportError, match=r"differs from PyTorch by .* of the largest output, but tolerance is 0\.001"):
        export(artifact(), tmp_path, batches(4))
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_survives_a_failed_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = export(artifact(), tmp_path, batches(2)).path.read_bytes()
    tampered(monkeypatch, lambda model: model[-1].weight.mul_(3))
    with pytest.raises(ExportError, match="tolerance"):
        export(artifact(), tmp_path, batches(2))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_the_difference_is_relative_to_the_largest_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    samples = batches(3, 2)
    with torch.no_grad():
        largest = max(float(artifact().model(batch.inputs).abs().max()) for batch in samples)
    tampered(monkeypatch, lambda model: model[-1].bias.add_(0.25))
    assert export(artifact(), tmp_path, samples, tolerance=10.0).difference == pytest.approx(0.25 / largest, rel=1e-4)


def test_a_file_that_answers_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tampered(monkeypatch, lambda model: model[-1].bias.fill_(torch.nan))
    with pytest.raises(ExportError, match="differs from PyTorch by nan"):
        export(artifact(), tmp_path, batches(2), tolerance=10.0)


def test_a_network_that_answers_no_number_is_named_and_not_the_file(tmp_path: Path):
    trained = artifact()
    with torch.no_grad():
        trained.model[-1].bias.fill_(torch.inf)
    with pytest.raises(ExportError, match="the network outputs NaN or Inf"):
        export(trained, tmp_path, batches(2), tolerance=10.0)
    assert not list(tmp_path.iterdir())


def test_without_samples_nothing_can_be_checked(tmp_path: Path):
    with pytest.raises(ExportError, match="checked on real images, but there are none"):
        export(artifact(), tmp_path, [])
