import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.recipe.schema import Loss
from distill.registry import schema
from distill.training.loss_terms import Term

BATCH = Batch(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), torch.arange(4))


def term(name: str, student: dict[str, Tensor], teacher: dict[str, Tensor], **settings) -> Term:
    spec = schema(losses.find(name), Loss)(name=name, student=list(student), teacher=list(teacher), **settings)
    return Term(name, spec, student, teacher, {})


def test_several_pairs_are_summed() -> None:
    student = {"a": torch.randn(4, 2, 4, 4), "b": torch.randn(4, 2, 2, 2)}
    teacher = {"a": torch.randn(4, 3, 4, 4), "b": torch.randn(4, 3, 2, 2)}
    single = [term("at", {k: student[k]}, {k: teacher[k]})({k: student[k]}, {k: teacher[k]}, BATCH) for k in "ab"]
    torch.testing.assert_close(term("at", student, teacher)(student, teacher, BATCH), sum(single))


def test_an_unequal_number_of_taps_is_refused() -> None:
    with pytest.raises(RecipeError, match="gives 2 of the student and 1 of the teacher"):
        term("at", {"a": torch.randn(4, 2, 4, 4), "b": torch.randn(4, 2, 2, 2)}, {"a": torch.randn(4, 2, 4, 4)})


def test_a_failure_names_loss_taps_and_shapes() -> None:
    student, teacher = {"": torch.randn(4, 10)}, {"": torch.randn(4, 10)}
    with pytest.raises(Exception, match=".") as captured:
        term("kd", student, teacher)(student, {"": torch.randn(4, 7)}, BATCH)
    assert "loss 'kd' of [''] (4, 10) against [''] (4, 7)" in "".join(captured.value.__notes__)


def test_the_weight_warms_up() -> None:
    student, teacher = {"": torch.randn(4, 10)}, {"": torch.randn(4, 10)}
    warm = term("kd", student, teacher, weight=2.0, warmup_epochs=4)
    full = warm(student, teacher, BATCH)
    for epoch, share in ((1, 0.25), (2, 0.5), (4, 1.0), (9, 1.0)):
        torch.testing.assert_close(warm(student, teacher, BATCH, epoch), share * full)
