"""Losses between detectors, each computed a second time in plain loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.crosskd import CrossHead
from distill.losses.detection_kd import detection_kd
from distill.losses.fgd import FocalAndGlobal, masks
from distill.losses.ld import localization
from students import ssd_miniature


def parts(batch: int = 2, anchors: int = 5, classes: int = 3) -> list[Tensor]:
    return [torch.randn(batch, classes, anchors), torch.randn(batch, 4, anchors)]


def detection_kd_in_loops(student: list[Tensor], teacher: list[Tensor], temperature: float, background: float) -> float:
    total = weights = 0.0
    for image in range(len(student[0])):
        for anchor in range(student[0].shape[2]):
            p = (teacher[0][image, :, anchor] / temperature).softmax(0)
            q = (student[0][image, :, anchor] / temperature).softmax(0)
            weight = float(teacher[0][image, :, anchor].softmax(0)[1:].sum())
            divergence = sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True))
            differences = (student[1][image, :, anchor] - teacher[1][image, :, anchor]).abs().tolist()
            distance = sum(d * d / 2 if d < 1 else d - 0.5 for d in differences)
            total += (weight + background) * temperature**2 * divergence + weight * distance
            weights += weight
    return total / max(weights, 1)


@pytest.mark.parametrize(("temperature", "background"), [(1.0, 0.0), (2.0, 0.1)])
def test_detection_kd_in_loops(temperature: float, background: float) -> None:
    student, teacher = parts(), parts()
    found = detection_kd(student, teacher, temperature=temperature, background=background)
    assert float(found) == pytest.approx(detection_kd_in_loops(student, teacher, temperature, background), rel=1e-5)
    assert float(detection_kd(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_detection_kd_and_ld_say_what_they_read() -> None:
    with pytest.raises(ValueError, match="':classes', ':boxes'"):
        detection_kd([torch.zeros(2, 5, 9)], [torch.zeros(2, 5, 9)])
    with pytest.raises(ValueError, match="':bins', ':classes'"):
        localization(parts(), parts())


def test_ld_in_loops() -> None:
    student, teacher = ([torch.randn(2, 6, 4, 5), torch.randn(2, 3, 5)] for _ in range(2))
    total = weights = 0.0
    for image in range(2):
        for anchor in range(5):
            weight = 1 - float(teacher[1][image, :, anchor].softmax(0)[0])
            for side in range(4):
                p, q = ((bins[0][image, :, side, anchor] / 10).softmax(0) for bins in (teacher, student))
                total += weight * 100 * sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True))
            weights += weight
    assert float(localization(student, teacher)) == pytest.approx(total / max(weights, 1), rel=1e-4)


BOXES = [[[0.0, 0, 16, 8], [4, 4, 11, 12]], [[17.0, 3, 31, 9]]]


def masks_in_loops(boxes: list[list[list[float]]], height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """For every pixel the boxes that it shares some area with, and the smallest of them, counted in pixels."""
    objects = torch.zeros(len(boxes), 1, height, width)
    for image, corners in enumerate(boxes):
        covered = [
            {
                (y, x)
                for y in range(height)
                for x in range(width)
                if stride * y < bottom and stride * (y + 1) > top and stride * x < right and stride * (x + 1) > left
            }
            for left, top, right, bottom in corners
        ]
        for y in range(height):
            for x in range(width):
                objects[image, 0, y, x] = max((1 / len(cells) for cells in covered if (y, x) in cells), default=0)
    background = torch.stack([(one == 0) / (one == 0).sum() for one in objects])
    return objects, background


def test_masks_of_fgd_in_loops() -> None:
    found = masks(labels(), torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 16, 32))
    for ours, theirs in zip(found, masks_in_loops(BOXES, 4, 8, stride=4), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_crowds_are_neither_objects_nor_background_of_fgd() -> None:
    features, images = torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 16, 32)
    crowds = [{**label, "iscrowd": torch.tensor([1, *label["iscrowd"][1:]])} for label in labels()]
    objects, background = masks(crowds, features, images)
    expected, _ = masks_in_loops([BOXES[0][1:], []], 4, 8, stride=4)
    torch.testing.assert_close(objects, expected)
    _, with_crowds = masks_in_loops(BOXES, 4, 8, stride=4)
    torch.testing.assert_close(background, with_crowds)


def fgd_in_loops(student: Tensor, teacher: Tensor, alpha: float, beta: float, gamma: float) -> float:
    """Equations 2 to 10 of the focal part, pixel by pixel and channel by channel."""
    _, channels, height, width = student.shape
    objects, background = masks_in_loops(BOXES, height, width, stride=4)

    def attention(features: Tensor) -> tuple[Tensor, Tensor]:
        pixels = torch.tensor([[features[:, y, x].abs().mean() for x in range(width)] for y in range(height)])
        where = torch.exp(pixels / 0.5) / torch.exp(pixels / 0.5).sum() * height * width
        means = torch.stack([features[c].abs().mean() for c in range(channels)])
        return where, torch.exp(means / 0.5) / torch.exp(means / 0.5).sum() * channels

    total = 0.0
    for image, (own, given) in enumerate(zip(student, teacher, strict=True)):
        (where, which), mine = attention(given), attention(own)
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    weight = alpha * objects[image, 0, y, x] + beta * background[image, 0, y, x]
                    total += float(weight * where[y, x] * which[c] * (own[c, y, x] - given[c, y, x]) ** 2)
        total += gamma * float((mine[0] - where).abs().sum() + (mine[1] - which).abs().sum())
    return total / len(student)


def labels() -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor(corners), "iscrowd": torch.zeros(len(corners))} for corners in BOXES]


def test_the_focal_part_of_fgd_in_loops() -> None:
    student, teacher, images = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8), torch.zeros(2, 3, 16, 32)
    focal = FocalAndGlobal((2, 3, 4, 8), (2, 3, 4, 8), alpha=0.5, beta=0.25, gamma=0.1, relation=0.0)
    expected = fgd_in_loops(student, teacher, 0.5, 0.25, 0.1)
    assert float(focal(student, teacher, labels(), images)) == pytest.approx(expected, rel=1e-4)


def test_the_global_part_of_fgd_begins_with_the_difference_of_maps() -> None:
    """Its last layer starts at zero: what it adds to each pixel is nothing."""
    student, teacher, images = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8), torch.zeros(2, 3, 16, 32)
    only = FocalAndGlobal((2, 3, 4, 8), (2, 3, 4, 8), alpha=0, beta=0, gamma=0, relation=1.0)
    expected = float((student - teacher).square().sum()) / 2
    assert float(only(student, teacher, labels(), images)) == pytest.approx(expected, rel=1e-5)


def test_fgd_reads_maps_of_other_sizes_and_images_without_objects() -> None:
    loss = FocalAndGlobal((2, 5, 8, 8), (2, 3, 4, 4))
    empty = [{"boxes": torch.zeros(0, 4), "iscrowd": torch.zeros(0)}] * 2
    value = loss(torch.randn(2, 5, 8, 8), torch.randn(2, 3, 4, 4), empty, torch.zeros(2, 3, 16, 16))
    assert value.isfinite()


def maps(widths: tuple[int, ...] = (32, 64, 64)) -> list[Tensor]:
    return [torch.randn(2, width, size, size) for width, size in zip(widths, (12, 6, 3), strict=True)]


PATHS = ["maps.0", "maps.1", "maps.2"]


def shapes(features: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in features]


def test_crosskd_compares_what_the_teachers_head_says_of_both() -> None:
    teacher = ssd_miniature(num_classes=3, width=8).eval()
    own, given = maps((16, 32, 32)), maps()
    loss = CrossHead(shapes(own), shapes(given), teacher, PATHS)
    with torch.no_grad():
        adapted = [F.conv2d(x, a.weight, a.bias) for x, a in zip(own, loss.adapters, strict=True)]
        outputs = [torch.cat(rows(teacher, features), dim=1) for features in (adapted, given)]
    split = [[output[..., :4].transpose(1, 2), output[..., 4:].transpose(1, 2)] for output in outputs]
    assert float(loss(own, given)) == pytest.approx(detection_kd_in_loops(*split, 1.0, 0.0), rel=1e-4)


def rows(detector: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """The head's convolutions by hand: each anchor of each cell is a row of 8 values."""
    found = []
    for layer, one in zip(detector.head.layers, features, strict=True):
        output = F.conv2d(one, layer.weight, layer.bias, padding=1)
        cells = [
            output[:, 8 * a : 8 * a + 8, y, x]
            for y in range(output.shape[2])
            for x in range(output.shape[3])
            for a in range(4)
        ]
        found.append(torch.stack(cells, dim=1))
    return found


