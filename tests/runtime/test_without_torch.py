"""Predictions where PyTorch is not installed."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import distill
from distill.__main__ import main
from distill.compress.encode import encode
from distill.compress.quantization.quantize import quantize
from tests.pipeline.test_predict import artifact, pictures

ROOT = Path(distill.__file__).parents[1]
REFUSED = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "jaxtyping", "onnx", "onnxruntime")
HOOK = f"""
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {REFUSED!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Refused())
"""
__all__ = ["pictures"]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    encode(quantize(artifact())).save(tmp_path / "student.safetensors")
    assert main(["export", str(tmp_path / "student.safetensors"), "--to", "runtime"]) == 0
    return tmp_path / "student.runtime.safetensors"


def without_torch(code: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", HOOK + code], cwd=ROOT, capture_output=True, text=True, check=False)


def command(*words: object) -> str:
    return f"from distill.__main__ import main; sys.exit(main({[str(word) for word in words]!r}))"


def test_predictions_are_those_of_pytorch(exported: Path, pictures: Path) -> None:
    expected = distill.predict(exported, pictures)
    done = without_torch(command("predict", exported, pictures, "--json"))
    assert done.returncode == 0, done.stderr
    assert "PyTorch is not installed: NumPy computes\n" in done.stderr
    for one, other in zip(json.loads(done.stdout), expected, strict=True):
        assert (one["file"], one["class"]) == (other["file"], other["class"])
        found, wanted = ([entry["probability"] for entry in row["top"]] for row in (one, other))
        assert found == pytest.approx(wanted, abs=1e-4)
    code = f"import distill; print(len(distill.predict({str(exported)!r}, {str(pictures)!r})))"
    assert without_torch(code).stdout == "5\n"


def test_what_cannot_be_done_is_one_line(exported: Path, pictures: Path, tmp_path: Path) -> None:
    plain = without_torch(command("predict", tmp_path / "student.safetensors", pictures))
    assert plain.returncode == 2
    assert "student.safetensors holds no graph" in plain.stderr
    assert "export" in plain.stderr
    other = without_torch(command("export", exported))
    assert other.returncode == 1
    assert other.stderr == "error: this needs the library 'torch', which is not installed\n"
    drawn = without_torch(command("predict", exported, pictures, "--draw", tmp_path / "drawn"))
    assert drawn.stderr.endswith("error: --draw needs PyTorch: pip install torch, or leave it out\n")


@pytest.mark.slow
def test_a_new_environment_needs_six_libraries(exported: Path, pictures: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    needed = ["constriction", "numpy", "pillow", "rich", "safetensors", "zstandard"]
    subprocess.run([python, "-m", "pip", "install", "-q", *needed], check=True)
    done = without_torch(command("predict", exported, pictures, "--json"), python)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 5
