"""Main directions of channel space, and their gradient."""

import pytest
import torch
from torch import Tensor

from distill.losses.kdsvd import SingularVectors, decompose


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def maps() -> list[Tensor]:
    """One with more pixels than channels, one with fewer: the sign of a singular vector may depend on that."""
    return [torch.rand(3, 6, 4, 4), torch.rand(3, 5, 2, 2)]


def singular_vectors(student: list[Tensor], teacher: list[Tensor], *, components: int = 1) -> Tensor:
    shapes = ([tuple(feature.shape) for feature in features] for features in (student, teacher))
    return SingularVectors(*shapes, components=components)(student, teacher)


def test_kdsvd_matches_the_definition() -> None:
    student, teacher = maps(), maps()
    expected = 0.0
    for i in range(3):
        directions = []
        for ours, theirs in zip(student, teacher):
            # Eigenvectors of X^T X, the largest last, are the right singular vectors of X.
            _, injectable = torch.linalg.eigh(torch.einsum("chw,dhw->cd", ours[i], ours[i]))
            _, wanted = torch.linalg.eigh(torch.einsum("chw,dhw->cd", theirs[i], theirs[i]))
            target = wanted[:, -1] * wanted[:, -1].sum().sign()
            best = max((injectable[:, -k] for k in range(1, 5)), key=lambda vector: (vector @ target).abs())
            directions.append((best * (best @ target).sign(), target))
        (ours, theirs), (ours_next, theirs_next) = directions
        for a in range(5):
            for b in range(6):
                change = (-((ours_next[a] - ours[b]) ** 2) / 8).exp() - (-((theirs_next[a] - theirs[b]) ** 2) / 8).exp()
                expected += change**2 / 3
    torch.testing.assert_close(singular_vectors(student, teacher), expected, rtol=1e-4, atol=1e-7)


def test_kdsvd_is_zero_for_a_perfect_student_of_any_scale() -> None:
    teacher = maps()
    student = [7 * feature for feature in teacher]
    assert singular_vectors(student, teacher, components=2).item() == pytest.approx(0, abs=1e-8)


def test_kdsvd_finds_the_teachers_main_direction_among_the_students_lesser_ones() -> None:
    def channels(*scales: float) -> Tensor:
        return torch.diag(torch.tensor(scales)).reshape(1, 4, 2, 2)

    teacher, student = [channels(4, 2, 1, 0.5)] * 2, [channels(2, 4, 1, 0.5)] * 2
    assert singular_vectors(student, teacher).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("size", [(6, 5, 5), (6, 2, 2)], ids=["more pixels than channels", "fewer"])
def test_kdsvd_sends_the_gradient_of_the_decomposition(size) -> None:
    """Where no singular values are near each other, damping changes nothing: it is that of torch's own."""
    basis, _ = torch.linalg.qr(torch.randn(6, 6))
    maps = torch.linalg.qr(torch.randn(size[1] * size[2], min(6, size[1] * size[2])))[0]
    scales = torch.tensor([8.0, 5.0, 3.0, 2.0, 1.0, 0.5])[: maps.shape[1]]
    features = ((maps * scales) @ basis[: maps.shape[1]]).T.reshape(1, *size).requires_grad_()
    aim = torch.randn(6, 2)

    vectors = torch.linalg.svd(features.flatten(2).mT, full_matrices=False)[2].mT[:, :, :2]
    (exact,) = torch.autograd.grad((vectors.sum(1, keepdim=True).sign().detach() * vectors * aim).sum(), features)
    ours = decompose(features, 2)[0]
    (gradient,) = torch.autograd.grad((ours.sum(1, keepdim=True).sign().detach() * ours * aim).sum(), features)
    torch.testing.assert_close(gradient, exact, rtol=1e-2, atol=1e-3 * exact.abs().max().item())


@pytest.mark.parametrize("silent", [slice(1, None), slice(None)], ids=["all channels but one", "all channels"])
def test_kdsvd_is_finite_where_channels_are_silent(silent) -> None:
    """Their singular values are all zero: torch's own gradient is not finite there."""
    student = maps()
    student[0][:, silent] = 0
    for feature in student:
        feature.requires_grad_()
    value = singular_vectors(student, maps())
    value.backward()
    assert value.isfinite()
    assert all(feature.grad.isfinite().all() for feature in student)
    assert max(feature.grad.abs().max() for feature in student) < 100


def test_kdsvd_learns() -> None:
    student, teacher = [feature.requires_grad_() for feature in maps()], maps()
    before = singular_vectors(student, teacher)
    for _ in range(10):
        gradients = torch.autograd.grad(singular_vectors(student, teacher), student)
        student = [(f - 0.5 * g / g.norm()).detach().requires_grad_() for f, g in zip(student, gradients)]
    assert singular_vectors(student, teacher) < 0.3 * before


@pytest.mark.parametrize(
    ("student", "teacher", "components", "message"),
    [
        (1, [6], 1, "there is one; name more"),
        (2, [6], 1, "2 of the student and 1 of the teacher"),
        (2, [6, 5], 6, "components is 6, but a map of .* has only 5"),
    ],
)
def test_kdsvd_says_what_it_cannot_compare(student: int, teacher: list[int], components: int, message: str) -> None:
    theirs = [torch.rand(3, channels, 3, 3) for channels in teacher]
    with pytest.raises(ValueError, match=message):
        singular_vectors(maps()[:student], theirs, components=components)


def test_kdsvd_gives_the_students_map_the_teachers_channels() -> None:
    teacher = [torch.rand(3, 4, 4, 4), torch.rand(3, 5, 2, 2)]
    compute = SingularVectors([(3, 6, 4, 4), (3, 5, 2, 2)], [(3, 4, 4, 4), (3, 5, 2, 2)])
    assert [sum(p.numel() for p in part.parameters()) for part in compute.adapters] == [6 * 4 + 4, 0]
    compute(maps(), teacher).backward()
    assert compute.adapters[0].weight.grad.any()
