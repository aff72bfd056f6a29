"""Every storage format decodes in NumPy to the bits that PyTorch decodes it to."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from distill.artifact import Artifact
from distill.artifact.raw import to_raw
from distill.artifact.storage import to_record
from distill.codecs import chain
from distill.compress.encode import encode
from distill.compress.pruning.prune import prune
from distill.compress.quantization.fixed_point import fixed_point
from distill.compress.quantization.power_of_two import power_of_two
from distill.compress.quantization.quantize import quantize
from distill.compress.sharing.cartesian_quantize import cartesian_quantize
from distill.compress.sharing.cluster import cluster
from distill.compress.sharing.hash_weights import hash_weights
from distill.compress.sharing.product_quantize import product_quantize
from distill.container.raw import Raw
from distill.errors import ArtifactError
from distill.registry import form
from distill.runtime.decoding import FORMS, decode, plain
from tests.compress import nets

LIMIT = 2**26
WAYS: dict[str, Callable[[Artifact], Artifact]] = {
    "quantize": lambda a: quantize(a, bits=4),
    "groups": lambda a: quantize(a, bits=3, granularity="group", group_size=5),
    "asymmetric": lambda a: quantize(a, bits=8, symmetric=False),
    "one scale": lambda a: quantize(a, granularity="tensor"),
    "power_of_two": lambda a: power_of_two(a, bits=4),
    "fixed_point": lambda a: fixed_point(a, bits=12),
    "cluster": lambda a: cluster(a, bits=3),
    "shared cluster": lambda a: cluster(a, shared=True),
    "hash_weights": hash_weights,
    "product_quantize": lambda a: product_quantize(a, block=3, codebook_size=8, residual=1),
    "cartesian_quantize": lambda a: cartesian_quantize(a, codebook_size=8),
    "prune": lambda a: prune(a, sparsity=0.6),
    "prune, then cluster": lambda a: cluster(prune(a, sparsity=0.6)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("coded", [False, True])
def test_a_format_decodes_to_the_same_values(way: str, coded: bool) -> None:
    artifact = WAYS[way](nets.artifact())
    artifact = encode(artifact) if coded else artifact
    assert artifact.stored
    for name, stored in artifact.stored.items():
        settings, parts = to_record(stored)
        found = plain(decode(settings, {part: to_raw(tensor) for part, tensor in parts.items()}, LIMIT))
        assert found.dtype == np.float32, name
        np.testing.assert_array_equal(found, stored.decode().numpy())


def test_every_format_is_known() -> None:
    assert set(FORMS) == set(form.names())


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"form": "sparse", "shape": [2**20, 2**20]}, "is impossible"),
        ({"form": "sparse", "shape": [-1]}, "is impossible"),
        ({"form": "mine:Own"}, "does not know the storage format 'mine:Own'"),
        ({"form": "encoded", "codec": "mine:Own", "inner": {"form": "clustered"}}, "mine:Own"),
    ],
)
def test_what_is_impossible_is_refused(settings: dict, what: str) -> None:
    raw = Raw("uint8", (1,), b"\0")
    with pytest.raises(ValueError, match=what):
        decode(settings, {"bitmap": raw, "values": raw, "data": raw, "inner.codes": raw}, LIMIT)


def test_a_stream_of_more_codes_than_the_limit_is_refused() -> None:
    data = chain("zlib").encode(np.zeros(2**22, np.int64))
    settings = {"form": "encoded", "codec": "zlib", "inner": {"form": "fixed_point", "fraction": 0}}
    parts = {"data": Raw("uint8", (len(data),), data)}
    assert plain(decode(settings, parts, 2**26)).shape == (2**22,)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="claims the shape"):
        decode(settings, parts, 2**24)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
