"""Networks that call their layers as ``conv(input=x)`` are compressed as those that call them by position."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.low_rank.tt_matrix import tt_matrix
from distill.compress.low_rank.tucker import tucker
from distill.compress.pruning.prune import prune
from distill.compress.pruning.prune_channels import prune_channels
from distill.compress.quantization.int8 import int8
from distill.compress.quantization.quantize import quantize
from distill.kernels.performance import works
from distill.models.surgery import deployable
from tests.compress import nets


class Plain(nn.Module):
    """Convolutions, batch norm, ReLU, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.second, self.pointwise = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return self.linear(self.pointwise(self.second(x).relu()).mean((2, 3)))


class ByKeyword(Plain):
    """The same, by keyword."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(input=self.first(input=x)).relu()
        return self.linear(input=self.pointwise(input=self.second(input=x).relu()).mean((2, 3)))


IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCHES = [Batch(IMAGES, torch.arange(8) % 10, torch.arange(8))]
HOOKS: dict[str, Callable[[Artifact], Artifact]] = {
    "svd": lambda one: svd(one, lambda _: 1.0, BATCHES, max_params=0.6),
    "tucker": lambda one: tucker(one, lambda _: 1.0, BATCHES, max_params=0.6),
    "tensor_train": lambda one: tensor_train(one, lambda _: 1.0, BATCHES, max_params=0.6),
    "tt_matrix": lambda one: tt_matrix(one, lambda _: 1.0, BATCHES, max_params=0.98),
    "prune": lambda one: prune(one, BATCHES, nets.task_loss, saliency="taylor"),
    "prune_channels": lambda one: prune_channels(one, BATCHES, nets.task_loss, max_macs=0.6, round_to=4),
    "int8": lambda one: int8(one, BATCHES, lambda _: 1.0, bias_correction=True),
    "adaround": lambda one: quantize(one, BATCHES, bits=4, rounding="adaround"),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_result_is_that_of_the_same_network_called_by_position(hook: str) -> None:
    results = [HOOKS[hook](Artifact(network().eval())) for network in (Plain, ByKeyword)]
    plain, named = ([made.model(IMAGES), deployable(made.model)(IMAGES)] for made in results)
    torch.testing.assert_close(named, plain)
    assert not torch.allclose(plain[0], Plain().eval()(IMAGES), atol=1e-4)


def test_the_sparse_kernels_plan_is_the_same() -> None:
    assert works(ByKeyword().eval(), IMAGES) == works(Plain().eval(), IMAGES)
