"""Codecs compared: figures that can be counted by hand, codecs from outside, and files of every kind."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distill.artifact import Artifact
from distill.cli.main import main
from distill.codecs import codec
from distill.compress import hook
from distill.errors import ArtifactError, DistillError, RecipeError
from distill.measure.codes import codes, read
from distill.measure.coding import compare, entropy, pairs
from distill.report.coding import page, table

OUTSIDE = "tests.measure.test_coding:Doubled"


class Doubled:
    """A codec from outside the package: every stream twice."""

    def encode(self, codes: np.ndarray) -> bytes:
        return 2 * codec.find("ans")().encode(codes)

    def decode(self, data: bytes) -> np.ndarray:
        return codec.find("ans")().decode(data[: len(data) // 2])


class Forgetful(Doubled):
    """A codec that does not give back what it was given."""

    def decode(self, data: bytes) -> np.ndarray:
        return 0 * super().decode(data)


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.integers(-3, 4, (16, 8, 3, 3)).astype(np.int8) for name in ("a", "b")}


def test_figures_are_what_they_say() -> None:
    (row,) = compare(weights(), [("packed",)])
    size = sum(len(codec.find("packed")().encode(tensor)) for tensor in weights().values())
    count = 2 * 16 * 8 * 9
    assert row.bits_per_weight == 8 * size / count
    assert row.ratio == 4 * count / size
    assert 0.05 < row.over_entropy < 0.1  # 3 bits for 7 values that are about as frequent
    assert row.encode_mbps > 0
    assert entropy(np.arange(8)) == 3.0


def test_six_stages_make_72_codecs() -> None:
    assert len(pairs()) == 72
    assert pairs(["bitmap", "ans"])[-1] == ("delta", "ans", "ans")


def test_a_codec_from_outside_is_a_row_of_the_table(tmp_path: Path) -> None:
    rows = [*compare(weights(), pairs(["bitmap", OUTSIDE]))]
    assert any(row.stages == ("delta", "bitmap", OUTSIDE) for row in rows)
    assert f"bitmap + {OUTSIDE}" in table(rows)
    assert OUTSIDE in page(rows, "weights")


def test_a_codec_that_loses_something_is_found_out() -> None:
    with pytest.raises(DistillError, match="Forgetful does not give back 'a'"):
        list(compare(weights(), [(OUTSIDE.replace("Doubled", "Forgetful"),)]))


def test_pruned_and_quantized_weights_are_the_nearest_codes() -> None:
    tensor = torch.tensor([[0.1, -0.2, 0.3, -0.4], [0.5, -0.6, 0.7, -3.5]])
    assert codes(tensor, 0.5, 4).tolist() == [[0, 0, 0, 0], [1, -1, 1, -7]]
    assert codes(tensor.to(torch.int16), 0.5, 4).dtype == np.int16  # integers stay


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 2))
    state = network.state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    from_dict, from_tensors = (read(tmp_path / name, 0.5, 5) for name in ("a.pth", "a.safetensors"))
    assert list(from_dict) == ["0.weight", "1.weight"]
    assert all(np.array_equal(from_dict[name], from_tensors[name]) for name in from_dict)


def test_the_codes_of_an_artifact_are_those_it_stores(tmp_path: Path) -> None:
    from students import student

    entry = {"name": "lenet5", "num_classes": 10}
    network = student.find("lenet5")(num_classes=10).eval()
    quantized = hook.find("quantize")(Artifact(network, network=entry), bits=4, rounding="nearest")
    encoded = hook.find("encode")(quantized, codec=["bitmap", "ans"])
    encoded.save(tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    assert found.keys() == quantized.stored.keys()
    assert all(np.array_equal(found[name], form.codes.numpy()) for name, form in quantized.stored.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "no state dict.*EOFError"),
        (b"PK\3\4nonsense", "no state dict"),
        (b"\x80\x02.", "no state dict"),
    ],
)
def test_what_is_no_file_of_weights_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:Sparse CSR")
def test_tensors_of_every_kind_have_codes(tmp_path: Path) -> None:
    dense = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    state = {
        **{"dense": dense, "half": dense.half(), "brain": dense.bfloat16(), "double": dense.double() * 1e300},
        **{"eight": dense.to(torch.float8_e4m3fn), "sparse": dense.to_sparse(), "rows": dense.to_sparse_csr()},
        **{"truth": dense > 0, "empty": dense[:0], "scalar": dense[0, 1], "step": 3, "name": "a", "bias": dense[0]},
    }
    torch.save({"epoch": 1, "model": state}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth", bits=2)
    assert found.pop("truth").tolist() == [[0, 1], [0, 0]]
    assert found.keys() == {"dense", "half", "brain", "double", "eight", "sparse", "rows"}
    for tensor in found.values():
        assert tensor.tolist() == [[0, 1], [0, 0]]  # -0.5 is as near to 0 as to -1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": "text"}, "holds no weights"),
        ({"a": torch.empty(2, 2, device="meta")}, "'a' is on PyTorch's meta device"),
        ([torch.ones(2, 2)], "holds a list, not a state dict"),
    ],
)
def test_a_file_without_values_is_named(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=message):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("stage", "message"),
    [("os:system", "cannot be made of its settings"), ("os:getpid", "has no encode and decode")],
)
def test_a_class_from_outside_that_is_no_codec_is_named(stage: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"codec '{stage}' {message}"):
        list(compare(weights(), [(stage,)]))


def test_the_file_that_is_read_is_never_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2, 2)}, path)
    before = path.read_bytes()
    for option in ("--csv", "--html"):
        assert (
            main(["codecs", "compare", str(path), "--stages", "ans", option, f"{tmp_path}/../{tmp_path.name}/a.pth"])
            == 2
        )
        assert "is the file to read" in capsys.readouterr().err
        assert main(["codecs", "compare", str(path), "--stages", "ans", option, str(tmp_path)]) == 2
        assert "is a folder" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_setting_out_of_range_is_named(tmp_path: Path) -> None:
    for prune, bits in ((1.0, 8), (-0.1, 8), (0.5, 1), (0.5, 17)):
        with pytest.raises(RecipeError, match="--prune is at least 0"):
            read(tmp_path / "a.pth", prune, bits)
    torch.save({"a": torch.full((2, 2), torch.nan)}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=r"a\.pth: 'a' holds NaN or Inf"):
        read(tmp_path / "a.pth")


def test_the_command_prints_a_table_and_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Conv2d(4, 8, 3).state_dict(), tmp_path / "a.pth")
    options = ["--stages", "csc(index_bits=8),ans", "--prune", "0.8", "--bits", "4"]
    files = ["--csv", str(tmp_path / "a.csv"), "--html", str(tmp_path / "a.html")]
    assert main(["codecs", "compare", str(tmp_path / "a.pth"), *options, *files]) == 0
    assert "context" in capsys.readouterr().out
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 1 + 8
    html = (tmp_path / "a.html").read_text()
    assert "csc(index_bits=8)" in html
    assert not re.search(r"(src|href)=", html)  # nothing is loaded from elsewhere
    assert main(["codecs", "compare", str(tmp_path / "a.pth"), "--stages", "asn"]) == 2
