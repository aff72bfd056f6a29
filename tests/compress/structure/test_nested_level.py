"""Levels of NestedNet can be taken out as networks of their own."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.structure.nested_level import nested_level, with_batch_statistics
from distill.errors import RecipeError
from distill.losses.structure.nestednet import NestedNet
from distill.models import cost
from distill.models.channels.nested import Nest
from distill.models.residual import residual_blocks
from students import student
from tests.compress import nets
from tests.compress.structure.nested import Deep, Plus, batch, weights, with_masks
from tests.nets import ConvNet

NETWORKS = ("resnet20", "wrn_16_1", "mobilenet_v1")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(name: str) -> Artifact:
    settings = {"width": 0.5, "small_images": True} if "net_v" in name else {}
    return Artifact(
        student.find(name)(num_classes=10, **settings).eval(), network={"name": name, "num_classes": 10, **settings}
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "mobilenet_v1" else ()) for name in NETWORKS]
)
def test_a_narrower_network_computes_what_the_masked_one_does(name: str, tmp_path: Path) -> None:
    artifact, data = network(name), batch()
    loss = NestedNet(artifact.model)
    expected = with_batch_statistics(with_masks(loss, artifact.model, 0.5, data.inputs), [data])(data.inputs)
    level = nested_level(artifact, [data], level=0.5)
    torch.testing.assert_close(level.model(data.inputs), expected, rtol=1e-4, atol=1e-5)
    weights = sum(p.numel() for p in level.model.parameters() if p.dim() > 1)
    assert weights == sum(int(mask.sum()) for mask in loss.masks(data.inputs)[1].values())
    assert cost.macs(level.model, data.inputs) < 0.5 * cost.macs(artifact.model, data.inputs)
    level.save(tmp_path / "student.safetensors")
    assert torch.equal(open_artifact(tmp_path / "student.safetensors").model(data.inputs), level.model(data.inputs))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("resnet20", [1, 1, 1]),
        ("wrn_40_1", [2, 2, 2]),
        ("mobilenet_v2", [1, 1, 1, 1, 1]),
        ("shift_resnet20", [1, 1, 1]),
    ],
)
def test_a_shallower_network_computes_what_the_masked_one_does(name: str, kept: list[int], tmp_path: Path) -> None:
    artifact, data = network(name), batch()
    loss = NestedNet(artifact.model, levels=[0.3], nest="layers")
    expected = with_batch_statistics(with_masks(loss, artifact.model, 0.3, data.inputs), [data])(data.inputs)
    level = nested_level(artifact, [data], level=0.3, nest="layers")
    torch.testing.assert_close(level.model(data.inputs), expected, rtol=1e-5, atol=1e-5)
    assert cost.params(level.model) == weights(loss.masks(data.inputs)[0])
    blocks = residual_blocks(artifact.model, data.inputs[:1])
    assert len(residual_blocks(level.model, data.inputs[:1])) == len(blocks) - len(level.plans[0].layers) == sum(kept)
    assert cost.macs(level.model, data.inputs) < 0.8 * cost.macs(artifact.model, data.inputs)
    level.save(tmp_path / "student.safetensors")
    assert torch.equal(open_artifact(tmp_path / "student.safetensors").model(data.inputs), level.model(data.inputs))


def test_levels_of_a_deep_network_are_networks_of_fewer_layers() -> None:
    deep, data = Artifact(student.find("resnet56")().eval()), batch()
    for level, shallow in ((1 / 3, "resnet20"), (5 / 9, "resnet32"), (7 / 9, "resnet44")):
        found = nested_level(deep, [data], level=level, nest="layers").model
        same = student.find(shallow)().eval()
        assert cost.params(found) == cost.params(same)
        assert cost.macs(found, data.inputs) == cost.macs(same, data.inputs)


def test_blocks_of_torchvision_go_and_the_first_of_each_stage_stays() -> None:
    model, data = torchvision.models.resnet18(num_classes=10).eval(), batch(size=32)
    level = nested_level(Artifact(model), [data], level=0.5, nest="layers")
    assert list(level.plans[0].layers) == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    expected = with_batch_statistics(
        with_masks(NestedNet(model, levels=[0.5], nest="layers"), model, 0.5, data.inputs), [data]
    )
    torch.testing.assert_close(level.model(data.inputs), expected(data.inputs), rtol=1e-5, atol=1e-5)


class Sigmoid(Deep):
    """Its blocks add, without their weights, a half."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.stages:
            if isinstance(block, Plus):
                block.norm = nn.Sigmoid()


class Clipped(Deep):
    """Its blocks change what they are given even without their branch."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.stages:
            if isinstance(block, Plus):
                block.register_forward_hook(lambda block, args, output: F.relu6(output))


@pytest.mark.parametrize("model", [ConvNet(), Sigmoid(), Clipped()], ids=lambda model: type(model).__name__)
def test_a_network_whose_blocks_cannot_go_is_refused(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match=f"{type(model).__name__} has none that return their input"):
        nested_level(Artifact(model.eval()), [batch(1)], nest="layers")
    with pytest.raises(RecipeError, match=f"{type(model).__name__} has none that return their input"):
        NestedNet(model, nest="layers").masks(batch(1).inputs)


def test_the_largest_weights_are_left_as_zeros_elsewhere() -> None:
    artifact, data = network("resnet20"), batch()
    loss = NestedNet(artifact.model, nest="connections")
    expected = with_batch_statistics(with_masks(loss, artifact.model, 0.25, data.inputs), [data])
    level = nested_level(artifact, [data], level=0.25, nest="connections")
    torch.testing.assert_close(level.model(data.inputs), expected(data.inputs))
    kept = sum(int((p != 0).sum()) for p in level.model.parameters() if p.dim() > 1)
    assert kept == pytest.approx(sum(p.numel() for p in artifact.model.parameters() if p.dim() > 1) / 4, abs=1e2)


def trained(model: nn.Module, data: Batch, *, levels: list[float], nest: Nest = "channels") -> nn.Module:
    loss = NestedNet(model, levels=levels, nest=nest) if levels else None
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


@pytest.mark.slow
def test_levels_are_about_as_good_as_networks_of_their_size() -> None:
    train, test = nets.striped(), nets.striped()
    nested = Artifact(trained(ConvNet(num_classes=4, width=8), train, levels=[0.25, 0.5]))
    for level, width in ((0.25, 2), (0.5, 4)):
        small = nested_level(nested, [train], level=level).model
        alone = trained(ConvNet(num_classes=4, width=width), train, levels=[])
        assert cost.params(small) == cost.params(alone)
        assert accuracy(small, test) > accuracy(alone, test) - 0.05
    assert accuracy(nested.model, test) > 0.9


@pytest.mark.slow
def test_shallow_levels_are_about_as_good_as_networks_of_their_depth() -> None:
    train, test = nets.striped(), nets.striped()
    nested = Artifact(trained(Deep(blocks=4), train, levels=[0.25, 0.5], nest="layers"))
    for level, blocks in ((0.25, 1), (0.5, 2)):
        small = nested_level(nested, [train], level=level, nest="layers").model
        alone = trained(Deep(blocks=blocks), train, levels=[])
        assert cost.params(small) == cost.params(alone)
        assert accuracy(small, test) > accuracy(alone, test) - 0.05
    assert accuracy(nested.model, test) > 0.9


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_levels_out_of_range_are_refused(level: float) -> None:
    with pytest.raises(RecipeError, match="0 < level < 1"):
        nested_level(network("resnet20"), [batch()], level=level)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        NestedNet(ConvNet(), levels=[0.5, level])
