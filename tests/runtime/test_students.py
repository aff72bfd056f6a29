"""Every network of ours computes in NumPy what it computes in PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill import runtime
from distill.artifact import Artifact
from distill.export.runtime import written
from tests.students.test_contract import NAMES, build, images

QUICK = {
    *("igcv2", "lccl_resnet20", "lcnn_resnet20", "lenet5", "nin_low_rank", "resnet8x4", "shift_resnet20"),
    *("shufflenet_v1", "squeezenet1_1", "versatile_resnet20", "vgg8", "x_mobilenet"),
}
"""One of each kind; `torch.export` takes seconds, so all others are slow."""


def opened(artifact: Artifact, example: torch.Tensor, folder: Path, *, lookups: bool = False) -> runtime.Network:
    path = folder / "student.runtime.safetensors"
    path.write_bytes(written(artifact, example))
    return runtime.load(path, lookups=lookups)


def settled(network: nn.Module) -> nn.Module:
    """Batch normalisation and biases away from where they begin: a mean of 0 and a variance of 1 hide mistakes."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NAMES]
)
@torch.no_grad()
def test_it_computes_what_pytorch_computes(name: str, tmp_path: Path) -> None:
    model = settled(build(name))
    network = opened(Artifact(model, network={"name": name}), images(name), tmp_path)
    for inputs in (images(name), images(name)[:1], images(name).repeat(2, 1, 1, 1)):
        expected = model(inputs).numpy()
        np.testing.assert_allclose(network(inputs.numpy()), expected, rtol=0, atol=1e-4 * max(1, abs(expected).max()))
