"""What every loss must do, whoever wrote it."""

import inspect

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import loss as losses
from distill.registry import schema
from distill.schema import Loss
from distill.terms import Term
from tests.nets import ConvNet

BATCH, CLASSES = 4, 10
LABELS = torch.tensor([0, 1, 2, 2])
COMPARE_LOGITS = {"kd", "dkd"}


def features(name: str, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(BATCH, CLASSES)] if name in COMPARE_LOGITS else [(BATCH, 8, 6, 6), (BATCH, 8, 3, 3)]
    return {f"tap{i}": torch.randn(s, generator=generator).requires_grad_(seed == 0) for i, s in enumerate(shapes)}


def term(name: str) -> tuple[Term, dict[str, Tensor], dict[str, Tensor], Batch]:
    torch.manual_seed(0)
    student, teacher = features(name, seed=0), features(name, seed=1)
    spec = schema(losses.find(name), Loss)(name=name, student=list(student), teacher=list(teacher))
    batch = Batch(torch.zeros(BATCH, 3, 6, 6), LABELS, torch.arange(BATCH))
    offered = {"teacher_model": ConvNet(width=2), "train_labels": LABELS}
    return Term(name, spec, student, teacher, offered), student, teacher, batch


@pytest.mark.parametrize("name", losses.names())
class TestEveryLoss:
    def test_is_a_finite_scalar_that_reaches_the_student(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        value = compute(student, teacher, batch)
        assert value.shape == ()
        assert value.isfinite()
        value.backward()
        assert all(f.grad is not None and f.grad.isfinite().all() and f.grad.any() for f in student.values())

    def test_leaves_its_inputs_alone(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        before = [f.clone() for f in (*student.values(), *teacher.values())]
        compute(student, teacher, batch)
        assert all(map(torch.equal, before, (*student.values(), *teacher.values())))

    def test_survives_large_activations(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        scaled = [{k: 1e3 * v for k, v in f.items()} for f in (student, teacher)]
        assert compute(*scaled, batch).isfinite()

    def test_is_finite_under_autocast(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        halved = [{k: v.bfloat16() for k, v in f.items()} for f in (student, teacher)]
        with torch.autocast("cpu", torch.bfloat16):
            assert compute(*halved, batch).isfinite()

    def test_survives_identical_images(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        same = [{k: v[:1].expand_as(v) for k, v in f.items()} for f in (student, teacher)]
        assert compute(*same, batch).isfinite()

    def test_scales_with_its_weight(self, name: str) -> None:
        compute, student, teacher, batch = term(name)
        once = compute(student, teacher, batch)
        compute.spec.weight *= 3
        torch.testing.assert_close(compute(student, teacher, batch), 3 * once)

    def test_says_where_it_comes_from(self, name: str) -> None:
        source = inspect.getdoc(inspect.getmodule(losses.find(name)))
        assert "arXiv:" in (source or ""), "start the file with the paper: authors, title, arXiv id, equation"
