"""Blocks learn alone: what each reads, what each is told, and what none of them touches."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.errors import RecipeError
from distill.models.taps import Features, Taps
from distill.recipe.schema import Cuts
from distill.recipe.typed import section
from distill.training.blocks import Blocks, relative_error
from tests.nets import ConvNet

STAGES = ["stage1", "stage2"]

INPUTS = ["teacher", "student", "mixed"]


def batch(size: int = 6) -> Batch:
    images = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(size) % 10, torch.arange(size))


def seen(network: nn.Module, paths: list[str]) -> Features:
    with torch.no_grad():
        return Taps(network.eval(), paths)(batch().inputs)[1]


class Course:
    """A student, its teacher's maps and the blocks between them."""

    def __init__(
        self, student: nn.Module | None = None, teacher: nn.Module | None = None, *, head: bool = True, **spec: Any
    ) -> None:
        torch.manual_seed(0)
        spec = {"student": STAGES, "teacher": STAGES, **spec}
        self.student, self.teacher = student or ConvNet(), teacher or ConvNet(width=8)
        self.told = seen(self.teacher, [*spec["teacher"], ""])
        self.blocks = Blocks(Cuts(**spec), seen(self.student, spec["student"]), self.told, head=head)
        self.taps = Taps(self.student.train(), ["stage3", ""])

    def __call__(self, progress: float = 0.0) -> tuple[Tensor | None, Features, dict[str, Tensor]]:
        return self.blocks(self.taps, self.told, batch(), progress)

    def read_by(self, path: str, progress: float = 0.0) -> Tensor:
        """What the student's module at ``path`` is given."""
        given = []
        module = self.student.get_submodule(path)
        with module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0])):
            self(progress)
        return given[0]


def touched(course: Course, values: dict[str, Tensor], key: str) -> set[str]:
    """The parts of student and adapters that one loss reaches."""
    parts = {
        **{f"student.{name}": p for name, p in course.student.named_parameters()},
        **{f"blocks.{name}": p for name, p in course.blocks.named_parameters()},
    }
    gradients = torch.autograd.grad(values[key], list(parts.values()), retain_graph=True, allow_unused=True)
    found = [name for name, gradient in zip(parts, gradients, strict=True) if gradient is not None]
    return {".".join(name.split(".")[: 2 if name.startswith("student") else 3]) for name in found}


@pytest.mark.parametrize("given", INPUTS)
def test_no_gradient_crosses_a_cut(given: str) -> None:
    course = Course(input=given)
    output, _, values = course(0.5)
    assert output is not None
    values["task"] = output.square().sum()
    assert touched(course, values, "block1") == {"student.stage1"}
    assert touched(course, values, "block2") == {"student.stage2"}
    assert touched(course, values, "task") == {"student.stage3", "student.head"}
    assert touched(course, values, "adapter1") == {"blocks.cuts.0"}
    assert touched(course, values, "adapter2") == {"blocks.cuts.1"}


def test_a_block_reads_the_teachers_map_and_puts_out_what_it_does_alone() -> None:
    course = Course()
    _, features, values = course()
    shown = [course.blocks.cuts[number](course.told[path])[0] for number, path in enumerate(STAGES)]
    torch.testing.assert_close(course.read_by("stage2"), shown[0])
    torch.testing.assert_close(features["stage2"], course.student.stage2(shown[0]))
    torch.testing.assert_close(values["block2"], relative_error(features["stage2"], shown[1]))


def test_a_block_reads_what_the_student_put_out() -> None:
    course = Course(input="student")
    expected = course.student.stage2(course.student.stage1(batch().inputs))
    torch.testing.assert_close(course.read_by("stage3"), expected)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.75), (0.5, 0.5), (1.0, 0.25)])
def test_mixed_input_moves_from_one_share_to_the_other(progress: float, share: float) -> None:
    course = Course(input="mixed", start=0.75, end=0.25)
    shown, _ = course.blocks.cuts[0](course.told["stage1"])
    own = course.student.stage1(batch().inputs)
    teachers = 0
    for _ in range(50):
        given = course.read_by("stage2", progress)
        is_teachers = (given - shown).flatten(1).abs().amax(1) < 1e-5
        is_own = (given - own).flatten(1).abs().amax(1) < 1e-5
        assert (is_teachers ^ is_own).all()
        teachers += int(is_teachers.sum())
    assert teachers / 300 == pytest.approx(share, abs=0.12)  # four standard deviations


def test_mixed_input_moves_anew_in_every_turn() -> None:
    course = Course(input="mixed", order="progressive")
    own = course.student.eval().stage1(batch().inputs)
    shown, _ = course.blocks.cuts[0](course.told["stage1"])
    course.student.train()
    torch.testing.assert_close(course.read_by("stage2", 1 / 3 + 1e-6), shown)
    torch.testing.assert_close(course.read_by("stage2", 2 / 3 - 1e-6), own)


@pytest.mark.parametrize("given", INPUTS)
def test_a_copy_of_the_teacher_has_nothing_to_learn(given: str) -> None:
    teacher = ConvNet()
    course = Course(teacher, teacher, input=given)
    course.student.eval()  # batches have other statistics than those that the teacher remembers
    output, _, values = course(0.5)
    assert {key: value.item() for key, value in values.items()} == {"block1": 0, "block2": 0}
    torch.testing.assert_close(output, course.told[""])


