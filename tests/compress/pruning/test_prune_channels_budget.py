"""How many channels go: budgets, ratios, and the fewest that stay."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from distill.artifact import Artifact
from distill.compress import _layer_timing
from distill.errors import RecipeError
from distill.models import cost
from tests.compress.pruning.channels import batches, plain, prune, trained, widths


@pytest.mark.parametrize(
    ("name", "budget", "scope"),
    [("resnet20", "max_macs", "global"), ("resnet8x4", "max_params", "layer")],
)
def test_a_budget_is_met_and_used(name: str, budget: str, scope: str) -> None:
    artifact, images = trained(name), batches()[0].inputs
    done = prune(artifact, scope=scope, **{budget: 0.5})
    whole = {"max_macs": cost.macs(artifact.model, images), "max_params": cost.params(artifact.model)}[budget]
    assert prune(artifact, scope=scope, **{budget: float(whole // 2)}).to_bytes() == done.to_bytes()
    costs = [
        cost.macs(model, images) if budget == "max_macs" else cost.params(model)
        for model in (artifact.model, done.model)
    ]
    assert 0.45 < costs[1] / costs[0] <= 0.5
    before = widths(artifact.model)
    assert all(after == before[path] or (after % 8 == 0 and after >= 8) for path, after in widths(done.model).items())


def test_a_budget_that_cannot_be_met_says_the_least_that_can() -> None:
    artifact = trained("resnet8x4")
    with pytest.raises(RecipeError, match=r"cannot meet max_macs=0\.01: .* 0\.\d\d\d of them is the least") as refusal:
        prune(artifact, max_macs=0.01)
    least = float(str(refusal.value).split()[-6])
    done = prune(artifact, max_macs=least + 0.001)
    # Shortcuts "A" put 32, 64 and 128 channels of zeros behind those there are, whatever is pruned.
    assert set(widths(done.model).values()) == {10, 8, 8 + 32, 8 + 32 + 64, 8 + 32 + 64 + 128}
    macs = [cost.macs(model, batches()[0].inputs) for model in (artifact.model, done.model)]
    assert round(macs[1] / macs[0], 3) == least


def test_every_layer_keeps_the_same_part_in_scope_layer() -> None:
    artifact = trained("vgg8")
    after = widths(prune(artifact, ratio=0.25, scope="layer").model)
    assert list(after.values()) == [16, 32, 64, 128, 128, 10]


def test_min_channels_are_kept() -> None:
    after = widths(prune(Artifact(plain(3, 16, 32)), ratio=0.1, round_to=4, min_channels=12).model)
    assert list(after.values()) == [12, 12, 10]


def test_speed_spares_what_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(layer: nn.Module, _: tuple[int, ...]) -> tuple[float, ...]:
        return (1e-3 * layer.in_features if isinstance(layer, nn.Linear) else 0.0,)

    monkeypatch.setattr(_layer_timing, "seconds", seconds)
    artifact = Artifact(plain(3, 32, 64, 32))
    assert list(widths(prune(artifact, max_params=0.8, aim="speed", saliency="magnitude").model).values()) == [
        32,
        64,
        16,
        10,
    ]


def test_speed_is_measured_in_the_runtime() -> None:
    """Channels of large maps take longer than as many of small ones: they go first, of weights that are alike."""
    artifact = trained("resnet8x4")
    equal = artifact.copy_model()
    for parameter in equal.parameters():
        parameter.data.fill_(0.01)
    done = widths(prune(Artifact(equal), max_macs=0.7, aim="speed", saliency="magnitude").model)
    before = widths(equal)
    shares = {path: done[path] / before[path] for path in before}
    first = [share for path, share in shares.items() if path.startswith("layer1")]
    last = [share for path, share in shares.items() if path.startswith("layer3")]
    assert min(first) < min(last)


def transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(16, 8, 1, 2, 32, 128, num_classes=10)


def channels_last() -> nn.Module:
    blocks = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]
    return torchvision.models.ConvNeXt(blocks, num_classes=10)


class Named(nn.Module):
    """Calls its layers by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(input=self.first(input=images).relu().mean((2, 3)))


def test_speed_is_measured_on_layers_that_are_called_by_keyword() -> None:
    artifact = Artifact(Named().eval())
    done = prune(artifact, max_macs=0.7, aim="speed")
    assert sum(widths(done.model).values()) < sum(widths(artifact.model).values())


@pytest.mark.parametrize("network", [transformer, channels_last])
def test_speed_is_measured_on_tokens_and_on_maps_with_channels_last(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    artifact = Artifact(network().eval())
    done = prune(artifact, batches(32 if network is channels_last else 16), max_macs=0.85, aim="speed")
    assert sum(widths(done.model).values()) < sum(widths(artifact.model).values())
