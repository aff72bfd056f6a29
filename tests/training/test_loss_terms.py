import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError
from distill.losses import loss as losses
from distill.models.taps import Taps
from distill.recipe.schema import Loss
from distill.registry import schema
from distill.training.loss_terms import Term, bind

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


def mse(student, teacher):
    return (student - teacher).square().mean()


def misnamed(pupil, teacher):
    return (pupil - teacher).square().mean()


def test_a_loss_needs_no_annotations() -> None:
    spec = Loss(name="tests.training.test_loss_terms:mse", student=["a"], teacher=["a"])
    features = {"a": torch.randn(4, 3)}
    assert Term("mine", spec, features, features, {})(features, features, BATCH) == 0


def test_a_loss_whose_features_have_another_name_is_told_the_right_one() -> None:
    spec = Loss(name="tests.training.test_loss_terms:misnamed", student=["a"], teacher=["a"])
    features = {"a": torch.randn(4, 3)}
    with pytest.raises(RecipeError, match=r"\(pupil, teacher\): the student's features are called 'student'"):
        bind({"mine": spec}, features, features, BATCH, {})


class Scaled(nn.Module):
    """A map whose channels come last, made by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(1, 3), nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.linear(images.permute(0, 2, 3, 1))).mean((1, 2))


def test_features_with_channels_last_are_compared_channels_first() -> None:
    images, teacher = torch.randn(4, 1, 2, 2), {"t": torch.randn(4, 5, 2, 2)}
    model = Scaled().eval()
    _, features = Taps(model, ["linear"])(images)
    spec = schema(losses.find("at"), Loss)(name="at", student=["linear"], teacher=["t"])
    batch = BATCH._replace(inputs=images)
    (value,) = (
        term(features, teacher, batch)
        for term in bind({"at": spec}, features, teacher, batch, {"student_model": model}).values()
    )
    first = {"linear": features["linear"].permute(0, 3, 1, 2)}
    torch.testing.assert_close(value, Term("at", spec, first, teacher, {})(first, teacher, batch))
    written = {"student": "channels_first"}
    wrong = schema(losses.find("at"), Loss)(name="at", student=["linear"], teacher=["t"], layout=written)
    assert not torch.allclose(value, Term("at", wrong, features, teacher, {})(features, teacher, batch))


def test_what_a_loss_learns_before_its_stage_is_laid_out_as_in_the_stage() -> None:
    teacher = Taps(Scaled().eval(), ["linear"])
    images, student = torch.randn(4, 1, 2, 2), {"s": torch.randn(4, 2, 2, 2)}
    with torch.no_grad():
        _, features = teacher(images)
    spec = schema(losses.find("ft"), Loss)(name="ft", student=["s"], teacher=["linear"], paraphraser_epochs=1)
    batch = BATCH._replace(inputs=images)
    (term,) = bind({"ft": spec}, student, features, batch, {"teacher_model": teacher.model}).values()
    term.prepare(lambda path: [features[path]] * 2)
    assert term.prepared
    assert term(student, features, batch).isfinite()


def test_tokens_are_refused_for_maps_and_arranged_when_asked() -> None:
    tokens = torch.randn(4, 17, 6)
    student, teacher = {"s": torch.randn(4, 2, 4, 4)}, {"t": tokens}
    for name in ("at", "fitnet"):
        spec = schema(losses.find(name), Loss)(name=name, student=["s"], teacher=["t"])
        with pytest.raises(RecipeError, match=r"\(4, 17, 6\): tap a map, or arrange .*layout: \{.*: tokens\}"):
            bind({name: spec}, student, teacher, BATCH, {"teacher_model": nn.Identity()})
    spec = schema(losses.find("at"), Loss)(name="at", student=["s"], teacher=["t"], layout={"teacher": "tokens"})
    arranged = {"t": tokens[:, 1:].transpose(1, 2).reshape(4, 6, 4, 4)}
    torch.testing.assert_close(
        Term("at", spec, student, teacher, {})(student, teacher, BATCH),
        Term("at", spec, student, arranged, {})(student, arranged, BATCH),
    )


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(RecipeError, match="layout is {student: last}, but gives student or teacher one of"):
        Loss(name="at", layout={"student": "last"})
