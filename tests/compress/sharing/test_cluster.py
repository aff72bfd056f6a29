"""Weight sharing by k-means, against the exhaustive optimum."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor, nn

from distill.artifact import Artifact
from distill.compress.encode import encode
from distill.compress.sharing.cluster import _table, cluster, k_means
from distill.errors import RecipeError
from tests.compress import nets

STARTS = ("optimal", "linear", "density", "random")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def error(values: Tensor, means: Tensor) -> float:
    return float((values.double()[:, None] - means.double()).square().amin(1).sum())


def optimum(values: Tensor, count: int) -> float:
    """Of all ways to cut the sorted values into intervals."""
    ordered = values.double().sort().values
    cuts = combinations(range(1, len(ordered)), count - 1)
    parts = ([ordered[a:b] for a, b in zip((0, *c), (*c, len(ordered)), strict=True)] for c in cuts)
    return min(sum(float((p - p.mean()).square().sum()) for p in some) for some in parts)


@pytest.mark.parametrize("start", STARTS)
@settings(max_examples=40, deadline=None)
@given(data=st.lists(st.floats(-10, 10, width=32), min_size=6, max_size=10), count=st.integers(1, 4))
def test_no_start_is_better_than_the_optimum_and_all_end_where_nothing_moves(
    start: str, data: list[float], count: int
) -> None:
    values = torch.tensor(data)
    means = k_means(values, count, start, generator())
    assert error(values, means) >= optimum(values, count) * (1 - 1e-9) - 1e-12
    codes = (values.double()[:, None] - means).abs().argmin(1)
    for code in codes.unique():
        torch.testing.assert_close(means[code], values.double()[means[codes] == means[code]].mean())


@settings(max_examples=40, deadline=None)
@given(
    centres=st.lists(st.integers(-20, 20), min_size=3, max_size=3, unique=True),
    spread=st.lists(st.floats(-0.05, 0.05), min_size=9, max_size=9),
)
def test_clusters_that_lie_apart_are_found(centres: list[int], spread: list[float]) -> None:
    values = torch.tensor([centre + shift for centre, shift in zip(centres * 3, spread, strict=True)])
    means = k_means(values, 3, "density", generator())
    assert error(values, means) == pytest.approx(optimum(values, 3), abs=1e-6)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shared", [False, True])
def test_every_position_has_the_nearest_value(start: str, shared: bool) -> None:
    artifact = nets.artifact()
    done = cluster(artifact, bits=3, initialisation=start, shared=shared)
    for name, form in done.stored.items():
        weight = artifact.model.get_parameter(name).detach()
        scale = 1.0 if form.scale is None else form.scale.float()
        best = (weight[..., None] - form.values.float() * scale).abs().amin(-1)
        torch.testing.assert_close((form.decode() - weight).abs(), best, rtol=1e-5, atol=1e-7)
        assert form.codes.unique().numel() <= 8


def test_zeros_keep_a_code_of_their_own() -> None:
    artifact = nets.artifact()
    weight = artifact.model.head.weight.data
    weight[weight.abs() < weight.abs().median()] = 0
    for shared in (False, True):
        form = cluster(artifact, bits=2, shared=shared).stored["head.weight"]
        assert form.zero
        assert torch.equal(form.decode() == 0, weight == 0)
        assert torch.equal(form.codes == 0, weight == 0)
        assert form.codes.max() <= 3
        assert torch.equal(form.with_shared(form.shared() + 1).decode() == 0, weight == 0)


def test_a_weight_of_zeros_stays_one() -> None:
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    for shared in (False, True):
        assert not cluster(Artifact(layer), shared=shared).stored["weight"].decode().any()


def test_more_bits_err_less_and_take_more_bytes() -> None:
    artifact = nets.artifact()
    weight = artifact.model.kernel.weight
    done = [cluster(artifact, bits=bits) for bits in (1, 2, 4, 6)]
    errors = [float((d.stored["kernel.weight"].decode() - weight).detach().norm()) for d in done]
    sizes = [encode(d).nbytes() for d in done]
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


def test_no_table_is_longer_than_half_its_weight() -> None:
    done = cluster(nets.artifact(), bits=8)
    assert all(2 * len(form.values) <= form.codes.numel() for form in done.stored.values())


def test_bits_out_of_range() -> None:
    unchecked = getattr(cluster, "__wrapped__", cluster)
    with pytest.raises(RecipeError, match="cluster has codes of 1 to 8 bits, not 9"):
        unchecked(nets.artifact(), bits=9)


@pytest.mark.parametrize("count", [4, 16, 64, 255])
@pytest.mark.parametrize(
    "kind", ["normal", "laplace", "uniform", "two scales", "heavy tails", "one outlier", "few values", "two peaks"]
)
def test_the_default_is_as_good_as_sklearns_best_of_ten(kind: str, count: int) -> None:
    torch.manual_seed(0)
    values = {
        "normal": lambda: torch.randn(3000),
        "laplace": lambda: torch.distributions.Laplace(0.0, 1.0).sample((3000,)),
        "uniform": lambda: torch.rand(300),
        "two scales": lambda: torch.cat([torch.randn(2000) / 100, torch.randn(200) * 2]),
        "heavy tails": lambda: torch.distributions.StudentT(2.0).sample((3000,)),
        "one outlier": lambda: torch.cat([torch.randn(3000), torch.tensor([3000.0])]),
        "few values": lambda: torch.randint(-200, 200, (3000,)) / 7 + 0.01,
        "two peaks": lambda: torch.cat([torch.randn(1500) / 100 + 1, torch.randn(1500) / 100 - 1]),
    }[kind]()
    best = KMeans(count, n_init=10, random_state=0).fit(values[:, None].numpy()).inertia_
    assert error(values, k_means(values, count, "optimal", generator())) <= 1.02 * best
    table, _ = _table(values, 8, "optimal", generator())
    assert len(table) <= 256
    if count == 255 and 2 * count < len(values):
        assert error(values, table) <= 1.03 * best
