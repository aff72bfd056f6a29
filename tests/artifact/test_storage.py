"""Forms of stored tensors: near what they are fitted to, exact from then on, and on disk as they are."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from distill.artifact.raw import to_raw, to_tensor
from distill.artifact.storage import Encoded, Stored, from_record, to_record
from distill.codecs import chain
from distill.compress.quantization._quantized import Quantized
from distill.container.packed import Block, pack
from distill.errors import RecipeError
from distill.registry import form

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


grids = st.fixed_dictionaries(
    {
        "bits": st.integers(2, 8),
        "axis": st.sampled_from([None, 0]),
        "symmetric": st.booleans(),
        "scale": st.sampled_from(["max", "mse"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(weight=weights, grid=grids, group=st.sampled_from([None, 2, 3]))
def test_every_grid_has_zero_and_keeps_what_it_decoded(
    weight: Tensor, grid: dict[str, object], group: int | None
) -> None:
    fitted = Quantized.fit(weight, group=group if grid["axis"] == 0 else None, **grid)
    assert (fitted.decode()[weight == 0] == 0).all()
    assert torch.equal(fitted.with_steps(fitted.steps()).codes, fitted.codes)
    low, high = fitted.limits()
    assert ((fitted.steps() >= low) & (fitted.steps() <= high)).all()
    assert (high - low).max() < 2 ** grid["bits"]
    assert torch.equal(from_record(*to_record(fitted)).decode(), fitted.decode())
    assert torch.equal(fitted.requantize(fitted.decode()).decode(), fitted.decode())


@settings(max_examples=100, deadline=None)
@given(weight=weights, bits=st.integers(2, 8))
def test_with_zero_points_no_value_is_off_by_more_than_a_scale(weight: Tensor, bits: int) -> None:
    fitted = Quantized.fit(weight, bits, symmetric=False)
    error = (fitted.decode().double() - weight.double()).abs().reshape(len(weight), -1)
    assert (error <= fitted.scales.double()[:, None] * 1.01).all()


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
    again = first.requantize(torch.randn(4, 3, 2))
    assert (again.bits, again.axis, again.scales.shape) == (5, 1, (3,))
    grown = first.requantize(first.decode() * 3)
    torch.testing.assert_close(grown.decode(), first.decode() * 3, rtol=2**-7, atol=0.0)


def test_refit_finds_a_scale_for_what_was_zero() -> None:
    again = Quantized.fit(torch.zeros(2, 4), 4).requantize(torch.tensor([[0.0] * 4, [1e-3, 2e-3, -3.5e-3, 7e-3]]))
    assert again.codes.tolist() == [[0] * 4, [1, 2, -4, 7]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_mse_is_as_good_as_any_scale(symmetric: bool, bits: int) -> None:
    weight = torch.randn(6, 200, generator=torch.Generator().manual_seed(bits))
    fitted = Quantized.fit(weight, bits, symmetric=symmetric, scale="mse")
    errors = (fitted.decode() - weight).square().sum(1)
    least = torch.full((6,), float("inf"))
    low, high = (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    for zero in [0] if symmetric else range(high + 1):
        for scale in torch.linspace(0.01, 4.0, 600).tolist():
            steps = ((weight / scale).round() + zero).clamp(low, high) - zero
            least = least.minimum((steps * scale - weight).square().sum(1))
    assert (errors <= least * (1.01 if symmetric else 1.03)).all()


def test_groups_lie_along_the_inputs_and_the_last_may_be_short() -> None:
    weight = torch.tensor([[1.0, -0.5, 8.0, 4.0, 0.25], [2.0, 1.0, 0.0, 0.0, 16.0]])
    fitted = Quantized.fit(weight, bits=2, group=2)
    assert fitted.scales.tolist() == [1.0, 8.0, 0.25, 2.0, 1.0, 16.0]
    assert fitted.codes.tolist() == [[1, 0, 1, 0, 1], [1, 0, 0, 0, 1]]
    across = Quantized.fit(weight.T.contiguous(), bits=2, axis=1, group=2)
    assert torch.equal(across.decode(), fitted.decode().T)


def test_zero_has_the_same_code_whatever_the_zero_point() -> None:
    fitted = Quantized.fit(torch.tensor([[0.0, 1.0, 3.0, 0.5], [0.0, -1.0, -3.0, 1.0]]), bits=8, symmetric=False)
    assert fitted.codes[:, 0].tolist() == [0, 0]
    assert fitted.zeros.tolist() == [0, 191]
    assert fitted.steps()[0, 2] == 255
    torch.testing.assert_close(fitted.decode()[:, 2], torch.tensor([3.0, -3.0]), rtol=5e-3, atol=0.0)


def test_encoded_tensors_are_not_fitted() -> None:
    encoded = Encoded.of(Quantized.fit(torch.randn(4, 3), bits=8), "ans")
    with pytest.raises(RecipeError, match="put 'encode' last in compress"):
        encoded.requantize(torch.randn(4, 3))


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

        def requantize(self, tensor: Tensor) -> Stored:
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
    block = Block(pack({name: (None, {"": to_raw(tensor)}) for name, tensor in tensors.items()}))
    assert list(block.entries) == list(tensors)
    for name, tensor in sorted(tensors.items(), reverse=True):  # each alone, in any order
        settings, parts = block.read(name)
        back = to_tensor(parts[""])
        assert (settings, back.dtype, back.shape) == (None, tensor.dtype, tensor.shape)
        assert to_raw(back).data == to_raw(tensor).data  # NaN and -0.0 too


def test_packing_costs_little() -> None:
    tensors = {f"stage{k}.branch.{k % 5}.norm.{part}": torch.rand(48) for k in range(80) for part in ("weight", "bias")}
    payload = sum(t.nbytes for t in tensors.values())
    assert (
        len(pack({name: (None, {"": to_raw(tensor)}) for name, tensor in tensors.items()})) < payload
    )  # exponents of floats shrink by more than names and shapes take


@pytest.mark.parametrize("codec", ["auto", "auto(seconds=0)", "delta bitmap"])
def test_the_stages_that_coded_a_form_are_known(codec: str) -> None:
    """They decode the stream: ``auto`` puts two bytes before that of the codec that it takes."""
    form = Quantized.fit(torch.linspace(-1, 1, 600).reshape(30, 20), bits=6)
    coded = Encoded.of(form, codec)
    stream = coded.data.numpy().tobytes()[2 if codec.startswith("auto") else 0 :]
    assert torch.equal(torch.from_numpy(chain(*coded.stages).decode(stream)), form.codes)
    assert (coded.stages == ("delta", "bitmap")) == (codec == "delta bitmap")
