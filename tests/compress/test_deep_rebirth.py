"""DeepRebirth: what is folded computes the same; what is merged has the same shape and can be learned again."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from distill import measure
from distill.artifact import Artifact, open_artifact
from distill.batch import Batch
from distill.compress.deep_rebirth import deep_rebirth
from distill.straight_through import settle, trainable
from students import student
from tests.compress import nets

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
    assert measure.macs(after.model, data[0].inputs) == sum(map(int.__mul__, conv, pixels)) + 1280
    after.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors").model
    assert torch.equal(loaded(data[0].inputs), after.model(data[0].inputs))


def test_googlenets_stem_is_merged() -> None:
    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False).eval()
    assert measure.params(model) == 6_624_904
    after = deep_rebirth(Artifact(model), batches(3, 64, 64))
    assert left(after.model.conv1) == left(after.model.conv3) == []
    assert isinstance(after.model.maxpool1, nn.Identity)
    assert isinstance(after.model.maxpool2, nn.Identity)
    # Pools of Inception modules come before a convolution, or behind several: they stay.
    assert {path.rpartition(".")[0] for path in left(after.model)} == {
        "",
        *(f"inception{n}.branch4" for n in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")),
    }


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


def test_distillation_from_the_network_as_it_was_recovers_it() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 4)),
    )
    train, test = nets.striped(), nets.striped()
    before = Artifact(fitted(model, train.inputs, train.labels, 25))
    merged = deep_rebirth(before, [train])
    assert left(merged.model) == []
    after = settle(merged, fitted(trainable(merged), train.inputs, model(train.inputs).detach(), 60))
    accuracy = [(m(test.inputs).argmax(1) == test.labels).float().mean() for m in (model, merged.model, after.model)]
    assert accuracy[0] > 0.95
    assert accuracy[2] > accuracy[0] - 0.03
    assert accuracy[1] < accuracy[2]
