"""The penalty on gates says how many pixels it leaves closed."""

import pytest
import torch
from torch import nn

from distill.losses.structure.lccl import ClosingGates
from students.lccl import Gate, lccl_resnet20
from tests.nets import ConvNet

LOGITS = torch.zeros(1, 10)


def gates(network: nn.Module) -> list[Gate]:
    return [module for module in network.modules() if isinstance(module, Gate)]


@pytest.mark.parametrize("closed", [0.1, 0.3, 0.5, 0.8])
def test_where_it_becomes_zero_normal_gates_are_closed_on_that_part_of_the_pixels(closed: float) -> None:
    torch.manual_seed(0)
    network = lccl_resnet20()
    penalty = ClosingGates(network, closed=closed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    while (value := penalty(LOGITS)) > 0:
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    scale, shift = (torch.stack([getattr(gate[1], name)[0] for gate in gates(network)]) for name in ("weight", "bias"))
    zeros = (scale * torch.randn(100_000, 1) + shift).relu() == 0
    assert zeros.double().mean(0).tolist() == pytest.approx([closed] * len(scale), abs=0.02)


def test_it_is_the_mean_excess_of_shifts() -> None:
    network = lccl_resnet20(full_width=True)
    for number, gate in enumerate(gates(network)):
        nn.init.constant_(gate[1].bias, number - 1)
        nn.init.constant_(gate[1].weight, -2)
    assert ClosingGates(network, closed=0.5)(LOGITS).item() == pytest.approx(sum(range(17)) / 18)
    assert list(ClosingGates(network).parameters()) == []


def test_a_network_without_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="lccl: the network has no gates; lccl_resnet20 has them"):
        ClosingGates(ConvNet())
