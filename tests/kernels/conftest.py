"""The two ways that layers compute: compiled kernels, and PyTorch where there is no compiler."""

import pytest

from distill.kernels import _native


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(_native, "library", lambda: None)
    elif _native.library() is None:
        pytest.skip("no C++ compiler")
    return request.param
