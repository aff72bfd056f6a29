"""Pixels related to what is remembered of the teacher."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses._class_memory import ClassMemory, rank_within, some_of_each
from distill.losses.cirkd_memory import ClassEmbeddings

CLASSES, IGNORED = 3, 255
MASKS = torch.tensor([[[0, 0, 2], [2, 2, IGNORED]], [[1, 1, 1], [IGNORED, 0, 0]]])


def loss(**settings: float) -> ClassEmbeddings:
    """All that is remembered is compared with."""
    sizes = {"pixel_memory": 5, "region_memory": 2, "pixel_contrasts": 15, "region_contrasts": 6}
    return ClassEmbeddings((2, 5, 2, 3), (2, 4, 2, 3), CLASSES, **{**sizes, **settings})


def maps() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 2, 3), torch.randn(2, 4, 2, 3)


def pixels(features: Tensor) -> list[tuple[int, int, Tensor]]:
    """The image, the class and the unit vector of every pixel that has a class."""
    places = [(n, y, x) for n in range(2) for y in range(2) for x in range(3) if MASKS[n, y, x] != IGNORED]
    return [(n, int(MASKS[n, y, x]), F.normalize(features[n, :, y, x], dim=0)) for n, y, x in places]


def test_the_loss_matches_the_definition() -> None:
    """Yang et al., equations 7 to 11, pixel by pixel and row by row."""
    compute = loss(temperature=0.5, pixel_weight=2, region_weight=3)
    student, teacher = maps()
    memories = [memory.rows.clone().flatten(0, 1) for memory in (compute.pixel_memory, compute.region_memory)]
    expected = torch.tensor(0.0)
    pairs = list(zip(pixels(compute.project(student)), pixels(teacher), strict=True))
    for (*_, s), (*_, t) in pairs:
        for rows, weight in zip(memories, (2, 3), strict=True):
            p, q = (torch.stack([pixel @ row / 0.5 for row in rows]).softmax(0) for pixel in (t, s))
            expected = expected + weight * (p * (p / q).log()).sum() / len(pairs)
    torch.testing.assert_close(compute(student, teacher, MASKS), expected)


def test_pixels_and_regions_of_every_class_are_remembered() -> None:
    compute = loss()
    student, teacher = maps()
    compute(student, teacher, MASKS)
    found = pixels(teacher)
    for number in range(CLASSES):
        own = torch.stack([vector for _, label, vector in found if label == number])
        kept = compute.pixel_memory.rows[number, : len(own)]
        torch.testing.assert_close(kept[kept[:, 0].argsort()], own[own[:, 0].argsort()])
        images = sorted({image for image, label, _ in found if label == number})
        for place, image in enumerate(images):
            members = [vector for n, label, vector in found if (n, label) == (image, number)]
            average = F.normalize(torch.stack(members).mean(0), dim=0)
            torch.testing.assert_close(compute.region_memory.rows[number, place], average)


def test_of_each_class_and_image_so_many_pixels_are_remembered() -> None:
    compute = loss(pixels=2)
    compute(*maps(), MASKS)
    assert compute.pixel_memory.oldest.tolist() == [4, 2, 2]  # class 0 is in both images
    assert compute.region_memory.oldest.tolist() == [0, 1, 1]  # 2 of 2: round again


def test_a_student_with_the_teachers_cosines_loses_nothing() -> None:
    compute = ClassEmbeddings((2, 4, 2, 3), (2, 4, 2, 3), CLASSES, pixel_memory=5, region_memory=2)
    compute.project = torch.nn.Identity()
    teacher = torch.randn(2, 4, 2, 3)
    assert compute(3 * teacher, teacher, MASKS).item() == pytest.approx(0, abs=1e-6)
    assert compute(-teacher, teacher, MASKS) > 0.1


def test_masks_are_reduced_to_the_maps() -> None:
    compute, again = loss(), loss()
    again.load_state_dict(compute.state_dict())
    student, teacher = maps()
    large = MASKS.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(compute(student, teacher, MASKS), again(student, teacher, large))


def test_a_batch_without_labelled_pixels_costs_nothing_and_leaves_no_trace() -> None:
    compute = loss()
    before = compute.pixel_memory.rows.clone()
    student, teacher = maps()
    value = compute(student.requires_grad_(), teacher, torch.full_like(MASKS, IGNORED))
    value.backward()
    assert value == 0
    assert not student.grad.any()
    assert torch.equal(compute.pixel_memory.rows, before)


def test_a_probe_leaves_no_trace() -> None:
    compute = loss().eval()
    before = copy.deepcopy(compute.state_dict())
    with torch.no_grad():
        compute(*maps(), MASKS)
    assert all(torch.equal(value, before[name]) for name, value in compute.state_dict().items())


def test_a_resumed_loss_goes_on_as_it_would_have() -> None:
    compute, resumed = loss(pixel_contrasts=6), loss(pixel_contrasts=6)
    compute(*maps(), MASKS)
    resumed.load_state_dict(compute.state_dict())
    for _ in range(2):
        batch, values = maps(), []
        for each in (compute, resumed):
            torch.manual_seed(1)
            values.append(each(*batch, MASKS))
        assert torch.equal(*values)


@pytest.mark.parametrize(("weight", "memory"), [("pixel_weight", "pixel_memory"), ("region_weight", "region_memory")])
def test_a_part_without_weight_takes_no_memory(weight: str, memory: str) -> None:
    assert not any(name.startswith(memory) for name in loss(**{weight: 0}).state_dict())


def test_no_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="both 0"):
        loss(pixel_weight=0, region_weight=0)


def test_memory_goes_round_and_keeps_the_latest() -> None:
    memory = ClassMemory(2, 3, 4)
    rows = F.normalize(torch.randn(9, 4), dim=1)
    memory.remember(rows[:2], torch.tensor([1, 1]))
    memory.remember(rows[2:4], torch.tensor([1, 1]))
    torch.testing.assert_close(memory.rows[1], rows[[3, 1, 2]])
    memory.remember(rows[4:], torch.ones(5, dtype=torch.int64))  # more than there is room for
    torch.testing.assert_close(memory.rows[1, [(1 + n) % 3 for n in (2, 3, 4)]], rows[[6, 7, 8]])


def test_equally_many_are_drawn_of_each_class() -> None:
    memory = ClassMemory(3, 5, 4)
    memory.rows.copy_(torch.arange(3.0)[:, None, None].expand_as(memory.rows))
    assert memory.draw(7)[:, 0].long().bincount().tolist() == [3, 3, 3]
    assert len(memory.draw(1000)) == 15


def test_members_of_a_group_are_counted_and_chosen() -> None:
    groups = torch.tensor([4, 0, 4, 4, 0, 2])
    assert rank_within(groups).tolist() == [0, 0, 1, 2, 1, 0]
    chosen = [some_of_each(groups, 2) for _ in range(30)]
    assert all(groups[each].bincount().tolist() == [2, 0, 1, 0, 2] for each in chosen)
    assert torch.stack(chosen).any(0).all()
