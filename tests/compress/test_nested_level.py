"""NestedNet: levels lie inside each other, train as one, and can be taken out as networks of their own."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import measure
from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.nested_level import nested_level, settled
from distill.errors import RecipeError
from distill.losses.nestednet import NestedNet, masked
from distill.widths.nested import Nest
from students import student
from tests.compress import nets
from tests.nets import ConvNet

NETWORKS = ("resnet20", "wrn_16_1", "mobilenet_v1")
nests = pytest.mark.parametrize("nest", ["channels", "connections"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def batch(channels: int = 3, size: int = 16) -> Batch:
    return Batch(torch.randn(8, channels, size, size), torch.arange(8) % 10, torch.arange(8))


def network(name: str) -> Artifact:
    settings = {"width": 0.5, "small_images": True} if "net_v" in name else {}
    return Artifact(
        student.find(name)(num_classes=10, **settings).eval(), network={"name": name, "num_classes": 10, **settings}
    )


def with_masks(loss: NestedNet, model: nn.Module, level: float, inputs: Tensor) -> nn.Module:
    """A whole network with zeros in place of all weights outside a level."""
    model = copy.deepcopy(model)
    masks = loss.masks(inputs)[loss.levels.index(level)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(masks.get(name, torch.tensor(True)))
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_narrower_network_computes_what_the_masked_one_does(name: str, tmp_path: Path) -> None:
    artifact, data = network(name), batch()
    loss = NestedNet(artifact.model)
    expected = settled(with_masks(loss, artifact.model, 0.5, data.inputs), [data])(data.inputs)
    level = nested_level(artifact, [data], level=0.5)
    torch.testing.assert_close(level.model(data.inputs), expected, rtol=1e-4, atol=1e-5)
    weights = sum(p.numel() for p in level.model.parameters() if p.dim() > 1)
    assert weights == sum(int(mask.sum()) for mask in loss.masks(data.inputs)[1].values())
    assert measure.macs(level.model, data.inputs) < 0.5 * measure.macs(artifact.model, data.inputs)
    level.save(tmp_path / "student.safetensors")
    assert torch.equal(open_artifact(tmp_path / "student.safetensors").model(data.inputs), level.model(data.inputs))


def test_the_largest_weights_are_left_as_zeros_elsewhere() -> None:
    artifact, data = network("resnet20"), batch()
    loss = NestedNet(artifact.model, nest="connections")
    expected = settled(with_masks(loss, artifact.model, 0.25, data.inputs), [data])
    level = nested_level(artifact, [data], level=0.25, nest="connections")
    torch.testing.assert_close(level.model(data.inputs), expected(data.inputs))
    kept = sum(int((p != 0).sum()) for p in level.model.parameters() if p.dim() > 1)
    assert kept == pytest.approx(sum(p.numel() for p in artifact.model.parameters() if p.dim() > 1) / 4, abs=1e2)


@nests
def test_levels_lie_inside_each_other_in_every_step(nest: Nest) -> None:
    model, data = ConvNet(width=8), batch(1)
    loss = NestedNet(model, levels=[0.75, 0.25, 0.5], nest=nest)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(data.inputs), data.labels, data.inputs).backward()
        optimizer.step()
        small, middle, large = loss.masks(data.inputs)
        for name, mask in middle.items():
            assert (small[name] <= mask).all()
            assert (mask <= large[name]).all()
            assert small[name].sum() < mask.sum() < large[name].sum()


@nests
def test_what_is_outside_a_level_does_not_change_it(nest: Nest) -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    loss = NestedNet(model, nest=nest)
    smallest = {name: mask.clone() for name, mask in loss.masks(data.inputs)[0].items()}
    before, whole = masked(model, smallest, data.inputs), model(data.inputs)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in smallest:
                parameter.copy_(torch.where(smallest[name], parameter, 3 * torch.randn_like(parameter)))
    assert torch.equal(masked(model, smallest, data.inputs), before)
    assert not torch.allclose(model(data.inputs), whole)


def test_the_value_is_the_mean_over_all_levels_and_leaves_statistics_alone() -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    loss = NestedNet(model, levels=[0.5])
    output = model(data.inputs)
    half = with_masks(loss, model, 0.5, data.inputs)(data.inputs)
    expected = (F.cross_entropy(output, data.labels) + F.cross_entropy(half, data.labels)) / 2
    torch.testing.assert_close(loss(output, data.labels, data.inputs), expected)
    statistics = copy.deepcopy(dict(model.named_buffers()))
    model.train()
    loss(output, data.labels, data.inputs)
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


def trained(model: nn.Module, data: Batch, *, levels: list[float]) -> nn.Module:
    loss = NestedNet(model, levels=levels) if levels else None
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        output = model(data.inputs)
        value = loss(output, data.labels, data.inputs) if loss else F.cross_entropy(output, data.labels)
        value.backward()
        optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, data: Batch) -> float:
    return float((model(data.inputs).argmax(1) == data.labels).float().mean())


def test_levels_are_about_as_good_as_networks_of_their_size() -> None:
    train, test = nets.striped(), nets.striped()
    nested = Artifact(trained(ConvNet(num_classes=4, width=8), train, levels=[0.25, 0.5]))
    for level, width in ((0.25, 2), (0.5, 4)):
        small = nested_level(nested, [train], level=level).model
        alone = trained(ConvNet(num_classes=4, width=width), train, levels=[])
        assert measure.params(small) == measure.params(alone)
        assert accuracy(small, test) > accuracy(alone, test) - 0.05
    assert accuracy(nested.model, test) > 0.9


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_levels_out_of_range_are_refused(level: float) -> None:
    with pytest.raises(RecipeError, match="0 < level < 1"):
        nested_level(network("resnet20"), [batch()], level=level)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        NestedNet(ConvNet(), levels=[0.5, level])
