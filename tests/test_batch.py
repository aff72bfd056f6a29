from typing import Any, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.batch import Batch, map_tensors


class Pair(NamedTuple):
    first: Any
    second: Any


def batch(size: int) -> Batch:
    """Labels of every kind: a tensor, one per sample of any length, several by name, several by position."""
    ragged = [torch.full((number, 4), float(number)) for number in range(size)]
    labels = {"class": torch.arange(size), "boxes": ragged, "pair": Pair(torch.arange(size) * 2, None)}
    return Batch(torch.arange(size)[:, None].float(), labels, torch.arange(size) + 100)


@given(size=st.integers(1, 6), data=st.data())
def test_some_samples_keep_all_that_belongs_to_them(size: int, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, size - 1), max_size=8))
    part = batch(size).take(torch.tensor(chosen, dtype=torch.int64))
    assert part.inputs[:, 0].tolist() == chosen
    assert part.labels["class"].tolist() == chosen
    assert [len(boxes) for boxes in part.labels["boxes"]] == chosen
    assert part.labels["pair"].first.tolist() == [2 * number for number in chosen]
    assert part.sample.tolist() == [number + 100 for number in chosen]


@given(size=st.integers(1, 5), data=st.data())
def test_one_sample_is_a_batch_of_one(size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(-size, size - 1))
    one = batch(size).take(number)
    assert one.inputs.shape == (1, 1)
    assert one.labels["class"].tolist() == [number % size]
    assert len(one.labels["boxes"][0]) == number % size


def test_every_tensor_moves_and_all_else_stays() -> None:
    moved = batch(3).to("meta")
    assert {tensor.device.type for tensor in (moved.inputs, moved.labels["class"], moved.labels["pair"].first)} == {
        "meta"
    }
    assert [boxes.device.type for boxes in moved.labels["boxes"]] == ["meta"] * 3
    assert moved.labels["pair"].second is None
    assert isinstance(moved.labels["pair"], Pair)
    assert map_tensors(torch.neg, (torch.ones(1), 5)) == (-1, 5)
