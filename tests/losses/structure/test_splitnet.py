"""SplitNet: the published normalisation, that assignments become certain, and that what is cut apart stays apart."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.losses.structure._assignment import assigned_to, imbalance, overlap
from distill.losses.structure._split_layers import SplitLinear, masked
from distill.losses.structure.splitnet import SplitNet
from distill.models import cost
from students import student
from students._blocks import Network, head, residual_stages
from students.wide_resnet import Block
from tests.nets import ConvNet

STAGES = {"layer3.*": 2, "fc": 2}
TREE = {"layer2.*": 2, "layer3.*": 4, "fc": 4}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(4, channels, size, size)


def splitnet(model: nn.Module, inputs: Tensor, **settings: Any) -> SplitNet:
    """One that has seen the network, with groups that say something."""
    loss = SplitNet(model.eval(), **settings)
    loss(model(inputs), inputs)
    with torch.no_grad():
        for logits in loss.logits:
            logits.normal_()
    return loss


def wrn(width: int, classes: int) -> nn.Module:
    """WRN-16."""
    widths = [16, 16 * width, 32 * width, 64 * width]
    layers = {
        "conv1": nn.Conv2d(3, 16, 3, padding=1, bias=False),
        **residual_stages(Block, blocks=2, widths=widths),
        **{"bn1": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU()},
        **head(widths[-1], classes),
    }
    return Network(layers)


def test_every_term_is_1_before_anything_is_decided() -> None:
    even = torch.full((4, 12), 0.25)
    assert overlap(even) == imbalance(even) == 1
    model, inputs = wrn(2, 10), images()
    loss = splitnet(model, inputs, disjoint=0.0, balance=0.0, groups=TREE)
    with torch.no_grad():
        for logits in loss.logits:
            logits.zero_()
        torch.testing.assert_close(loss(model(inputs), inputs), torch.tensor(1.0), rtol=0.02, atol=0)


def test_terms_match_the_definition() -> None:
    p = torch.randn(3, 5).softmax(0)
    pairs = sum(p[i] @ p[j] for i in range(3) for j in range(i))
    torch.testing.assert_close(overlap(p), pairs / (5 * (3 - 1) / (2 * 3)))
    torch.testing.assert_close(imbalance(p), sum(p[g].sum() ** 2 for g in range(3)) / (25 / 3))
    model, inputs = ConvNet(), images(1)
    loss = splitnet(model, inputs, groups={"head": 2}, disjoint=0.0, balance=0.0)
    weight, (reads, makes) = model.head.weight, [logits.softmax(0) for logits in loss.logits]
    rows = sum(((1 - reads[g, i]) * weight[:, i] * makes[g]).norm() for g in range(2) for i in range(16))
    columns = sum((reads[g] * weight[j] * (1 - makes[g, j])).norm() for g in range(2) for j in range(10))
    expected = (rows / (16 * 10**0.5) + columns / (10 * 16**0.5)) / (2 * (2 - 1) / 2 * weight.std())
    torch.testing.assert_close(loss(model(inputs), inputs), expected)


@pytest.mark.parametrize("groups", [STAGES, TREE], ids=["stages", "tree"])
def test_the_tree_computes_what_the_masked_network_does(groups: dict[str, int], tmp_path: Path) -> None:
    model, inputs = student.find("wrn_16_2")(num_classes=10).eval(), images()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.bias)
            nn.init.uniform_(norm.running_mean)
    loss = splitnet(model, inputs, groups=groups)
    tree, plan = loss.deploy(model, "")
    torch.testing.assert_close(tree(inputs), masked(model, loss.members())(inputs), rtol=1e-5, atol=1e-5)
    Artifact(tree, network={"name": "wrn_16_2", "num_classes": 10}, plans=(plan,)).save(tmp_path / "s.safetensors")
    assert torch.equal(open_artifact(tmp_path / "s.safetensors").model(inputs), tree(inputs))


@pytest.mark.parametrize(
    ("groups", "weights", "macs"),
    [(STAGES, 6_780_436, 1.280e9), ({"layer2.*": 2, **STAGES}, 5_731_860, 1.011e9)],
    ids=["stages", "deep"],
)
def test_a_wide_resnet_has_the_published_size(groups: dict[str, int], weights: int, macs: float) -> None:
    model, inputs = wrn(8, 100), images(size=8)
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert cost.params(model) - norms == 11_000_340
    tree, _ = splitnet(model, inputs, groups=groups).deploy(model, "")
    assert cost.params(tree) - norms == weights
    assert 16 * cost.macs(tree, inputs) == pytest.approx(macs, rel=1e-3)  # the paper's images have 16 times as much


def test_normalisation_over_several_gpus_is_normalisation() -> None:
    torch.manual_seed(0)
    model, inputs = wrn(1, 10), images()
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    found = []
    for network in (model, synchronized):
        torch.manual_seed(1)
        loss = splitnet(network, inputs, groups=STAGES)
        found.append(loss.deploy(network, "")[0](inputs))
    torch.testing.assert_close(*found)


def test_no_path_leads_from_one_branch_to_another() -> None:
    model, inputs = student.find("wrn_16_1")(num_classes=10).eval(), images()
    loss = splitnet(model, inputs, groups=STAGES)
    tree, _ = loss.deploy(model, "")
    below = nn.Sequential(tree.conv1, tree.layer1, tree.layer2)
    above = nn.Sequential(tree.layer3, tree.bn1, tree.relu, tree.avgpool, tree.flatten, tree.fc)
    gradient = torch.autograd.functional.jacobian(above, below(inputs[:1]))[0, :, 0].abs().sum((2, 3))
    classes = torch.tensor(loss.members()["fc"][1])
    features = torch.arange(32) // 16
    assert (gradient > 0)[classes[:, None] == features].any()
    assert (gradient[classes[:, None] != features] == 0).all()


def test_assignments_become_certain_and_find_what_belongs_together() -> None:
    weight = torch.zeros(8, 16)  # classes of one half read features of the other, and nothing else
    weight[:4, 1::2] = weight[4:, ::2] = 1
    model = nn.Sequential(nn.Conv2d(1, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)).eval()
    model[3].weight = nn.Parameter(weight * (1 + 0.1 * torch.randn(8, 16)) + 0.02 * torch.randn(8, 16))
    inputs = images(1)
    loss = SplitNet(model, groups={"3": 2})
    loss(model(inputs), inputs)
    start = torch.stack([overlap(logits.softmax(0)) for logits in loss.logits]).mean()
    optimizer = torch.optim.Adam(loss.logits, lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss(model(inputs), inputs).backward()
        optimizer.step()
    assigned = [logits.softmax(0).detach() for logits in loss.logits]
    for one in assigned:
        torch.testing.assert_close(one.sum(0), torch.ones(one.shape[1]))
        assert one.max(0).values.min() > 0.95
        assert one.sum(1).min() > 0.45 * one.shape[1]
    assert torch.stack([overlap(one) for one in assigned]).mean() < 0.01 * start
    features, classes = loss.members()["3"]
    assert len(set(features[::2])) == len(set(features[1::2])) == len(set(classes[:4])) == 1
    assert features[0] != features[1] == classes[0] != classes[7]


def test_groups_are_full_when_they_are() -> None:
    assert assigned_to(torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.2], [0.1, 0.2, 0.3, 0.4, 0.8]])) == [0, 0, 0, 1, 1]
    assert sorted(assigned_to(torch.rand(4, 10))) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]


def test_a_split_classifier_answers_in_the_order_of_classes() -> None:
    layer = SplitLinear([2, 1], [1, 2], bias=True)
    layer.order.copy_(torch.tensor([1, 0, 2]))
    x = torch.randn(4, 3)
    one, other = (F.linear(part, m.weight, m.bias) for part, m in zip((x[:, :2], x[:, 2:]), layer.parts, strict=True))
    torch.testing.assert_close(layer(x), torch.stack([other[:, 0], one[:, 0], other[:, 1]], dim=1))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"layer4.*": 2}, "'layer4.*' in 2 groups: no such layer"),
        ({"fc": 1}, "'fc' in 1 groups"),
        ({"conv1": 2}, "cannot split 'conv1'"),
        ({"layer2.*": 4, "layer3.*": 6}, "in 4 groups shares channels with 6"),
        ({"layer3.*": 5}, "cannot divide 32 channels"),
    ],
)
def test_what_cannot_be_split_is_refused(groups: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        splitnet(student.find("wrn_16_1")(num_classes=10), images(), groups=groups)
