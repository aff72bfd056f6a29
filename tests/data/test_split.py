"""Stratified subsets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data._split import split, stratified
from distill.errors import RecipeError

labels_of_any_kind = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(torch.tensor)


@settings(deadline=None)
@given(labels_of_any_kind)
def test_every_position_comes_once(labels):
    assert stratified(labels).sort().values.tolist() == list(range(len(labels)))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.data())
def test_every_stretch_holds_each_class_in_proportion(classes, each, data):
    shuffled = torch.randperm(classes * each, generator=torch.Generator().manual_seed(classes))
    labels = torch.arange(classes).repeat(each)[shuffled]
    start, end = sorted(data.draw(st.integers(0, len(labels))) for _ in range(2))
    counts = labels[stratified(labels)[start:end]].bincount(minlength=classes)
    assert counts.max() - counts.min() <= (2 if start else 1)


def test_uneven_classes_keep_their_shares():
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([600, 300, 100]))
    assert labels[stratified(labels)[:100]].bincount().tolist() == [60, 30, 10]


def test_small_subsets_favour_no_class():
    labels = torch.arange(20).repeat(5)
    assert labels[stratified(labels)[:5]].tolist() != list(range(5))


@settings(deadline=None)
@given(labels_of_any_kind, st.sampled_from([0.0, 0.1, 0.3]), st.none() | st.integers(1, 40))
def test_train_and_val_are_disjoint_and_all(labels, val, limit):
    size = min(len(labels), limit or len(labels))
    held_out = max(1, round(val * size)) if val else 0
    if held_out == size:
        with pytest.raises(RecipeError, match="none of 1 samples"):
            split(stratified(labels), limit, val)
        return
    train, validation = split(stratified(labels), limit, val)
    assert (len(train), len(validation)) == (size - held_out, held_out)
    assert not set(train.tolist()) & set(validation.tolist())
    assert train.tolist() == sorted(train.tolist())


def test_smaller_subsets_nest_in_larger_ones():
    labels = torch.arange(10).repeat(50)
    small_train, small_val = (set(part.tolist()) for part in split(stratified(labels), 100, 0.1))
    train, val = (set(part.tolist()) for part in split(stratified(labels), None, 0.1))
    assert small_val < val
    assert small_train | small_val < train | val


@pytest.mark.parametrize(
    ("limit", "val", "message"),
    [(0, 0.1, "data.limit=0"), (-5, 0.1, "data.limit=-5"), (None, 1.0, "data.val=1.0"), (None, -0.1, "data.val=-0.1")],
)
def test_values_out_of_range_are_refused(limit, val, message):
    with pytest.raises(RecipeError, match=message):
        split(stratified(torch.arange(10)), limit, val)
