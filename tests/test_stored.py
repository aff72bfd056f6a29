"""Forms of stored tensors: near what they are fitted to, exact from then on, and on disk as they are."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from distill.errors import RecipeError
from distill.packing import pack, raw, unpack
from distill.stored import Encoded, Quantized, Stored, form, from_record, to_record

weights = arrays.arrays(
    "float32",
    arrays.array_shapes(min_dims=1, max_dims=4, max_side=6),
    elements=st.floats(-(2.0**60), 2.0**60, width=32),
).map(torch.from_numpy)


@settings(max_examples=150, deadline=None)
@given(weight=weights, bits=st.integers(2, 8), data=st.data())
def test_no_value_is_off_by_more_than_half_a_scale(weight: Tensor, bits: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, weight.dim() - 1))
    fitted = Quantized.fit(weight, bits, axis)
    shape = [-1 if a == axis else 1 for a in range(weight.dim())]
    error = (fitted.decode().double() - weight.double()).abs()
    assert (error <= fitted.scales.double().reshape(shape) * 0.5000001).all()
    assert fitted.codes.abs().max() <= 2 ** (bits - 1) - 1


@settings(max_examples=100, deadline=None)
@given(weight=weights, bits=st.integers(2, 8))
def test_fitting_what_was_decoded_changes_nothing(weight: Tensor, bits: int) -> None:
    once = Quantized.fit(weight, bits).decode()
    assert torch.equal(Quantized.fit(once, bits).decode(), once)


def test_codes_by_hand() -> None:
    fitted = Quantized.fit(torch.tensor([[0.5, -1.0, 0.26], [0.0, 0.0, 0.0], [28.0, 14.0, 1.9]]), bits=4)
    assert fitted.codes.tolist() == [[4, -7, 2], [0, 0, 0], [7, 4, 0]]  # 14 / 4 = 3.5 goes to even
    assert fitted.scales.tolist() == [pytest.approx(1 / 7, rel=2**-9), 1.0, 4.0]
    assert fitted.nbytes() == 9 + 3 * 2


def test_refit_keeps_the_form() -> None:
    first = Quantized.fit(torch.randn(4, 3, 2), bits=5, axis=1)
    again = first.refit(torch.randn(4, 3, 2))
    assert (again.bits, again.axis, again.scales.shape) == (5, 1, (3,))


def test_encoded_tensors_are_not_fitted() -> None:
    encoded = Encoded.of(Quantized.fit(torch.randn(4, 3), bits=8), "ans")
    with pytest.raises(RecipeError, match="put 'encode' last in compress"):
        encoded.refit(torch.randn(4, 3))


@pytest.mark.parametrize("codec", ["ans", "huffman", "zstd"])
def test_records_give_back_the_form(codec: str) -> None:
    for stored in (quantized := Quantized.fit(torch.randn(8, 5), bits=6), Encoded.of(quantized, codec)):
        settings, tensors = to_record(stored)
        back = from_record(settings, tensors)
        assert isinstance(back, Stored)
        assert type(back) is type(stored)
        assert torch.equal(back.decode(), stored.decode())
        assert back.nbytes() == stored.nbytes()
    assert settings == {
        "form": "encoded",
        "codec": codec,
        "inner": {"form": "quantized", "axis": 0, "bits": 6},
    }


def test_a_new_form_is_one_class() -> None:
    @form("shared")
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Shared:
        codes: Tensor
        table: Tensor

        def nbytes(self) -> int:
            return self.codes.nbytes + self.table.nbytes

        def decode(self) -> Tensor:
            return self.table[self.codes.long()]

        def refit(self, tensor: Tensor) -> Stored:
            return self

    stored = Encoded.of(Shared(codes=torch.tensor([[0, 2], [1, 1]]), table=torch.tensor([0.5, -1.0, 3.0])), "huffman")
    try:
        back = from_record(*to_record(stored))
        assert back.decode().tolist() == [[0.5, 3.0], [-1.0, -1.0]]
    finally:
        del form._components["shared"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_packing_is_exact(data: st.DataObject) -> None:
    kinds = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.int8, torch.bool])
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    drawn = data.draw(st.lists(st.tuples(kinds, shapes), max_size=8))
    tensors = {f"layer.{k}": torch.randn(shape).mul(9).to(kind) for k, (kind, shape) in enumerate(drawn)}
    back = unpack(pack(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert raw(back[name]).tobytes() == raw(tensor).tobytes()  # NaN and -0.0 too


def test_packing_costs_little() -> None:
    tensors = {f"stage{k}.branch.{k % 5}.norm.{part}": torch.rand(48) for k in range(80) for part in ("weight", "bias")}
    payload = sum(t.nbytes for t in tensors.values())
    assert pack(tensors).numel() < payload  # exponents of floats shrink by more than names and shapes take