def test_crosskd_trains_the_students_maps_and_never_the_teachers_head() -> None:
    teacher = ssd_miniature(num_classes=3, width=8)
    own = [one.requires_grad_() for one in maps((16, 32, 32))]
    loss = CrossHead(shapes(own), shapes(maps()), teacher, PATHS).train()
    loss(own, maps()).backward()
    assert all(one.grad is not None and one.grad.any() for one in own)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert [name for name, _ in loss.named_parameters()] == [
        f"adapters.{i}.{n}" for i in range(3) for n in ("weight", "bias")
    ]
    assert not loss.reader[0].training


@pytest.mark.parametrize(
    ("teacher", "sizes", "message"),
    [
        (lambda: nn.Linear(2, 2), (12, 6, 3), r"Linear has no reader\(\)"),
        (lambda: ssd_miniature(num_classes=3, width=8), (10, 6, 3), "maps of one size"),
        (lambda: ssd_miniature(num_classes=3, width=8, bins=4), (12, 6, 3), "task.bins=0"),
    ],
)
def test_crosskd_refuses_other_heads_and_maps(teacher: Any, sizes: tuple[int, ...], message: str) -> None:
    own = [(2, 8, size, size) for size in sizes]
    with pytest.raises(ValueError, match=message):
        CrossHead(own, shapes(maps()), teacher(), PATHS)


@pytest.mark.parametrize(
    ("paths", "count"), [(["maps.0", "maps.2", "maps.1"], 3), (PATHS[:1], 1), ([""], 1), (PATHS, 2)]
)
def test_crosskd_reads_all_maps_in_their_order(paths: list[str], count: int) -> None:
    teacher = ssd_miniature(num_classes=3, width=8)
    with pytest.raises(ValueError, match=r"early to late \(maps.0, maps.1, maps.2\).*taps: stages"):
        CrossHead(shapes(maps())[:count], shapes(maps())[: len(paths)], teacher, paths)