def test_an_error_is_the_part_of_the_variance_that_is_not_explained() -> None:
    target = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0)) + 7
    means = target.mean(dim=(0, 2, 3), keepdim=True).expand_as(target)
    halfway = (target + means) / 2
    assert [relative_error(estimate, target).item() for estimate in (target, halfway, means)] == pytest.approx(
        [0, 0.25, 1], abs=1e-4
    )
    torch.testing.assert_close(relative_error(50 * halfway, 50 * target), relative_error(halfway, target))


def test_an_adapter_learns_to_lose_nothing_that_fits_into_the_student() -> None:
    torch.manual_seed(0)
    teacher = torch.einsum("oi,bihw->bohw", torch.rand(6, 2), torch.rand(16, 2, 3, 3))  # two channels, six times mixed
    cut = Blocks(Cuts(["cut"], ["cut"]), {"cut": torch.randn(16, 3, 3, 3)}, {"cut": teacher}).cuts[0]
    optimizer = torch.optim.Adam(cut.parameters(), lr=0.02)
    for _ in range(200):
        _, lost = cut(teacher)
        optimizer.zero_grad()
        lost.backward()
        optimizer.step()
    assert lost < 0.01


def test_what_is_shown_is_as_positive_as_the_student() -> None:
    teacher = torch.randn(16, 6, 3, 3)
    for student, positive in ((torch.rand(16, 3, 3, 3), True), (torch.randn(16, 3, 3, 3), False)):
        shown, _ = Blocks(Cuts(["cut"], ["cut"]), {"cut": student}, {"cut": teacher}).cuts[0](teacher)
        assert bool((shown >= 0).all()) == positive
        assert not shown.requires_grad


@pytest.mark.parametrize(("theirs", "ours"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((6, 6), (6, 6)), ((), ())])
def test_maps_and_vectors_come_in_the_students_size(theirs: tuple[int, ...], ours: tuple[int, ...]) -> None:
    student, teacher = torch.rand(4, 3, *ours), torch.rand(4, 5, *theirs)
    taps = Taps(nn.Sequential(OrderedDict(cut=nn.Identity(), flatten=nn.Flatten())), [])
    blocks = Blocks(Cuts(["cut"], ["cut"]), {"cut": student}, {"cut": teacher})
    output, _, values = blocks(taps, {"cut": teacher}, Batch(student, None, torch.arange(4)), 0.0)
    assert output.shape == student.flatten(1).shape
    assert all(value.isfinite() for value in values.values())


def test_without_a_task_the_last_block_does_not_even_run() -> None:
    course = Course(head=False)
    before = {key: value.clone() for key, value in course.student.state_dict().items()}
    output, _, values = course()
    assert output is None
    assert set(values) == {"block1", "adapter1", "block2", "adapter2"}
    after = course.student.state_dict()
    moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"stage1", "stage2"}  # by their batch statistics


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_in_turn_every_other_block_stays_as_it_is(given: str, turn: int) -> None:
    course = Course(input=given, order="progressive")
    optimizer = torch.optim.SGD(course.student.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {key: value.clone() for key, value in course.student.state_dict().items()}
    for _ in range(2):
        output, _, values = course(turn / 3 + 0.1)
        assert (output is None) == (turn < 2)
        values |= {} if output is None else {"task": output.square().sum()}
        optimizer.zero_grad()
        torch.stack([*values.values()]).sum().backward()
        optimizer.step()
    after = course.student.state_dict()
    moved = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == [{"stage1"}, {"stage2"}, {"stage3", "head"}][turn]
    assert all(module.training for module in course.student.modules())
    assert torch.is_grad_enabled()


def test_frozen_layers_stay_frozen_in_turn() -> None:
    course = Course(order="progressive")
    course.student.stage2[1].eval()
    course(0.4)
    assert [module.training for module in course.student.stage2] == [True, False, True, True]


def test_taps_at_a_cut_show_what_the_student_put_out() -> None:
    course = Course()
    taps = Taps(course.student, STAGES)
    _, features, _ = course.blocks(taps, course.told, batch(), 0.0)
    torch.testing.assert_close(features["stage1"], course.student.stage1(batch().inputs))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"student": ["a"], "teacher": []}, "as many module paths of each"),
        ({"student": [], "teacher": []}, "at least one"),
        ({"student": [""], "teacher": ["a"]}, "nothing is left to cut"),
        ({"student": ["a"], "teacher": ["a"], "weight": 0.0}, "at blocks.weight: weight is 0.0, but must be above 0"),
        (
            {"student": ["a"], "teacher": ["a"], "input": "mixed", "start": 1.5},
            "start is 1.5, but must be at least 0 and at most 1",
        ),
        ({"student": ["a"], "teacher": ["a"], "end": 0.5}, "start and end belong to input: mixed"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        section(settings, Cuts, "blocks")


def test_only_maps_can_be_cut() -> None:
    tokens = torch.rand(2, 5, 8)
    with pytest.raises(RecipeError, match=r"'cut' outputs \(2, 5, 8\), but a cut needs a map"):
        Blocks(Cuts(["cut"], ["cut"]), {"cut": tokens}, {"cut": tokens})
