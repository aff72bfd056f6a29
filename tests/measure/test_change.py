"""Outputs against what they were."""

import math

import pytest
import torch

from distill.measure.change import kept_detections, relative_change, same_class


def test_relative_change_is_a_ratio_of_lengths() -> None:
    before = torch.tensor([[3.0, 4.0]])
    assert relative_change(before, before) == 0
    assert relative_change(before, 2 * before) == pytest.approx(1)
    assert relative_change(before, torch.tensor([[3.0, 3.0]])) == pytest.approx(1 / 5)
    assert relative_change(before, before * math.nan) == math.inf


def test_same_class_looks_at_the_largest_output() -> None:
    assert same_class(
        torch.tensor([[1.0, 2], [3, 0], [0, 1]]), torch.tensor([[0.0, 9], [1, 2], [4, 5]])
    ) == pytest.approx(2 / 3)


def test_detections_are_kept_where_one_of_their_class_lies_over_them() -> None:
    before = [torch.tensor([[0, 1, 0.9, 0.0, 0.0, 0.5, 0.5], [0, 2, 0.8, 0.5, 0.5, 1.0, 1.0]]), torch.zeros(0, 7)]
    moved = [torch.tensor([[0, 1, 0.4, 0.0, 0.0, 0.5, 0.6], [0, 1, 0.8, 0.5, 0.5, 1.0, 1.0]]), torch.zeros(0, 7)]
    assert kept_detections(before, before) == 1
    assert kept_detections(before, moved) == 0.5
    assert kept_detections(before, [torch.zeros(0, 7)] * 2) == 0
    assert kept_detections([torch.zeros(0, 7)], [torch.zeros(0, 7)]) == 1
