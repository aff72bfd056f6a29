"""Fixtures of all tests of data sets."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own: what is remembered there about files ends with the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
