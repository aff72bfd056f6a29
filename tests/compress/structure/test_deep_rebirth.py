"""DeepRebirth: what is folded computes the same; what is merged has the same shape and can be learned again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress.structure.deep_rebirth import deep_rebirth
from distill.errors import RecipeError
from distill.models import cost
from students import student
from tests.compress import nets
from tests.nets import Inception, conv, settled

GONE = (nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.LocalResponseNorm)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def artifact(name: str, **settings: float) -> Artifact:
    """A network with batch statistics that say something."""
    model = student.find(name)(num_classes=10, **settings)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 16, 16) + 0.5)
    return Artifact(model.eval(), network={"name": name, "num_classes": 10, **settings})


def batches(*shape: int) -> list[Batch]:
    images = torch.randn(4, *(shape or (3, 16, 16)))
    return [Batch(images, torch.arange(4), torch.arange(4))]


def left(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, GONE)]


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "vgg8"])
def test_exact_merging_changes_nothing(name: str) -> None:
    before, data = artifact(name), batches()
    after = deep_rebirth(before, data, exact=True)
    torch.testing.assert_close(after.model(data[0].inputs), before.model(data[0].inputs), rtol=1e-5, atol=1e-5)
    # A wide ResNet normalises sums, which are no convolution's own.
    assert sum(isinstance(m, nn.BatchNorm2d) for m in after.model.modules()) == (7 if name == "wrn_16_1" else 0)


def test_convolution_pool_and_response_normalisation_become_one() -> None:
    stem = nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.LocalResponseNorm(5),
    ).eval()
    data = batches(3, 64, 64)
    after = deep_rebirth(Artifact(stem), data)
    assert after.plans[0].layers == {"0": {"gone": ["2", "3"], "stride": [4, 4], "padding": [3, 3]}}
    assert after.model(data[0].inputs).shape == stem(data[0].inputs).shape == (4, 8, 16, 16)
    assert [type(module) for module in after.model] == [nn.Conv2d, nn.ReLU, nn.Identity, nn.Identity]


def test_a_network_is_left_with_convolutions(tmp_path: Path) -> None:
    before, data = artifact("vgg8", width=0.25), batches()
    after = deep_rebirth(before, data)
    assert left(after.model) == []
    conv = [9 * i * o for i, o in zip((3, 16, 32, 64, 128), (16, 32, 64, 128, 128), strict=True)]
    pixels = (64, 16, 4, 4, 4)  # a quarter of what each of the first three had
    assert cost.macs(after.model, data[0].inputs) == sum(map(int.__mul__, conv, pixels)) + 1280
    after.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors").model
    assert torch.equal(loaded(data[0].inputs), after.model(data[0].inputs))


def test_googlenets_stem_is_merged() -> None:
    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False).eval()
    assert cost.params(model) == 6_624_904
    after = deep_rebirth(Artifact(model), batches(3, 64, 64))
    assert left(after.model.conv1) == left(after.model.conv3) == []
    assert isinstance(after.model.maxpool1, nn.Identity)
    assert isinstance(after.model.maxpool2, nn.Identity)
    # Pools of Inception modules come before a convolution, or behind several: they stay.
    assert {path.rpartition(".")[0] for path in left(after.model)} == {
        "",
        *(f"inception{n}.branch4" for n in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")),
    }


GOOGLENET = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
"""Inputs; 1x1; 3x3, reduced and its own; 5x5, which torchvision computes as 3x3, reduced and its own; the pool's."""


def test_all_of_googlenets_branches_and_pools_are_merged(tmp_path: Path) -> None:
    settings = {"aux_logits": False, "init_weights": False}
    model = torchvision.models.googlenet(**settings).eval()
    assert cost.macs(model, torch.randn(1, 3, 224, 224)) == pytest.approx(1498.38e6, abs=5e3)
    network = {"name": "torchvision.models:googlenet", "num_classes": 1000, **settings}
    after = deep_rebirth(Artifact(model, network=network), batches(3, 64, 64), branches=True)
    assert left(after.model) == []
    assert sum(isinstance(m, nn.Conv2d) for m in after.model.modules()) == 57 - 2 * 9
    expected = 64 * 3 * 49 + 64 * 64 + 192 * 64 * 9 + (64 + 64 + 192) + 1024 * 1000 + 1000
    for inputs, one, less3, three, less5, five, pool in GOOGLENET.values():
        both = (one + three) * less3 + (five + pool) * less5
        expected += inputs * (less3 + less5) + 9 * both + less3 + less5 + one + three + five + pool
    assert cost.params(after.model) == expected
    images = torch.randn(2, 3, 64, 64)
    assert after.model.conv3(after.model.conv2(after.model.conv1(images))).shape == (2, 192, 8, 8)
    assert after.model.inception3b(torch.randn(2, 256, 8, 8)).shape == (2, 480, 4, 4)
    after.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=["torchvision.models"]).model
    assert torch.equal(loaded(images), after.model(images))


def inception() -> tuple[Artifact, list[Batch]]:
    data = batches(1, 16, 16)
    return Artifact(settled(Inception(), data[0].inputs), network={"name": "tests.nets:Inception"}), data


