"""Contrastive distillation: against plain loops, torchdistill, and what a memory must and must not do."""

import copy

import pytest
import torch
from torch import Tensor
from torchdistill.losses.mid_level import CRDLoss

from distill.losses.crd import Contrast

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
SAMPLE = torch.tensor([6, 1, 3])
NEGATIVES = torch.tensor([[1, 2, 4, 7, 1], [0, 2, 3, 5, 6], [5, 4, 2, 1, 7]])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def contrast(**settings: object) -> Contrast:
    return Contrast((8, 6, 3, 3), (8, 5), LABELS, **{"dimension": 4, "negatives": 5, **settings})


def features(batch: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 6, 3, 3), torch.randn(batch, 5)


def embeddings(crd: Contrast, student: Tensor, teacher: Tensor) -> list[Tensor]:
    pair = crd.embed_student(student.mean(dim=(2, 3))), crd.embed_teacher(teacher)
    return [rows / rows.norm(dim=1, keepdim=True) for rows in pair]


def with_negatives(crd: Contrast, negatives: Tensor) -> Contrast:
    crd.memory.draw = lambda sample: negatives
    return crd


def test_crd_matches_the_definition() -> None:
    """Equation 18 in probabilities, one row of the memory at a time."""
    crd = with_negatives(contrast(), NEGATIVES)
    student, teacher = features()
    embedded, memory = embeddings(crd, student, teacher), crd.memory.rows.clone()
    expected, noise = 0.0, 5 / len(LABELS)
    for anchors, rows in zip(embedded, memory.flip(0), strict=True):
        scores = [
            [(rows[j] @ anchor / 0.07).exp() for j in (sample, *drawn)]
            for anchor, sample, drawn in zip(anchors, SAMPLE, NEGATIVES, strict=True)
        ]
        z = sum(map(sum, scores)) / 18 * len(LABELS)
        for positive, *others in scores:
            expected -= (positive / z / (positive / z + noise)).log() / 3
            expected -= sum((noise / (other / z + noise)).log() for other in others) / 3
    torch.testing.assert_close(crd(student, teacher, SAMPLE), expected)


