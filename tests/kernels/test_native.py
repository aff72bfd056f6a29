"""Kernels are compiled once, and nothing fails where they cannot be."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from distill import native
from distill.kernels import SparseConv2d, _native


def compiled() -> Path:
    if _native.library() is None:
        pytest.skip("no C++ compiler")
    return native.built(_native.SOURCE, native.cache_folder())


def test_what_was_compiled_is_found_again() -> None:
    path = compiled()
    before = path.stat().st_mtime_ns
    assert native.built(_native.SOURCE, path.parent) == path
    assert path.stat().st_mtime_ns == before


def test_kernels_cannot_allocate_memory() -> None:
    if not shutil.which("nm"):
        pytest.skip("no nm")
    symbols = subprocess.run(["nm", "-D", "-u", compiled()], check=True, capture_output=True, text=True).stdout
    assert "memcpy" in symbols
    assert not any(name in symbols for name in ("alloc", "_Znw", "_Zna", "mmap"))


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_layers_still_run(
    compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(_native, "library", _native.library.__wrapped__)
    conv, images = nn.Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
    with caplog.at_level(logging.WARNING, "distill"), torch.no_grad():
        torch.testing.assert_close(SparseConv2d.from_dense(conv)(images), conv(images))
    assert "run in PyTorch, for the C++ compiler does not work" in caplog.text
