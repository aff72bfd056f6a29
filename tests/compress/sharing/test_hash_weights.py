"""The hashing trick: few values per weight, as good as they can be."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.compress.sharing.hash_weights import Hashed, hash_weights, hashed
from distill.errors import RecipeError
from tests.compress import nets

CPU = torch.device("cpu")


def test_values_are_the_least_squares() -> None:
    weight = torch.randn(6, 5, 3)
    form = Hashed.fit(weight, 11, seed=4)
    places, signs = hashed(90, 11, 4, CPU)
    spread = np.zeros((90, 11))
    spread[np.arange(90), places.numpy()] = signs.numpy()
    values = np.linalg.lstsq(spread, weight.flatten().double().numpy(), rcond=None)[0]
    torch.testing.assert_close(form.values.double(), torch.from_numpy(values), rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(form.decode().flatten().numpy(), (spread @ form.values.double().numpy()).astype("f4"))


def test_the_hash_is_murmur3s_finalizer() -> None:
    def mix(number: int) -> int:
        number ^= number >> 16
        number = number * 0x85EBCA6B & 0xFFFFFFFF
        number ^= number >> 13
        number = number * 0xC2B2AE35 & 0xFFFFFFFF
        return number ^ number >> 16

    places, signs = hashed(50, 7, 123, CPU)
    expected = [mix(position ^ mix(123)) for position in range(50)]
    assert places.tolist() == [(bits >> 1) % 7 for bits in expected]
    assert signs.tolist() == [1 - 2 * (bits & 1) for bits in expected]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**40 + 5, -1])
def test_positions_are_spread_evenly(seed: int) -> None:
    places, signs = hashed(64_000, 64, seed, CPU)
    counts = torch.bincount(places, minlength=64)
    assert (counts - 1000).abs().max() < 160  # five standard deviations
    assert abs(float(signs.sum())) < 5 * 64_000**0.5
    assert not torch.equal(places[:100], hashed(100, 64, seed + 1, CPU)[0])


def test_only_values_are_stored() -> None:
    done = hash_weights(Artifact(nn.Linear(64, 32, bias=False)), ratio=0.125)
    assert done.stored["weight"].nbytes() == 2 * 64 * 32 // 8
    assert done.model.weight.abs().unique().numel() <= 64 * 32 // 8


def test_layers_hash_differently() -> None:
    done = hash_weights(nets.artifact())
    assert len({form.seed for form in done.stored.values()}) == len(done.stored)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(RecipeError, match="0 < ratio < 1"):
        hash_weights(nets.artifact(), ratio=ratio)
