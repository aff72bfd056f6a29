"""Class attention transfer: class maps drawn pixel by pixel, and whose classifier draws them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.catkd import ClassAttention
from distill.models.taps import Taps
from tests.nets import ConvNet

STUDENT, TEACHER = (4, 8, 4, 4), (4, 16, 6, 6)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def class_maps(features: Tensor, weight: Tensor) -> Tensor:
    batch, _, height, width = features.shape
    maps = torch.zeros(batch, len(weight), height, width)
    for y in range(height):
        for x in range(width):
            maps[:, :, y, x] = features[:, :, y, x] @ weight.T
    return maps


@pytest.mark.parametrize("normalize", [True, False])
def test_catkd_matches_the_definition(normalize: bool) -> None:
    small, large = ConvNet(width=2), ConvNet()
    loss = ClassAttention(STUDENT, TEACHER, small, large, normalize=normalize)
    student, teacher = torch.randn(STUDENT), torch.randn(TEACHER)
    ours = F.avg_pool2d(class_maps(student, small.head.weight), 2)
    theirs = F.avg_pool2d(class_maps(teacher, large.head.weight), 3)
    expected = 0.0
    for n in range(4):
        for k in range(10):
            pair = [maps[n, k] / maps[n, k].norm() if normalize else maps[n, k] for maps in (ours, theirs)]
            expected += (pair[0] - pair[1]).square().sum() / (4 * 10 * 2 * 2)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_catkd_is_zero_for_the_teacher_itself_however_loud() -> None:
    network, features = ConvNet(), torch.randn(TEACHER)
    loss = ClassAttention(TEACHER, TEACHER, network, network)
    assert loss(7 * features, features).item() == pytest.approx(0, abs=1e-12)


def test_catkd_class_maps_average_to_the_logits() -> None:
    network, images = ConvNet(), torch.randn(2, 1, 32, 32)
    nn.init.zeros_(network.head.bias)
    logits, features = Taps(network.eval(), ["stage3"])(images)
    loss = ClassAttention(TEACHER, TEACHER, network, network, normalize=False)
    torch.testing.assert_close(loss.class_maps(features["stage3"], network.head.weight).mean(dim=2), logits)


def test_catkd_teaches_the_students_classifier_as_it_is_now() -> None:
    small = ConvNet(width=2)
    loss = ClassAttention(STUDENT, TEACHER, small, ConvNet())
    student, teacher = torch.randn(STUDENT), torch.randn(TEACHER)
    before = loss(student, teacher)
    before.backward()
    assert small.head.weight.grad.any()
    small.head = nn.Linear(8, 10)
    assert loss(student, teacher) != before


def test_catkd_neither_owns_nor_saves_a_network() -> None:
    small, large = ConvNet(width=2), ConvNet()
    loss = ClassAttention(STUDENT, TEACHER, small, large)
    loss(torch.randn(STUDENT), torch.randn(TEACHER)).backward()
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    assert large.head.weight.grad is None


def test_catkd_copied_with_its_student_looks_at_the_copy() -> None:
    small = ConvNet(width=2)
    both = nn.ModuleDict({"student": small, "loss": ClassAttention(STUDENT, TEACHER, small, ConvNet())})
    copied = copy.deepcopy(both)
    copied["loss"](torch.randn(STUDENT), torch.randn(TEACHER)).backward()
    assert copied["student"].head.weight.grad.any()
    assert small.head.weight.grad is None


@pytest.mark.parametrize("shape", [(4, 8, 1, 1), (4, 8)])
def test_catkd_refuses_a_map_with_nowhere_to_look(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="class maps of 2x2 pixels, but a tap has shape"):
        ClassAttention(shape, TEACHER, ConvNet(width=2), ConvNet())


def test_catkd_refuses_a_map_that_the_students_classifier_does_not_read() -> None:
    with pytest.raises(ValueError, match="reads 8 features and the tap has 4 channels"):
        ClassAttention((4, 4, 8, 8), TEACHER, ConvNet(width=2), ConvNet())
