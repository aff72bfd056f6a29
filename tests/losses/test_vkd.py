"""A projection that stays orthogonal."""

import pytest
import torch

from distill.losses.vkd import OrthogonalProjection


@pytest.mark.parametrize(("student", "teacher"), [(4, 7), (7, 4), (5, 5)])
def test_vkd_projects_orthogonally_before_and_after_training(student: int, teacher: int) -> None:
    loss = OrthogonalProjection((8, student), (8, teacher))
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    before = loss.projection.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        loss(torch.randn(8, student), torch.randn(8, teacher)).backward()
        optimizer.step()
    weight = loss.projection.weight.detach()
    assert (weight - before).abs().max() > 0.01
    gram = weight.T @ weight if teacher >= student else weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(min(student, teacher)), rtol=0, atol=1e-5)
    assert [name for name, _ in loss.named_parameters()] == ["projection.parametrizations.weight.original"]


def test_vkd_matches_the_definition() -> None:
    loss = OrthogonalProjection((3, 4), (3, 6))
    student, teacher = torch.randn(3, 4), 5 * torch.randn(3, 6) + 2
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        target = (t - t.mean()) / (t.var(correction=0) + 1e-5).sqrt()
        for difference in (loss.projection.weight @ s - target).tolist():
            expected += (difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5) / 18
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_vkd_does_not_depend_on_the_teachers_scale() -> None:
    loss = OrthogonalProjection((4, 5), (4, 6))
    student, teacher = torch.randn(4, 5), 10 * torch.randn(4, 6)
    torch.testing.assert_close(loss(student, 7 * teacher + 3), loss(student, teacher), rtol=1e-4, atol=1e-5)


def test_vkd_averages_maps_and_tokens() -> None:
    tokens, maps = torch.randn(4, 9, 6), torch.randn(4, 5, 3, 3)
    loss = OrthogonalProjection(maps.shape, tokens.shape)
    torch.testing.assert_close(loss(maps, tokens), loss(maps.mean((2, 3)), tokens.mean(1)))
