"""A layer whose weight the network also reads itself keeps its place, and is named."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.models.read_elsewhere import read_elsewhere
from tests.compress import nets
from tests.compress.test_contract import apply

WARNING = "left as they are, parameters read by the network itself: both"
SETTINGS = {name: {"max_params": 0.7} for name in ("cp", "svd", "tensor_train", "tucker")}
SETTINGS |= {"predict_parameters": {"max_params": 0.7}, "tt_matrix": {"max_params": 0.95}}
SETTINGS |= {"flgc": {}, "prune_channels": {}, "nested_level": {}, "deep_rebirth": {"exact": True}}


class Borrowing(nn.Module):
    """Runs one convolution, and its weight again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both, self.norm = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.point, self.last, self.head = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 24, 3), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.both(self.stem(x).relu())).relu()
        x = F.conv2d(x, self.both.weight.to(x.dtype)).relu()
        return self.head(self.last(self.point(x).relu()).mean((2, 3)))


@pytest.fixture
def artifact() -> Artifact:
    torch.manual_seed(0)
    model = Borrowing()
    with torch.no_grad():
        model(torch.randn(8, 1, 24, 24))
    return Artifact(model.eval())


@pytest.mark.parametrize("name", SETTINGS)
def test_hooks_that_replace_layers_leave_it_alone(
    name: str, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        done = apply(name, artifact, **SETTINGS[name])
    assert f"{name}: {WARNING}" in caplog.messages
    assert all("both" not in plan.layers for plan in done.plans)
    assert done.plans or name == "deep_rebirth"
    assert done.model(nets.images()).shape == (4, 10)
    assert torch.equal(*(one.model.get_parameter("both.weight") for one in (done, artifact)))


def test_int8_rounds_it_and_folds_nothing_into_it(artifact: Artifact) -> None:
    images = nets.images()
    done, expected = apply("int8", artifact, bits=8), artifact.model(images)
    assert "both.weight" in done.stored
    assert (done.model(images) - expected).norm() < 0.1 * expected.norm()


def test_a_look_at_the_type_of_a_weight_counts_and_a_call_does_not() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called, self.seen = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.seen(self.called(x.to(self.seen.weight.dtype)))

    model = Looking()
    assert read_elsewhere(model, torch.randn(1, 3), ["called", "seen"]) == ["seen"]
    assert type(model.seen) is nn.Linear
