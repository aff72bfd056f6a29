"""A coded file is the exported one again, and there only where that saves bytes."""

import lzma
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.compress.quantization.quantize import quantize
from distill.errors import ArtifactError
from distill.export.coded import read_coded, write_coded
from distill.pipeline.predict import Predictor
from tests.export.test_onnx import artifact, batches, export


@pytest.fixture
def samples() -> list[Batch]:
    return batches(5)


def test_few_bits_pay_and_the_coded_file_predicts_the_same(tmp_path: Path, samples: list[Batch]) -> None:
    made = export(quantize(artifact(last=nn.Linear(144, 3)), bits=3), tmp_path, samples)
    assert made.coded == tmp_path / "student.onnx.xz"
    assert lzma.decompress(made.coded.read_bytes()) == made.path.read_bytes()
    assert made.coded.stat().st_size < 0.9 * made.nbytes == 0.9 * made.path.stat().st_size
    assert made.sizes() == f"{made.path.stat().st_size:,} bytes ({made.coded.stat().st_size:,} as student.onnx.xz)"
    networks = [Predictor.open(path).network for path in (made.path, made.coded)]
    assert torch.equal(*(network(samples[0].inputs) for network in networks))


def test_plain_floats_do_not_pay_and_an_older_coded_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    assert write_coded(bytes(10_000), path)
    content = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).numpy().tobytes()
    assert write_coded(content, path) is None
    assert [*tmp_path.iterdir()] == []


def test_it_can_be_left_out(tmp_path: Path, samples: list[Batch]) -> None:
    small = quantize(artifact(), bits=3)
    assert export(small, tmp_path, samples).coded
    assert export(small, tmp_path, samples, coded=False).coded is None
    assert [file.name for file in tmp_path.iterdir()] == ["student.onnx"]


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"x" + data[1:], lambda _: b""])
def test_a_damaged_file_is_named(tmp_path: Path, damage) -> None:
    path = write_coded(bytes(10_000), tmp_path / "student.onnx")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match="cannot read .*student.onnx.xz.* export it again"):
        read_coded(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx.xz"
    path.write_bytes(lzma.compress(bytes(2**28), preset=0))
    with pytest.raises(ArtifactError, match=r"student\.onnx\.xz: .*holds more than a file of its length may"):
        read_coded(path)
