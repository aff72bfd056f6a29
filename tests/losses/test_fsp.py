"""Flow from one map of a network to the next."""

import pytest
import torch
import torch.nn.functional as F
from torchdistill.losses.mid_level import FSPLoss

from distill.losses.fsp import FlowOfSolution, flow_matrix

SHAPES = [(2, 3, 8, 8), (2, 4, 8, 8), (2, 5, 4, 4)]


def maps() -> list[torch.Tensor]:
    return [torch.randn(shape) for shape in SHAPES]


def test_fsp_matches_the_definition() -> None:
    student, teacher = maps(), maps()

    def matrices(features):
        first, second, third = features
        for earlier, later in ((first, second), (F.avg_pool2d(second, 2), third)):
            size = earlier.shape[-1]
            yield [
                [
                    [sum(a[y, x] * b[y, x] for y in range(size) for x in range(size)) / size**2 for b in of_later]
                    for a in of_earlier
                ]
                for of_earlier, of_later in zip(earlier, later, strict=True)
            ]

    expected = sum(
        (torch.tensor(s) - torch.tensor(t)).square().mean()
        for s, t in zip(matrices(student), matrices(teacher), strict=True)
    )
    torch.testing.assert_close(FlowOfSolution(SHAPES, SHAPES)(student, teacher), expected)


def test_fsp_is_zero_for_a_perfect_student_and_blind_to_where_things_happen() -> None:
    loss = FlowOfSolution(SHAPES[:2], SHAPES[:2])
    teacher = maps()[:2]
    moved = [features.roll((1, 3), dims=(2, 3)) for features in teacher]
    assert loss(teacher, teacher) == 0
    assert loss(moved, teacher).item() == pytest.approx(0, abs=1e-10)
    assert loss([moved[0], teacher[1]], teacher) > 1e-3


def test_fsp_of_torchdistill_has_the_same_matrices_and_another_distance() -> None:
    """Theirs: the sum of the norms of the columns, where two maps have one size; they pool by maximum."""
    student, teacher = maps()[:2], maps()[:2]
    taps = [{str(i): {"output": values} for i, values in enumerate(features)} for features in (student, teacher)]
    pair = {
        f"{network}_{place}": {"io": "output", "path": path}
        for network in ("student", "teacher")
        for place, path in (("first", "0"), ("second", "1"))
    }
    theirs = FSPLoss({"pair": pair})(*taps)
    difference = flow_matrix(*student) - flow_matrix(*teacher)
    torch.testing.assert_close(theirs, difference.norm(dim=1).sum() / 2)
    torch.testing.assert_close(FlowOfSolution(SHAPES[:2], SHAPES[:2])(student, teacher), difference.square().mean())


def test_fsp_adapts_only_the_taps_whose_channels_differ() -> None:
    wider = [(2, 3, 8, 8), (2, 9, 8, 8), (2, 5, 4, 4)]
    loss = FlowOfSolution(SHAPES, wider)
    assert [p.shape for p in loss.parameters()] == [(9, 4, 1, 1), (9,)]
    teacher = [torch.randn(shape) for shape in wider]
    assert loss(maps(), teacher).isfinite()
    assert list(FlowOfSolution(SHAPES, SHAPES).parameters()) == []


def test_fsp_lets_the_two_networks_differ_in_size() -> None:
    """A map that repeats every pixel has the same flow."""
    loss = FlowOfSolution(SHAPES[:2], SHAPES[:2])
    teacher = maps()[:2]
    larger = [F.interpolate(features, scale_factor=2) for features in teacher]
    assert loss(larger, teacher).item() == pytest.approx(0, abs=1e-10)


def test_fsp_does_not_overflow_in_half_precision() -> None:
    features = torch.full((1, 2, 32, 32), 100.0, dtype=torch.float16)
    with torch.autocast("cpu", torch.float16):
        assert (flow_matrix(features, features) == 1e4).all()


def test_fsp_refuses_a_single_tap() -> None:
    with pytest.raises(ValueError, match="between two taps of a network, but there is one; name more"):
        FlowOfSolution(SHAPES[:1], SHAPES[:1])


def test_fsp_refuses_a_tap_that_is_left_over() -> None:
    with pytest.raises(ValueError, match="fsp compares taps in pairs, but there are 3 of the student and 2"):
        FlowOfSolution(SHAPES, SHAPES[:2])
