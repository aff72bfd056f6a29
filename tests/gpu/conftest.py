"""Tests that run on a CPU in the ordinary suite, and on a GPU with `pytest -m gpu`."""

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _needs_what_it_is_marked_with(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"PyTorch {torch.__version__} finds no CUDA device on this machine")