def test_channels_that_were_a_branchs_lie_where_they_lay() -> None:
    before, data = inception()
    after = deep_rebirth(before, data, branches=True, layers=["first.*"])
    assert after.plans[0].layers == {
        "first": {"branches": [["two"], ["three"]]},
        "first.two.1.0": {"outputs": 8, "before": 2},
        "first.two.1.1": {"outputs": 8, "before": 2},
        "first.three.1.0": {"outputs": 8, "before": 0},
        "first.three.1.1": {"outputs": 8, "before": 0},
    }
    added = {name for name, _ in after.model.named_parameters()} - {name for name, _ in before.model.named_parameters()}
    assert added == {f"first.{path}.bias" for path in ("two.0.0", "two.1.0", "three.0.0", "three.1.0")}
    maps = before.model.pool1(before.model.stem(data[0].inputs))
    old, new = (network.first(maps) for network in (before.model, after.model))
    # The pool behind the branches is merged too: convolutions answer every second pixel.
    assert old.shape == (4, 16, 8, 8)
    assert new.shape == (4, 16, 4, 4)
    kept = [*range(2, 8), *range(8, 12)]
    torch.testing.assert_close(new[:, kept], old[:, kept, ::2, ::2], rtol=1e-5, atol=1e-5)
    fresh = [0, 1, *range(12, 16)]
    assert new[:, fresh].flatten(1).std(dim=1).min() > 0.1
    assert not any(
        (new[:, channel] - old[:, other, ::2, ::2]).abs().max() < 1e-2 for channel in fresh for other in fresh
    )


def test_what_is_not_chosen_keeps_its_branches_and_rounds_add_up() -> None:
    before, data = inception()
    first = deep_rebirth(before, data, branches=True, layers=["first.*", "stem.*"])
    assert left(first.model.second) == left(before.model.second)
    assert first.model.second(torch.ones(1, 16, 4, 4)).equal(before.model.second(torch.ones(1, 16, 4, 4)))
    both = deep_rebirth(first, data, branches=True)
    assert left(both.model) == []
    at_once = deep_rebirth(before, data, branches=True).model
    assert {n: p.shape for n, p in both.model.named_parameters()} == {n: p.shape for n, p in at_once.named_parameters()}


class Fork(nn.Module):
    """A 1x1 convolution beside what no filters can be added to, or beside nothing that reads what it reads."""

    def __init__(self, other: nn.Module, *, ahead: bool = False) -> None:
        super().__init__()
        self.one, self.other, self.ahead = conv(3, 4, 1), other, ahead

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x + x.flip(3) if self.ahead else x)], dim=1).mean((2, 3))


@pytest.mark.parametrize(
    ("other", "ahead"),
    [
        (conv(3, 4, 1), False),
        (nn.Identity(), False),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid()), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4)), False),
        (nn.Conv2d(3, 4, 3, padding=1), True),
    ],
)
def test_branches_that_nobody_can_take_over_stay(other: nn.Module, ahead: bool) -> None:
    after = deep_rebirth(Artifact(Fork(other, ahead=ahead).eval()), batches(), branches=True)
    assert isinstance(after.model.one[0], nn.Conv2d)


def test_branches_are_not_slimmed_exactly() -> None:
    before, data = inception()
    with pytest.raises(RecipeError, match="remove 'exact' or 'branches'"):
        deep_rebirth(before, data, exact=True, branches=True)


class Shared(nn.Module):
    """A map that is pooled and also added; a pool whose stride exceeds the kernel; a pool used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, k, padding=k // 2) for k in (3, 1, 3))
        self.pool, self.jump, self.again = nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(2), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = self.jump(self.two(x + self.pool(x)))
        return self.again(self.again(self.three(x)))


def test_what_others_need_stays() -> None:
    model = Shared().eval()
    before = Artifact(model)
    assert deep_rebirth(before, batches(3, 16, 16)) is before


def fitted(model: nn.Module, images: Tensor, aim: Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
    loss = F.cross_entropy if aim.dim() == 1 else F.mse_loss
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(images), aim).backward()
        optimizer.step()
    return model.eval()


def pooled() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 4)),
    )


@pytest.mark.parametrize(("network", "branches"), [(pooled, False), (Inception, True)])
def test_distillation_from_the_network_as_it_was_recovers_it(network: Callable[[], nn.Module], branches: bool) -> None:
    model = network()
    train, test = nets.striped(), nets.striped()
    before = Artifact(fitted(model, train.inputs, train.labels, 25))
    merged = deep_rebirth(before, [train], branches=branches)
    assert left(merged.model) == []
    after = finalize(merged, fitted(trainable(merged), train.inputs, model(train.inputs).detach(), 60))
    accuracy = [(m(test.inputs).argmax(1) == test.labels).float().mean() for m in (model, merged.model, after.model)]
    assert accuracy[0] > 0.95
    assert accuracy[2] > accuracy[0] - 0.03
    assert accuracy[1] < accuracy[2]
