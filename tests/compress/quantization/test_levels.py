"""Fixed point, powers of two and ternary weights, against brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.storage import from_record, to_record
from distill.compress.encode import encode
from distill.compress.quantization.fixed_point import FixedPoint, fixed_point
from distill.compress.quantization.power_of_two import PowersOfTwo, power_of_two
from distill.compress.quantization.ternary import ternary
from distill.errors import RecipeError
from tests.compress import nets

weights = arrays.arrays(
    "float32",
    arrays.array_shapes(min_dims=2, max_dims=3, max_side=5),
    elements=st.floats(-(2.0**20), 2.0**20, width=32).filter(lambda v: v == 0 or abs(v) > 2.0**-20),
).map(torch.from_numpy)


@settings(max_examples=100, deadline=None)
@given(weight=weights, bits=st.integers(2, 16))
def test_fixed_point_is_a_word_that_no_other_fraction_makes_better(weight: Tensor, bits: int) -> None:
    form = FixedPoint.fit(weight, bits)
    assert form.codes.min() >= -(2 ** (bits - 1))
    assert form.codes.max() <= 2 ** (bits - 1) - 1
    assert torch.equal(form.decode().double(), form.codes.double() * 2.0**-form.fraction)
    assert (form.decode()[weight == 0] == 0).all()
    error = (form.decode().double() - weight.double()).square().sum()
    for fraction in range(form.fraction - 5, form.fraction + 6):
        words = (weight.double() * 2.0**fraction + 0.5).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        other = (words * 2.0**-fraction - weight.double()).square().sum()
        assert error <= other * (1 + 1e-9) or abs(fraction - form.fraction) > 1


@settings(max_examples=60, deadline=None)
@given(weight=weights, bits=st.integers(2, 16), rounding=st.sampled_from(["nearest", "stochastic"]))
def test_fixed_point_leaves_what_it_decoded(weight: Tensor, bits: int, rounding: str) -> None:
    form = FixedPoint.fit(weight, bits, rounding, seed=3)
    assert torch.equal(form.requantize(form.decode()).decode(), form.decode())
    assert torch.equal(from_record(*to_record(form)).decode(), form.decode())


def test_stochastic_rounding_is_unbiased_and_never_off_by_a_step() -> None:
    values = torch.linspace(-0.9, 0.9, 37).repeat(4000, 1)
    nearest, stochastic = (FixedPoint.fit(values, 4, r, seed=7) for r in ("nearest", "stochastic"))
    step = 2.0**-stochastic.fraction
    assert nearest.fraction == stochastic.fraction
    inside = values.abs() < 7 * step
    assert ((stochastic.decode() - values).abs() < step)[inside].all()
    bias = (stochastic.decode() - values).mean(0)[inside[0]]
    assert bias.abs().max() < 5 * step / 2 / 4000**0.5  # five standard deviations of the largest variance
    assert (nearest.decode() - values).mean(0)[inside[0]].abs().max() > 3 * bias.abs().max()


def test_fixed_point_draws_the_same_for_the_same_seed() -> None:
    first, again, other = (
        fixed_point(nets.artifact(), bits=4, rounding="stochastic", seed=seed).to_bytes() for seed in (1, 1, 2)
    )
    assert first == again != other


@settings(max_examples=100, deadline=None)
@given(weight=weights, bits=st.integers(2, 5), axis=st.sampled_from([None, 0, 1]))
def test_each_weight_is_the_nearest_power_of_two(weight: Tensor, bits: int, axis: int | None) -> None:
    form = PowersOfTwo.fit(weight, bits, axis)
    tops = form.tops.int()
    rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).reshape(len(tops), -1)
    decoded = form.decode()
    near = decoded.reshape(1, -1) if axis is None else decoded.movedim(axis, 0).reshape(len(tops), -1)
    for row, chosen, top in zip(rows, near, tops.tolist(), strict=True):
        powers = torch.tensor([2.0 ** (top - k) for k in range(2 ** (bits - 1) - 1)])
        levels = torch.cat([powers, -powers, torch.zeros(1)])
        assert torch.isin(chosen, levels).all()
        torch.testing.assert_close((chosen - row).abs(), (row[:, None] - levels).abs().amin(1), rtol=0, atol=0)
    assert torch.equal(form.requantize(decoded).decode(), decoded)


def test_powers_of_two_are_within_a_third_of_large_weights() -> None:
    weight = torch.randn(8, 40)
    form = PowersOfTwo.fit(weight, 5)
    relative = ((form.decode() - weight) / weight).abs()
    assert relative[weight.abs() > 0.05].max() <= 1 / 3 + 1e-6  # midway between 2^e and 2^(e+1)


@settings(max_examples=60, deadline=None)
@given(weight=weights.filter(lambda w: w.numel() <= 40))
def test_ternary_is_the_best_of_all_subsets(weight: Tensor) -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(weight.flatten(1)[:, :6])
    form = ternary(Artifact(layer)).stored["weight"]
    for row, codes in zip(layer.weight.detach().double(), form.codes.double(), strict=True):
        gains = [
            float(row.abs()[list(some)].mean() ** 2 * len(some))
            for size in range(1, len(row) + 1)
            for some in combinations(range(len(row)), size)
        ]
        kept = codes != 0
        ours = float(row.abs()[kept].mean() ** 2 * kept.sum()) if kept.any() else 0.0
        assert ours == pytest.approx(max(gains), rel=1e-5)
        assert (codes * row >= 0).all()


def test_the_papers_threshold() -> None:
    artifact = nets.artifact()
    form = ternary(artifact, threshold="mean", granularity="tensor").stored["kernel.weight"]
    weight = artifact.model.kernel.weight.detach()
    kept = weight.abs() > 0.7 * weight.abs().mean()
    assert torch.equal(form.codes.float(), weight.sign() * kept)
    torch.testing.assert_close(float(form.scales), float(weight.abs()[kept].mean()), rtol=2**-8, atol=0.0)
    best = ternary(artifact, granularity="tensor").stored["kernel.weight"]
    errors = [float((f.decode() - weight).square().sum()) for f in (best, form)]
    assert errors[0] <= errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("apply", [ternary, power_of_two, fixed_point])
def test_zeros_stay_zero_and_codes_are_encoded(apply: object) -> None:
    artifact = nets.artifact()
    weight = artifact.model.kernel.weight.data
    weight[weight.abs() < 0.5 * weight.abs().mean()] = 0
    done = apply(artifact)
    assert (done.model.kernel.weight[weight == 0] == 0).all()
    coded = encode(done)
    assert coded.nbytes() < done.nbytes()
    assert torch.equal(coded.model(nets.images()), done.model(nets.images()))


def test_bits_out_of_range() -> None:
    unchecked = getattr(power_of_two, "__wrapped__", power_of_two)
    with pytest.raises(RecipeError, match="power_of_two has codes of 2 to 5 bits, not 6"):
        unchecked(nets.artifact(), bits=6)
    with pytest.raises(RecipeError, match="fixed_point has words of 2 to 16 bits, not 17"):
        fixed_point(nets.artifact(), bits=17)
