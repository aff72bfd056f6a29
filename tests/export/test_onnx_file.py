from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from distill.errors import ExportError
from distill.export import onnx_file


class Undecided(nn.Module):
    """What it computes depends on values."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if inputs.sum().item() > 0 else -inputs


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)).train()


@pytest.fixture(scope="module")
def content(model: nn.Module) -> bytes:
    return onnx_file.serialize(model, torch.randn(2, 1, 8, 8), metadata={"classes": '["a", "b"]'})


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size_is_answered_as_in_evaluation_mode(model: nn.Module, content: bytes, batch: int):
    inputs = torch.randn(batch, 1, 8, 8)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(inputs)
    model.train()
    torch.testing.assert_close(onnx_file.answer(onnx_file.session(content), inputs), expected)


def test_the_file_holds_the_metadata_and_nothing_about_this_machine(content: bytes):
    graph = onnx.load_from_string(content)
    assert {entry.key: entry.value for entry in graph.metadata_props} == {"classes": '["a", "b"]'}
    assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["input", "output"]
    assert b".py" not in content


def test_exporting_is_silent(model: nn.Module, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder):
    onnx_file.serialize(model, torch.randn(1, 1, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_chosen_opset_is_written_or_refused(model: nn.Module):
    graph = onnx.load_from_string(onnx_file.serialize(model, torch.randn(1, 1, 8, 8), opset=21))
    assert [entry.version for entry in graph.opset_import] == [21]
    with pytest.raises(ExportError, match="opset 9 cannot be written, but 18 can"):
        onnx_file.serialize(model, torch.randn(1, 1, 8, 8), opset=9)


def test_a_network_without_onnx_form_is_named():
    with pytest.raises(ExportError, match="Undecided has no ONNX form: .*data-dependent"):
        onnx_file.serialize(Undecided(), torch.randn(1, 1, 8, 8))


def test_a_network_too_large_for_one_file_is_refused(model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 100)
    with pytest.raises(ExportError, match="GiB of weights, but one ONNX file holds at most 2"):
        onnx_file.serialize(model, torch.randn(1, 1, 8, 8))


def test_a_damaged_file_is_named(content: bytes, tmp_path: Path):
    file = tmp_path / "cut.onnx"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run '.*cut\.onnx'"):
        onnx_file.session(file)
