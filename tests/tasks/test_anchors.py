"""Anchors, encoded boxes and matching, against torchvision's."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, box_iou

from distill.tasks._anchors import AnchorSettings, decode, encode
from distill.tasks._matching import BACKGROUND, IGNORED, matched
from tests.tasks.test_detection import detection


def images(size: int) -> ImageList:
    return ImageList(torch.zeros(1, 3, size, size), [(size, size)])


@pytest.mark.parametrize(
    ("size", "strides", "centres", "reference"),
    [
        (300, [8, 16, 32, 64, 100, 300], "strides", {"steps": [8, 16, 32, 64, 100, 300]}),
        (320, [16, 32, 64, 128, 256, 512], "cells", {}),
    ],
)
def test_anchors_are_those_of_torchvision(size: int, strides: list[int], centres: Any, reference: Any) -> None:
    own = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    scales = [[a, math.sqrt(a * b)] for a, b in pairwise(own)]
    made = AnchorSettings(strides, scales, [[2, 1 / 2, 3, 1 / 3]], False, centres)
    maps = [torch.zeros(1, 1, *cells) for cells in made.grid((size, size))]
    generator = DefaultBoxGenerator([[2, 3]] * 6, scales=own, clip=False, **reference)
    theirs = generator(images(size), maps)[0]
    torch.testing.assert_close(box_convert(made.boxes((size, size)), "cxcywh", "xyxy"), theirs, rtol=1e-5, atol=1e-3)


def test_the_default_scales_are_equation_4() -> None:
    made = AnchorSettings([8, 16, 32], [], [], False, "cells")
    theirs = DefaultBoxGenerator([[2]] * 3, min_ratio=0.2, max_ratio=0.9, clip=False)
    theirs.scales[-1] = 1.25  # torchvision has 1 behind the last map, the paper's equation 0.9 + 0.35
    theirs._wh_pairs = theirs._generate_wh_pairs(3)
    maps = [torch.zeros(1, 1, *cells) for cells in made.grid((96, 96))]
    torch.testing.assert_close(box_convert(made.boxes((96, 96)), "cxcywh", "xyxy"), theirs(images(96), maps)[0])


def test_anchors_of_retinanet_up_to_the_rounding_of_its_own() -> None:
    sizes = [[edge, int(edge * 2 ** (1 / 3)), int(edge * 2 ** (2 / 3))] for edge in (32, 64)]
    made = AnchorSettings([8, 16], [[s / 256 for s in of_map] for of_map in sizes], [[2, 1 / 2]], True, "corners")
    theirs = AnchorGenerator(tuple(map(tuple, sizes)), ((0.5, 1.0, 2.0),) * 2)
    found = theirs(images(256), [torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 16, 16)])[0]
    ours = box_convert(made.boxes((256, 256)), "cxcywh", "xyxy")
    assert made.counts() == [9, 9]
    ours, found = (boxes.view(-1, 9, 4) for boxes in (ours, found))  # their order in a cell is another one
    near = (ours[:, :, None] - found[:, None]).abs().amax(-1).amin(2)
    assert near.max() <= 0.51


def test_an_image_that_is_not_square_has_square_anchors_in_all_of_it() -> None:
    boxes = AnchorSettings([16], [[0.5]], [[]], False, "cells").boxes((64, 120))
    assert len(boxes) == 4 * 8
    assert (boxes[:, 2:] == 32).all()
    assert boxes[0].tolist() == [7.5, 8, 32, 32]
    assert boxes[-1].tolist() == [112.5, 56, 32, 32]


@given(st.lists(st.floats(0, 90), min_size=4, max_size=4), st.lists(st.floats(2, 90), min_size=4, max_size=4))
def test_encoding_is_torchvisions_and_is_undone_by_decoding(place: list[float], sizes: list[float]) -> None:
    box = torch.tensor([[place[0], place[1], place[0] + sizes[0], place[1] + sizes[1]]])
    anchor = torch.tensor([[place[2], place[3], sizes[2], sizes[3]]])
    offsets = encode(box, anchor)
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(box, box_convert(anchor, "cxcywh", "xyxy"))
    torch.testing.assert_close(offsets, theirs, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(decode(offsets, anchor), box, rtol=1e-3, atol=2e-2)


def test_wild_offsets_decode_to_finite_boxes() -> None:
    boxes = decode(torch.full((1, 4), 1e4), torch.tensor([[5.0, 5.0, 4.0, 4.0]]))
    assert boxes.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_matching_is_torchvisions(seed: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corner, size = 70 * torch.rand(count, 2, generator=random), 5 + 20 * torch.rand(count, 2, generator=random)
    boxes, anchors = torch.cat([corner, corner + size], dim=1), detection().anchors
    overlap = box_iou(boxes, box_convert(anchors, "cxcywh", "xyxy"))
    theirs = SSDMatcher(0.5)(overlap)
    assert torch.equal(matched(boxes, torch.zeros(count, dtype=torch.int64), anchors, 0.5), theirs)


def test_anchors_over_a_crowd_are_ignored_unless_an_object_is_there() -> None:
    anchors = torch.tensor([[10.0, 10, 10, 10], [40, 40, 10, 10], [70, 70, 10, 10]])
    boxes = torch.tensor([[5.0, 5, 15, 15], [35, 35, 45, 45]])
    assert matched(boxes, torch.tensor([1, 0]), anchors, 0.5).tolist() == [IGNORED, 1, BACKGROUND]
    assert matched(boxes, torch.tensor([1, 1]), anchors, 0.5).tolist() == [IGNORED, IGNORED, BACKGROUND]
