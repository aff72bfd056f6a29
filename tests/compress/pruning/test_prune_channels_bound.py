"""Layers that keep their channels, because nothing says which channels of others depend on them."""

import logging

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.errors import RecipeError
from distill.models.channels.groups import Widths
from distill.models.channels.propagation import Channels
from tests.compress.pruning.channels import (
    plain,
    prune,
    trained,
    widths,
)


def test_only_chosen_layers_lose_filters_and_only_where_all_that_shrink_are_chosen() -> None:
    artifact = trained("resnet20")
    before = widths(artifact.model)
    inner = widths(prune(artifact, ratio=0.5, layers=["layer*.conv1"], scope="layer").model)
    assert {path for path in before if inner[path] < before[path]} == {path for path in before if ".conv1" in path}
    assert widths(prune(artifact, layers=["layer1.0.conv2"]).model) == before  # bound to others by additions
    stream = prune(artifact, layers=["conv1", "layer1.*.conv2"], scope="layer").model
    assert {path for path in before if widths(stream)[path] < before[path]} == {
        path for path in before if path == "conv1" or (path.startswith("layer1") and path.endswith("conv2"))
    }


class Softmax(nn.Module):
    """Something between layers that joins channels: those of the second layer cannot be told apart after it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.softmax(dim=1)


def test_what_cannot_be_followed_stays_and_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    model = plain(3, 16, 16, 16)
    model[4] = Softmax()
    with caplog.at_level(logging.INFO, logger="distill"):
        done = prune(Artifact(model), ratio=0.5)
    assert list(widths(done.model).values()) == [8, 16, 8, 10]
    assert caplog.messages == [
        "prune_channels: 2 layers, 58 -> 42 channels, 5258 -> 2642 parameters, 1290400 -> 645200 MACs; "
        "left as they are: 2 (too narrow, or bound to what stays); not followed: _softmax"
    ]


class Stubborn(nn.Module):
    """Sizes written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.two(self.one(inputs).relu()).view(-1, 16, 256).unflatten(2, (16, 16))
        return self.head(self.three(x[:, 4:12]).amax((2, 3)))


def test_layers_whose_sizes_are_written_into_the_code_stay() -> None:
    done = prune(Artifact(Stubborn()), ratio=0.5)
    assert list(widths(done.model).values()) == [8, 16, 8, 10]


def test_a_network_that_cannot_be_followed_at_all_stays(caplog: pytest.LogCaptureFixture) -> None:
    class Choosy(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            scale = 1 / super().forward(inputs).abs().mean().item()
            return scale * super().forward(inputs)

    artifact = Artifact(Choosy(*plain(3, 16, 16)))
    with caplog.at_level(logging.INFO, logger="distill"):
        assert prune(artifact) is artifact
    assert "not followed: Choosy (ZeroDivisionError: float division by zero)" in caplog.text
    with pytest.raises(RecipeError, match=r"cannot meet max_params=0\.5: .* 1\.000 of them is the least"):
        prune(artifact, max_params=0.5)


def test_a_layer_used_twice_and_layers_that_share_weights() -> None:
    shared = nn.Conv2d(16, 16, 3, padding=1)
    tied = nn.Conv2d(16, 16, 1)
    other = nn.Conv2d(16, 16, 1)
    other.weight = tied.weight
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), shared, nn.ReLU(), shared, tied, other, nn.Flatten(), nn.Linear(4096, 10)
    )
    done = prune(Artifact(model), ratio=0.5).model
    assert done[1] is done[3]
    assert done[4].weight.shape == (16, 16, 1, 1)  # so what it reads has to stay as well
    free = nn.Sequential(model[0], shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(4096, 10))
    assert list(widths(prune(Artifact(free), ratio=0.5).model).values()) == [8, 8, 10]


def test_a_network_that_would_compute_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Widths.kept

    def astray(self: Widths, channels: Channels) -> dict[str, tuple[list[int], list[int]]]:
        kept = fits(self, channels)
        kept["3"][0].reverse()
        return kept

    monkeypatch.setattr(Widths, "kept", astray)
    with pytest.raises(RecipeError, match="cannot tell how Sequential moves its channels: .* name layers"):
        prune(Artifact(plain(3, 16, 16)))
