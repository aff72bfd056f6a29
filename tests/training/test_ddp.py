"""Two processes with gloo give the network that one process gives with the same global batch."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.data.tiny import mnist

ROOT = Path(__file__).parents[2]
RECIPE = """
task: {{name: classification}}
data: {{name: mnist, root: {root}, batch_size: 16, val: 0.2, crop: 0}}
teacher: {{name: lenet5, epochs: 1}}
student: {{name: lenet5}}
baseline: false
stages:
  hint: {{epochs: 1, task_weight: 0, losses: {{at: {{weight: 100, student: [pool2], teacher: [pool2]}}}}}}
  distill: {{epochs: 1, losses: {{kd: {{weight: 0.9}}}}}}
compress:
  svd: {{aim: speed, max_macs: 0.9, finetune: {{epochs: 1}}}}
  quantize: {{}}
tracking: {{mode: disabled}}
"""


LONG = "name: lenet5, epochs: 100000"
TWO = ("trainer.devices=2", "trainer.accelerator=cpu")


def start(folder: Path, *trainer: str) -> subprocess.Popen:
    command = [sys.executable, "train.py", f"recipe={folder / 'ddp.yaml'}", f"output={folder / trainer[0][-1]}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *trainer], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def train(folder: Path, *trainer: str) -> dict[str, torch.Tensor]:
    process = start(folder, *trainer)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    (file,) = folder.glob(f"{trainer[0][-1]}/ddp/*/student/distill/network.safetensors")
    return load_file(file)


def test_two_processes_are_one(tmp_path: Path) -> None:
    (tmp_path / "ddp.yaml").write_text(RECIPE.format(root=mnist(tmp_path / "data", train=100)))
    one = train(tmp_path, "trainer.devices=1", "trainer.accelerator=cpu")
    two = train(tmp_path, *TWO)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def children(process: int) -> list[int]:
    file = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in file.read_text().split()] if file.exists() else []


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Two processes in the middle of a long training: the first one, and the number of the second."""
    recipe = RECIPE.format(root=mnist(tmp_path / "data", train=100)).replace("name: lenet5, epochs: 1", LONG)
    (tmp_path / "ddp.yaml").write_text(recipe)
    process = start(tmp_path, *TWO)
    wait_until(lambda: list(tmp_path.glob("2/ddp/*/teacher.part/last.ckpt")) or process.poll(), 200)
    (other,) = [child for child in children(process.pid) if b"train.py" in command_line(child)]
    yield process, other
    process.kill()
    process.communicate()
    wait_until(lambda: not runs(other), 20)


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_the_one_that_started_them(training: tuple[subprocess.Popen, int]) -> None:
    first, other = training
    first.kill()
    first.wait()
    wait_until(lambda: not runs(other), 20)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lost_process_is_named_and_the_command_goes_on(training: tuple[subprocess.Popen, int]) -> None:
    first, other = training
    os.kill(other, signal.SIGKILL)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 1
    assert re.search(r"error: teacher: another process of this run ended .* the same command goes on", errors)
