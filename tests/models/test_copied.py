"""Copies of networks that keep what they computed."""

import torch
from torch import Tensor, nn

from distill.models.copied import copied


class Remembering(nn.Module):
    """Keeps its maps, as torchvision's RAFT keeps its correlation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.maps = []  # type: ignore[assignment]
        self.last: dict[str, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x)
        self.last, self.layer.maps = {"maps": [output]}, [output]  # type: ignore[assignment]
        return output


def test_what_a_network_remembers_of_a_forward_is_no_obstacle() -> None:
    network = Remembering()
    output = network(torch.ones(2, 3))
    copy = copied(network)
    torch.testing.assert_close(copy(torch.ones(2, 3)), output)
    with torch.no_grad():
        copy.layer.weight.zero_()
    assert network.layer.weight.abs().sum() > 0
    output.sum().backward()
    assert network.layer.weight.grad is not None
    assert copy.layer.weight.grad is None