def test_crd_equals_torchdistill_while_the_memory_moves() -> None:
    crd = with_negatives(contrast(), NEGATIVES)
    peer = CRDLoss("normalizer", "empty", "normalizer", 4, len(LABELS), 5, len(LABELS))
    peer.memory_v1.copy_(crd.memory.rows[0])
    peer.memory_v2.copy_(crd.memory.rows[1])
    samples = {"pos_idx": SAMPLE, "contrast_idx": torch.cat([SAMPLE[:, None], NEGATIVES], dim=1)}
    for _ in range(3):
        student, teacher = features()
        ours, theirs = (rows.detach() for rows in embeddings(crd, student, teacher))
        expected = peer(
            {"normalizer": {"output": ours}, "empty": {"input": samples}}, {"normalizer": {"output": theirs}}
        )
        torch.testing.assert_close(crd(student, teacher, SAMPLE), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(crd.memory.rows, torch.stack([peer.memory_v1, peer.memory_v2]))


def test_crd_sends_a_gradient_through_both_embeddings_but_not_into_the_memory() -> None:
    crd = contrast()
    crd(*features(), SAMPLE).backward()
    assert crd.embed_student.weight.grad.any()
    assert crd.embed_teacher.weight.grad.any()
    assert not crd.memory.rows.requires_grad


def test_crd_draws_evenly_from_all_samples_of_other_classes() -> None:
    drawn = contrast(negatives=30_000).memory.draw(SAMPLE)
    for sample, row in zip(SAMPLE, drawn, strict=True):
        shares = row.bincount(minlength=len(LABELS)) / 30_000
        others = LABELS[sample] != LABELS
        assert not shares[~others].any()
        torch.testing.assert_close(shares[others], torch.full_like(shares[others], 1 / others.sum()), rtol=0.1, atol=0)


def test_crd_takes_classes_of_any_number() -> None:
    renamed = Contrast((8, 6), (8, 5), 100 - 7 * LABELS, negatives=500).memory.draw(SAMPLE)
    assert all((LABELS[row] != LABELS[sample]).all() for sample, row in zip(SAMPLE, renamed, strict=True))


@pytest.mark.parametrize("labels", [torch.tensor([3, 3, 3]), torch.rand(4), torch.zeros(4, 2, dtype=torch.int)])
def test_crd_refuses_labels_that_leave_no_negatives(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="two classes or more"):
        Contrast((8, 6), (8, 5), labels)


@pytest.mark.parametrize("memory", ["bank", "queue"])
class TestEitherMemory:
    def test_a_resumed_loss_goes_on_as_it_would_have(self, memory: str) -> None:
        crd, resumed = contrast(memory=memory), contrast(memory=memory)
        crd(*features(), SAMPLE)
        resumed.load_state_dict(crd.state_dict())
        for _ in range(2):
            batch = features()
            values = []
            for each in (crd, resumed):
                torch.manual_seed(1)
                values.append(each(*batch, SAMPLE))
            assert torch.equal(*values)

    def test_there_may_be_more_negatives_than_samples(self, memory: str) -> None:
        assert contrast(memory=memory, negatives=1000)(*features(), SAMPLE).isfinite()

    def test_a_probe_leaves_no_trace(self, memory: str) -> None:
        crd = contrast(memory=memory)
        before = copy.deepcopy(crd.state_dict())
        with torch.no_grad():
            crd(*features(), SAMPLE)
        assert all(
            torch.equal(after.nan_to_num(), before[name].nan_to_num()) for name, after in crd.state_dict().items()
        )

    def test_the_first_batch_fixes_the_normalisation(self, memory: str) -> None:
        crd = contrast(memory=memory)
        crd(*features(), SAMPLE)
        first = crd.log_z.clone()
        crd(*features(), SAMPLE)
        assert torch.equal(crd.log_z, first)

    def test_images_that_agree_cost_less_than_images_that_do_not(self, memory: str) -> None:
        crd = contrast(memory=memory, negatives=64).requires_grad_(False)
        crd.embed_teacher.load_state_dict(
            {k: v[:, :5] if v.dim() == 2 else v for k, v in crd.embed_student.state_dict().items()}
        )
        crd.embed_student.weight[:, 5] = 0
        same = torch.randn(3, 5)
        rows = torch.cat([same, torch.zeros(3, 1)], dim=1)
        for _ in range(30):
            crd(rows, same, SAMPLE)
        assert crd(rows, same, SAMPLE) < crd(rows, same.roll(1, 0), SAMPLE)


def test_crd_queue_is_smaller_than_a_bank_of_a_large_training_set() -> None:
    labels = torch.arange(50_000) % 10
    bank, queue = (
        Contrast((8, 6), (8, 5), labels, dimension=4, negatives=64, memory=kind) for kind in ("bank", "queue")
    )
    assert sum(t.numel() for t in bank.state_dict().values()) > 2 * 4 * 50_000
    assert sum(t.numel() for t in queue.state_dict().values()) < 1000


def test_crd_queue_matches_the_definition() -> None:
    """As the bank's, but the positive is what the other network makes of the same image now, and taken as given."""
    crd = contrast(memory="queue")
    crd.memory.row_labels.copy_(torch.tensor([0, 1, 1, 2, 0]))
    crd.log_z.copy_(torch.tensor([0.3, -0.2])[:, None, None])
    (student, teacher), memory, expected = features(), crd.memory.rows.clone(), 0.0
    student.requires_grad_()
    pair = embeddings(crd, student, teacher)
    for anchors, others, rows, log_z in zip(pair, reversed(pair), memory.flip(0), (0.3, -0.2), strict=True):
        for anchor, other, sample in zip(anchors, others, SAMPLE, strict=True):
            negatives = [row for row, label in zip(rows, [0, 1, 1, 2, 0], strict=True) if label != LABELS[sample]]
            odds = [(anchor @ row / 0.07 - log_z).exp() / len(negatives) for row in (other.detach(), *negatives)]
            expected -= ((odds[0] / (1 + odds[0])).log() + sum((1 / (1 + each)).log() for each in odds[1:])) / 3
    value = crd(student, teacher, SAMPLE)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, student)[0] for each in (value, expected)))


def test_crd_queue_holds_the_latest_embeddings_and_their_classes() -> None:
    crd = contrast(memory="queue", negatives=4)
    for sample in (torch.tensor([0, 1, 2]), torch.tensor([4, 5, 7])):
        student, teacher = features()
        crd(student, teacher, sample)
    newest = torch.stack(embeddings(crd, student, teacher))
    places = torch.tensor([3, 0, 1])  # the fourth row, and round again
    torch.testing.assert_close(crd.memory.rows[:, places], newest)
    assert crd.memory.row_labels.tolist() == [LABELS[5], LABELS[7], LABELS[2], LABELS[4]]


def test_crd_queue_takes_the_end_of_a_batch_that_is_longer() -> None:
    crd = contrast(memory="queue", negatives=2)
    student, teacher = features()
    crd(student, teacher, SAMPLE)
    torch.testing.assert_close(crd.memory.rows, torch.stack(embeddings(crd, student[1:], teacher[1:])))


def test_crd_queue_leaves_out_rows_of_the_same_class() -> None:
    crd = contrast(memory="queue")
    crd(*features(), SAMPLE)
    crd.memory.row_labels.copy_(torch.tensor([0, 1, 0, 2, 0]))
    batch, sample, values = features(2), torch.tensor([0, 3]), []
    for row in (torch.ones(4), -torch.ones(4)):
        crd.memory.rows[:, [0, 2, 4]] = row
        with torch.no_grad():
            values.append(crd(*batch, sample))
    assert torch.equal(*values)


def test_crd_queue_without_a_row_of_another_class_is_finite() -> None:
    crd = contrast(memory="queue")
    crd(*features(), SAMPLE)
    crd.memory.row_labels.fill_(0)
    student, teacher = features(1)
    value = crd(student.requires_grad_(), teacher, torch.tensor([0]))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
