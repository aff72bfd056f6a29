"""Two processes with gloo give the network that one process gives with the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

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
  quantize: {{}}
tracking: {{mode: disabled}}
"""


def train(folder: Path, *trainer: str) -> dict[str, torch.Tensor]:
    command = [
        sys.executable,
        "train.py",
        f"recipe={folder / 'ddp.yaml'}",
        f"output={folder / trainer[0][-1]}",
        *trainer,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob(f"{trainer[0][-1]}/ddp/*/student/distill/network.safetensors")
    return load_file(file)


def test_two_processes_are_one(tmp_path: Path) -> None:
    (tmp_path / "ddp.yaml").write_text(RECIPE.format(root=mnist(tmp_path / "data", train=100)))
    one = train(tmp_path, "trainer.devices=1", "trainer.accelerator=cpu")
    two = train(tmp_path, "trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
