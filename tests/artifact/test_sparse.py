"""Masks: what was pruned stays pruned, whatever its tensor becomes later."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact, store
from distill.artifact.sparse import Pruned, PrunedShared, Sparse, Spliced, inherit_zeros, largest, n_of_m
from distill.artifact.storage import Encoded, Stored, from_record, to_record
from distill.artifact.straight_through import finalize, trainable
from distill.compress.pruning.prune import prune
from distill.compress.quantization._quantized import Quantized
from distill.compress.sharing.cluster import cluster
from distill.errors import RecipeError
from tests.compress import nets

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(shape=shapes, seed=st.integers(0, 99))
def test_a_mask_and_what_it_keeps_are_the_tensor(shape: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    tensor, keep = torch.randn(shape), torch.rand(shape) < 0.4
    stored = Sparse.of(tensor, keep)
    assert torch.equal(stored.decode(), tensor * keep)
    assert torch.equal(stored.mask(), keep)
    assert stored.nbytes() == -(-keep.numel() // 8) + 4 * int(keep.sum())
    assert torch.equal(stored.requantize(tensor + 1).decode(), (tensor + 1) * keep)


def test_bits_by_hand() -> None:
    tensor = torch.tensor([5.0, 0, 7, 0, 0, 0, 0, 0, 0, 9])
    stored = Sparse.of(tensor, tensor > 0)
    assert stored.bitmap.tolist() == [0b101, 0b10]
    assert stored.values.tolist() == [5, 7, 9]


def test_a_kept_zero_may_grow_again() -> None:
    stored = Sparse.of(torch.tensor([0.0, 2.0]), torch.tensor([True, False]))
    assert stored.requantize(torch.tensor([3.0, 4.0])).decode().tolist() == [3, 0]


def test_records_give_back_the_form() -> None:
    tensor = torch.randn(4, 8)
    sparse = Sparse.of(tensor, tensor > 0)
    for stored in (sparse, Spliced(inner=sparse, pattern=[2, 4, 1]), Pruned(inner=Quantized.fit(sparse.decode(), 8))):
        back = from_record(*to_record(stored))
        assert isinstance(back, Stored)
        assert type(back) is type(stored)
        assert torch.equal(back.decode(), stored.decode())
        assert torch.equal(back.requantize(2 * tensor).decode(), stored.requantize(2 * tensor).decode())
        assert back.nbytes() == stored.nbytes()


def test_a_spliced_mask_follows_the_largest_values() -> None:
    tensor = torch.tensor([3.0, 0, -2, 0])
    stored = Spliced(inner=Sparse.of(tensor, tensor != 0), pattern=[])
    assert stored.requantize(torch.tensor([3.0, -4, -2, 0])).decode().tolist() == [3, -4, 0, 0]
    paired = Spliced(inner=stored.inner, pattern=[1, 2, 0])
    assert paired.requantize(torch.tensor([3.0, -4, -2, 0])).decode().tolist() == [0, -4, -2, 0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_below_pruned_codes_stay_zero_and_cost_nothing(bits: int) -> None:
    tensor = torch.randn(6, 5) * (torch.rand(6, 5) < 0.5)
    codes = Quantized.fit(tensor, bits)
    stored = Pruned(inner=codes)
    assert stored.nbytes() == codes.nbytes()
    assert (stored.requantize(torch.randn(6, 5)).decode()[codes.codes == 0] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_n_of_m_keeps_the_most_in_every_group(data: st.DataObject) -> None:
    m = data.draw(st.integers(2, 5))
    n = data.draw(st.integers(1, m - 1))
    axis = data.draw(st.integers(0, 2))
    shape = [m * data.draw(st.integers(1, 3)) if a == axis else data.draw(st.integers(1, 3)) for a in range(3)]
    values = torch.rand(shape)
    keep = n_of_m(values, n, m, axis)
    for group, kept in zip(values.movedim(axis, 2).reshape(-1, m), keep.movedim(axis, 2).reshape(-1, m), strict=True):
        best = max(combinations(range(m), n), key=lambda some: sum(group[k].item() for k in some))
        assert kept.nonzero().flatten().tolist() == list(best)


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=20), data=st.data())
def test_exactly_as_many_as_asked_even_among_equals(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    mask = largest(torch.tensor(values, dtype=torch.double), count)
    assert int(mask.sum()) == count
    assert sorted(v for v, m in zip(values, mask, strict=True) if m) == sorted(values)[len(values) - count :]


@dataclass(frozen=True, eq=False, kw_only=True)
class Ones:
    """A form without zeros."""

    codes: Tensor

    def nbytes(self) -> int:
        return self.codes.nbytes

    def decode(self) -> Tensor:
        return torch.ones_like(self.codes).float()

    def requantize(self, tensor: Tensor) -> Stored:
        return self


def pruned(artifact: Artifact, name: str) -> Artifact:
    weight = artifact.model.get_parameter(name).detach()
    return store(artifact, {name: Sparse.of(weight, weight > 0)})


def test_the_next_form_inherits_the_zeros() -> None:
    sparse = pruned(nets.artifact(), "point.weight")
    weight = sparse.model.get_parameter("point.weight").detach()
    done = store(sparse, {"point.weight": Quantized.fit(weight, 8)})
    form = done.stored["point.weight"]
    assert isinstance(form, Pruned)
    assert torch.equal(form.requantize(weight + 1).decode() == 0, form.decode() == 0)
    assert (form.decode()[weight == 0] == 0).all()
    again = store(done, {"point.weight": Quantized.fit(weight, 4)}).stored["point.weight"]
    assert isinstance(again, Pruned)
    coded = Encoded.of(form.inner, "ans")
    assert inherit_zeros(form, coded) is coded


def test_a_form_without_zeros_is_refused() -> None:
    ones = {"head.weight": Ones(codes=torch.zeros(10, 12, dtype=torch.int8))}
    with pytest.raises(
        RecipeError, match="'Ones' has other values in place of pruned weights: .* cannot follow 'prune'"
    ):
        store(pruned(nets.artifact(), "head.weight"), ones)
    assert store(nets.artifact(), ones).stored["head.weight"] is ones["head.weight"]


def test_zeros_survive_surgery() -> None:
    artifact = pruned(pruned(nets.artifact(), "point.weight"), "head.weight")
    model = artifact.copy_model()
    model.point.weight.data *= 2  # as when a batch norm is folded in
    model.head = nn.Linear(6, 10)  # as when channels are removed
    model.head.weight.data = artifact.model.head.weight.detach()[:, 6:]
    done = artifact.with_model(model)
    for name, weight in (("point.weight", model.point.weight), ("head.weight", model.head.weight)):
        form = done.stored[name]
        assert isinstance(form, Sparse)
        assert torch.equal(form.mask(), weight != 0)
        assert 0 < form.mask().float().mean() < 1


@pytest.mark.parametrize("shared", [False, True])
def test_zeros_stay_while_shared_values_are_trained(shared: bool, tmp_path: Path) -> None:
    sparse = prune(nets.artifact(), sparsity=0.6, layers=["point", "kernel"])
    before = cluster(sparse, shared=shared, layers=["point", "kernel"])
    after = finalize(before, nets.train(trainable(before), steps=30))
    after.save(tmp_path / "student.safetensors")
    after = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
    for name in ("point.weight", "kernel.weight"):
        form = after.stored[name]
        assert isinstance(form, PrunedShared)
        assert torch.equal(form.inner.codes, before.stored[name].inner.codes)
        assert not torch.equal(form.shared(), before.stored[name].shared())
        assert (form.decode()[sparse.model.get_parameter(name) == 0] == 0).all()
