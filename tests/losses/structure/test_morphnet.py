"""MorphNet: what channels cost, which of them go, and that the wider network goes on where the narrow one was."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.errors import RecipeError
from distill.losses.structure.morphnet import MorphNet
from distill.models import cost
from students import student
from tests.nets import ConvNet

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet20": {},
    "wrn_16_1": {},
    "vgg8": {},
    "mobilenet_v2": {"width": 0.5, "small_images": True},
    "shufflenet_v2": {"width": 0.5, "small_images": True},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(name: str) -> nn.Module:
    return student.find(name)(num_classes=10, **NETWORKS[name]).eval()


def images(channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(1))


def morphnet(model: nn.Module, inputs: Tensor, **settings: Any) -> MorphNet:
    """One that has seen the network."""
    loss = MorphNet(model, **settings)
    loss(model(inputs), inputs)
    return loss


@torch.no_grad()
def kill(model: nn.Module, share: float = 0.3) -> None:
    """Channels by their position, so that those that share one die together; what is dead is 0."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            dead = torch.arange(norm.num_features) % 10 < 10 * share
            norm.weight.uniform_(0.5, 1.5).masked_fill_(dead, 0)
            norm.bias.normal_(0, 0.1).masked_fill_(dead, 0)
            norm.running_mean.normal_(0, 0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_untouched_network_costs_what_is_counted(name: str) -> None:
    model, inputs = network(name), images()
    prices = morphnet(model, inputs).prices
    assert prices.cost(model, 0.01) == cost.macs(model, inputs)
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert morphnet(model, inputs, cost="params").prices.cost(model, 0.01) == weights


def test_a_channels_price_is_what_its_removal_saves() -> None:
    model, inputs = network("resnet20"), images()
    norm = model.layer2[1].bn1
    loss = morphnet(model, inputs, round_to=1)
    whole = cost.macs(model, inputs)
    (gradient,) = torch.autograd.grad(loss(model(inputs), inputs), norm.weight)
    with torch.no_grad():
        norm.weight[5] = 0
    saved = whole - loss.prices.cost(model, 0.01)
    assert saved == 2 * 32 * 9 * 8 * 8  # of the filter that makes it and of those that read it
    torch.testing.assert_close(gradient[5], torch.tensor(saved / whole))
    loss.settings = ("macs", whole - saved, 0.01, 1)
    assert cost.macs(loss.deploy(model, "")[0], inputs) == whole - saved


def test_channels_that_an_addition_joins_live_until_the_last_of_them_dies() -> None:
    model, inputs = network("resnet20"), images()
    loss = morphnet(model, inputs)
    whole = cost.macs(model, inputs)
    norms = [model.bn1, *(block.bn2 for block in model.layer1)]
    for norm in norms:
        assert loss.prices.cost(model, 0.01) == whole
        with torch.no_grad():
            norm.weight[3] = 0
    assert loss.prices.cost(model, 0.01) == whole - (
        3 * 9 * 16 * 16  # conv1 of the network, which makes it
        + 2 * 3 * 16 * 9 * 16 * 16  # both convolutions of three blocks
        + 32 * (9 + 1) * 8 * 8  # convolution and shortcut of the next stage
    )


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "vgg8"])
def test_the_result_computes_the_same_meets_the_budget_and_can_be_opened(name: str, tmp_path: Path) -> None:
    model, inputs = network(name), images()
    kill(model)
    expected, before = model(inputs), cost.macs(model, inputs)
    loss = morphnet(model, inputs, round_to=1 if name == "resnet20" else 4)
    deployed, plan = loss.deploy(model, "")
    torch.testing.assert_close(deployed(inputs), expected, rtol=1e-4, atol=1e-4)
    assert 0.85 * before < cost.macs(deployed, inputs) <= before
    entry = {"name": name, "num_classes": 10, **NETWORKS[name]}
    Artifact(deployed, network=entry, plans=(plan,)).save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors").model
    assert torch.equal(loaded(inputs), deployed(inputs))


def test_widths_grow_by_the_largest_factor_that_the_budget_allows() -> None:
    model, inputs = ConvNet(width=8).eval(), images(channels=1)
    kill(model, 0.5)
    deployed, _ = morphnet(model, inputs, round_to=1).deploy(model, "")
    alive = [sum(i % 10 >= 5 for i in range(8 * 2**stage)) for stage in range(3)]
    budget = cost.macs(model, inputs)
    fitting = [
        widths for widest in range(alive[2], 200) if macs(widths := [n * widest // alive[2] for n in alive]) <= budget
    ]
    assert [deployed.stage1[0].out_channels, deployed.stage2[0].out_channels, deployed.head.in_features] == fitting[-1]


def macs(widths: list[int]) -> int:
    """Of a ConvNet on images of 16x16."""
    first, second, third = widths
    return 9 * (first * 256 + first * second * 64 + second * third * 16) + 10 * third


def test_more_goes_than_has_died_where_the_budget_asks_for_it() -> None:
    model, inputs = network("resnet20"), images()
    kill(model, 0.1)
    loss = morphnet(model, inputs, budget=0.5, round_to=1)
    assert 0.47 <= cost.macs(loss.deploy(model, "")[0], inputs) / cost.macs(network("resnet20"), inputs) <= 0.5
    loss = morphnet(network("resnet20"), inputs, budget=1e-6)
    with pytest.raises(RecipeError, match="is the least"):
        loss.deploy(network("resnet20"), "")


def test_channels_that_nothing_needs_die_first() -> None:
    model, inputs = ConvNet(width=4).eval(), torch.randn(32, 1, 16, 16)
    useless = torch.arange(16) % 2 == 0
    with torch.no_grad():
        model.head.weight *= torch.where(useless, 0, 5)
        logits = model(inputs)
    labels = (logits - logits.mean(0)).argmax(1)
    loss = morphnet(model, inputs)
    norm = model.stage3[1]
    optimizer = torch.optim.SGD([norm.weight, model.head.bias], lr=0.5)
    for _ in range(80):
        optimizer.zero_grad()
        output = model(inputs)
        (F.cross_entropy(output, labels) + loss(output, inputs)).backward()
        optimizer.step()
    assert norm.weight[useless].abs().max() < 0.05 < norm.weight[~useless].abs().median()


def test_new_channels_learn() -> None:
    model, inputs = ConvNet(width=8).eval(), images(channels=1)
    kill(model, 0.5)
    deployed, _ = morphnet(model, inputs, round_to=1).deploy(model, "")
    deployed.train()
    optimizer = torch.optim.SGD(deployed.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(deployed(inputs), torch.arange(4)).backward()
        optimizer.step()
    assert all(p.grad.flatten(1).any(1).all() for p in deployed.parameters() if p.dim() > 1)


def test_a_network_without_normalisation_is_judged_by_its_filters() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    with torch.no_grad():
        model[0].weight[:5] = 0
        model[0].bias[:5] = 0
    inputs = images(channels=1, size=8)
    deployed, plan = morphnet(model, inputs, budget=0.4, round_to=1).deploy(model, "")
    assert plan.layers["0"] == {"inputs": 1, "outputs": 3}
    torch.testing.assert_close(deployed(inputs), model(inputs))


@pytest.mark.parametrize("settings", [{"budget": 0.0}, {"threshold": 0.0}, {"round_to": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="morphnet needs"):
        MorphNet(ConvNet(), **settings)


def test_a_network_without_channels_to_remove_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with pytest.raises(ValueError, match="no channel of Sequential may go"):
        morphnet(model, images(channels=1, size=8))
