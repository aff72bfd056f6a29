"""Mixed precision: a budget of bits that holds, spent where it helps."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.compress.encode import encode
from distill.compress.quantization._mixed import allocate, sensitivities
from distill.compress.quantization.quantize import Quantized, quantize
from tests.compress import nets

BITS = range(2, 9)
harms = st.lists(st.lists(st.floats(0, 1), min_size=7, max_size=7), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(table=harms, data=st.data(), budget=st.floats(2, 8))
def test_the_budget_holds(table: list[list[float]], data: st.DataObject, budget: float) -> None:
    harm = {f"w{k}": dict(zip(BITS, costs, strict=True)) for k, costs in enumerate(table)}
    sizes = {name: data.draw(st.integers(1, 5000)) for name in harm}
    bits = allocate(harm, sizes, budget)
    spent = sum(sizes[name] * chosen for name, chosen in bits.items())
    assert spent <= budget * sum(sizes.values())
    for name, chosen in bits.items():  # nothing affordable is better
        rest = budget * sum(sizes.values()) - spent
        assert all(harm[name][b] >= harm[name][chosen] for b in BITS if 0 < sizes[name] * (b - chosen) <= rest)


@settings(max_examples=30, deadline=None)
@given(scales=st.lists(st.floats(0.01, 100), min_size=3, max_size=3), total=st.integers(6, 24))
def test_for_weights_of_one_size_whose_harm_falls_steadily_it_is_the_best(scales: list[float], total: int) -> None:
    harm = {f"w{k}": {b: scale * 4.0**-b for b in BITS} for k, scale in enumerate(scales)}
    bits = allocate(harm, dict.fromkeys(harm, 10), total / 3)
    best = min(
        sum(harm[f"w{k}"][b] for k, b in enumerate(some)) for some in product(BITS, repeat=3) if sum(some) <= total
    )
    assert sum(harm[name][b] for name, b in bits.items()) == pytest.approx(best, rel=1e-9)


def test_sensitivity_is_what_the_output_loses() -> None:
    artifact, inputs = nets.artifact(), nets.images()
    weight = artifact.model.head.weight.detach()
    harm = sensitivities(artifact.copy_model(), inputs, {"head.weight": weight}, lambda _, b: Quantized.fit(weight, b))
    exact = artifact.model(inputs).detach()
    for bits in (2, 5):
        other = quantize(artifact, bits=bits, symmetric=True, layers=["head"]).model(inputs).detach()
        expected = (other - exact).square().sum() / exact.square().sum()
        assert harm["head.weight"][bits] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("budget", [2.0, 3.5, 4.0, 8.0])
def test_a_network_meets_its_budget_and_says_how(budget: float, caplog: pytest.LogCaptureFixture) -> None:
    artifact = nets.artifact()
    with caplog.at_level("DEBUG", "distill.compress.quantize"):
        done = quantize(artifact, nets.calibration(), mean_bits=budget, rounding="nearest")
    spent = sum(form.bits * form.codes.numel() for form in done.stored.values())
    assert spent <= budget * sum(form.codes.numel() for form in done.stored.values())
    form = done.stored["kernel.weight"]
    assert f"quantize: kernel.weight: {form.bits} bits, output error" in caplog.text
    assert quantize(artifact, nets.calibration(), mean_bits=budget, rounding="nearest").to_bytes() == done.to_bytes()


def test_it_beats_the_same_bits_everywhere() -> None:
    artifact, inputs = nets.artifact(), torch.cat([batch.inputs for batch in nets.calibration()])
    mixed = quantize(artifact, nets.calibration(), mean_bits=4, rounding="nearest")
    uniform = quantize(artifact, bits=4, rounding="nearest")
    exact = artifact.model(inputs)
    assert (mixed.model(inputs) - exact).norm() < (uniform.model(inputs) - exact).norm()
    assert encode(mixed).nbytes() < 1.1 * encode(uniform).nbytes()
