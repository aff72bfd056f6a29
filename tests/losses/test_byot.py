"""Self distillation: the three parts by hand, and who learns from whom."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.byot import SelfDistillation

SHAPES = [(4, 3, 8, 8), (4, 5, 4, 4), (4, 8, 2, 2), (4, 6)]
LABELS = torch.tensor([5, 0, 3, 3])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def taps() -> list[Tensor]:
    return [torch.randn(shape).requires_grad_() for shape in SHAPES]


def test_byot_matches_the_definition() -> None:
    loss = SelfDistillation(SHAPES, temperature=2.0, alpha=0.3, beta=0.1).eval()
    *shallow, deepest, output = taps()
    expected = 0.0
    for features, adapter, classifier in zip(shallow, loss.adapters, loss.classifiers, strict=True):
        pooled = adapter(features).mean(dim=(2, 3))
        for n, label in enumerate(LABELS):
            mine = classifier(pooled[n])
            p, q = (output[n] / 2).softmax(0), (mine / 2).softmax(0)
            expected += 0.7 * -mine.softmax(0)[label].log() / 4
            expected += 0.3 * 2**2 * sum(p[k] * (p[k] / q[k]).log() for k in range(6)) / 4
            expected += 0.1 * sum((pooled[n, c] - deepest[n, c].mean()) ** 2 for c in range(8)) / 4
    torch.testing.assert_close(loss([*shallow, deepest, output], LABELS), expected)


def test_byot_teaches_the_shallow_maps_alone() -> None:
    loss, student = SelfDistillation(SHAPES), taps()
    loss(student, LABELS).backward()
    assert [features.grad is not None for features in student] == [True, True, False, False]
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_byot_by_labels_alone_is_the_cross_entropy_of_its_exits() -> None:
    loss, student = SelfDistillation(SHAPES, alpha=0.0, beta=0.0).eval(), taps()
    exits = zip(student, loss.adapters, loss.classifiers, strict=False)
    logits = [classifier(adapter(features).mean(dim=(2, 3))) for features, adapter, classifier in exits]
    torch.testing.assert_close(loss(student, LABELS), sum(F.cross_entropy(each, LABELS) for each in logits))


def test_byot_by_depth_alone_is_zero_for_exits_that_know_it_all() -> None:
    loss, student = SelfDistillation([SHAPES[0], *SHAPES[2:]], alpha=1.0).eval(), taps()
    features = loss.adapters[0](student[0])
    taught = [student[0], features, loss.classifiers[0](features.mean(dim=(2, 3)))]
    assert loss(taught, LABELS).item() == pytest.approx(0, abs=1e-6)


def test_byot_exits_have_the_deepest_maps_size() -> None:
    loss = SelfDistillation(SHAPES)
    assert [adapter(s).shape for adapter, s in zip(loss.adapters, taps(), strict=False)] == [SHAPES[2]] * 2


@pytest.mark.parametrize("shapes", [SHAPES[:3], SHAPES[2:], [*SHAPES[:2], (4, 8), (4, 6)]])
def test_byot_refuses_taps_that_are_not_maps_and_then_logits(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="two or more maps, early to late, and then the network's own output"):
        SelfDistillation(shapes)
