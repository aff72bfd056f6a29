"""NestedNet: levels lie inside each other, train as one, and can be taken out as networks of their own."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.structure.nested_level import nested_level, with_batch_statistics
from distill.errors import RecipeError
from distill.losses.structure.nestednet import NestedNet, masked
from distill.models import cost
from distill.models.channels.nested import Masks, Nest
from distill.models.residual import residual_blocks
from distill.recipe.loading import load
from distill.recipe.plain import resolved
from students import student
from tests.compress import nets
from tests.nets import ConvNet

NETWORKS = ("resnet20", "wrn_16_1", "mobilenet_v1")
nests = pytest.mark.parametrize("nest", ["channels", "connections", "layers"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def batch(channels: int = 3, size: int = 16) -> Batch:
    return Batch(torch.randn(8, channels, size, size), torch.arange(8) % 10, torch.arange(8))


def labelled(classes: int) -> Batch:
    data = batch(1)
    return data._replace(labels=data.labels % classes)


def weights(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def network(name: str) -> Artifact:
    settings = {"width": 0.5, "small_images": True} if "net_v" in name else {}
    return Artifact(
        student.find(name)(num_classes=10, **settings).eval(), network={"name": name, "num_classes": 10, **settings}
    )


class Deep(nn.Module):
    """Two stages of residual blocks, a classifier."""

    def __init__(self, *, blocks: int = 4, width: int = 4) -> None:
        super().__init__()
        stem = [nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        down = [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()]
        self.stages = nn.Sequential(
            *(*stem, *(Plus(width) for _ in range(blocks))),
            *(*down, *(Plus(2 * width) for _ in range(blocks))),
        )
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean(dim=(2, 3)))


class Plus(nn.Module):
    """What is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x)).relu()


def net(nest: Nest) -> nn.Module:
    return Deep() if nest == "layers" else ConvNet(width=8)


def with_masks(loss: NestedNet, model: nn.Module, level: float, inputs: Tensor) -> nn.Module:
    """A whole network with zeros in place of all weights outside a level."""
    model = copy.deepcopy(model)
    masks = loss.masks(inputs)[loss.levels.index(level)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(masks.get(name, torch.tensor(True)))
    return model


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


@nests
def test_levels_lie_inside_each_other_in_every_step(nest: Nest) -> None:
    model, data = net(nest), labelled(4)
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
            assert nest == "layers" or small[name].sum() < mask.sum() < large[name].sum()
        assert weights(small) < weights(middle) < weights(large)


@nests
def test_what_is_outside_a_level_does_not_change_it(nest: Nest) -> None:
    model, data = net(nest).eval(), batch(1)
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


def test_inner_networks_learn_from_the_whole_ones_soft_targets() -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    output = model(data.inputs)
    plain, taught = (
        NestedNet(model, levels=[0.5], soft=soft, temperature=2.0)(output, data.labels, data.inputs) for soft in (0, 3)
    )
    half = with_masks(NestedNet(model, levels=[0.5]), model, 0.5, data.inputs)(data.inputs)
    told, heard = (logits.div(2).softmax(1) for logits in (output, half))
    divergence = (told * (told / heard).log()).sum(1).mean()
    torch.testing.assert_close(taught - plain, 3 * 2**2 * divergence / 2)
    # The whole network learns from labels alone, though a level's weights are its own too.
    output = output.detach().requires_grad_()
    NestedNet(model, levels=[0.5], soft=3)(output, data.labels, data.inputs).backward()
    alone = output.detach().requires_grad_()
    (F.cross_entropy(alone, data.labels) / 2).backward()
    torch.testing.assert_close(output.grad, alone.grad)


GROUPS = [[0, 2, 4, 6, 8], [1, 3], [9, 5, 7]]


@pytest.mark.parametrize("soft", [0.0, 2.0])
def test_a_coarse_level_is_asked_for_groups_of_classes(soft: float) -> None:
    model, data = ConvNet(width=8).eval(), batch(1)
    output = model(data.inputs)
    half = with_masks(NestedNet(model, levels=[0.5]), model, 0.5, data.inputs)(data.inputs)

    def summed(logits: Tensor, temperature: float) -> Tensor:
        probabilities = (logits / temperature).softmax(1)
        return torch.stack([probabilities[:, group].sum(1) for group in GROUPS], 1)

    label = torch.tensor([next(n for n, group in enumerate(GROUPS) if label in group) for label in data.labels])
    expected = -summed(half, 1)[range(8), label].log().mean()
    told, heard = summed(output, 3), summed(half, 3)
    expected = expected + soft * 9 * (told * (told / heard).log()).sum(1).mean()
    loss = NestedNet(model, levels=[0.5], coarse={0.5: GROUPS}, soft=soft, temperature=3.0)
    value = loss(output, data.labels, data.inputs)
    torch.testing.assert_close(value, (F.cross_entropy(output, data.labels) + expected) / 2)


def test_groups_that_do_not_fit_are_refused() -> None:
    model, data = ConvNet().eval(), batch(1)
    with pytest.raises(ValueError, match=r"coarse classes are of levels \[0.3\], but there are \[0.25, 0.5\]"):
        NestedNet(model, coarse={0.3: GROUPS})
    for groups in ([[0, 1], [2, 3]], [*GROUPS, []], [*GROUPS, [0]]):
        with pytest.raises(ValueError, match="each of the classes 0 to 9 once"):
            NestedNet(model, coarse={0.5: groups})(model(data.inputs), data.labels, data.inputs)


def test_a_recipe_may_set_groups(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
task: {{name: classification}}
data: {{name: digits}}
student: {{name: resnet20}}
stages: {{nested: {{epochs: 1, losses: {{nestednet: {{nest: layers, coarse: {{0.5: {GROUPS}}}}}}}}}}}
""")
    assert load(str(path)).stages["nested"].losses["nestednet"].coarse == {0.5: GROUPS}
    path.write_text(resolved(load(str(path))))
    assert load(str(path)).stages["nested"].losses["nestednet"].coarse == {0.5: GROUPS}


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
