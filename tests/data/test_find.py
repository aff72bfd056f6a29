"""Where a data set's files are looked for, and what is said when they are nowhere."""

from dataclasses import replace
from pathlib import Path

import pytest

from distill.data import fashion_mnist
from distill.data._find import find
from distill.errors import DataError
from tests.data import tiny


def offline(folder, *, download):
    (Path(folder) / "half a file").write_bytes(b"...")
    raise RuntimeError("Error downloading x:\nTried there, got:\nno network")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An origin and the four places it is looked for in, all empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path / "named"))
    origin = replace(fashion_mnist.ORIGIN, packages=(tmp_path / "package",), download=offline)
    return origin, tmp_path


def test_places_are_searched_in_the_promised_order(places):
    origin, base = places
    cached = tiny.mnist(base / "home/.cache/distill/FashionMNIST/raw")
    assert find(origin, None) == cached
    packaged = tiny.mnist(base / "package")
    assert find(origin, None) == packaged
    named = tiny.mnist(base / "named")
    assert find(origin, None) == named
    rooted = tiny.mnist(base / "root")
    assert find(origin, rooted) == rooted


@pytest.mark.parametrize("folder", ["", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_data_sets_will_do(places, folder, suffix):
    origin, base = places
    there = tiny.mnist(base / "named" / folder, suffix=suffix)
    assert find(origin, None) == there
    assert find(origin, base / "named") == there


def test_another_set_of_the_same_file_names_is_not_taken(places):
    origin, base = places
    tiny.mnist(base / "named" / "mnist")
    packaged = tiny.mnist(base / "package")
    assert find(origin, None) == packaged


def test_a_folder_that_is_named_is_meant(places):
    origin, base = places
    tiny.mnist(base / "package")
    with pytest.raises(
        DataError, match=r"no Fashion-MNIST in data.root=.*wrong: its files are train-images-idx3-ubyte"
    ):
        find(origin, base / "wrong")


def test_nowhere_says_how_to_get_it_and_leaves_no_half_files(places):
    origin, base = places
    with pytest.raises(DataError) as captured:
        find(origin, None)
    message = str(captured.value)
    for part in [str(base / "named"), "no network", "data.root", "$DISTILL_DATA", "apt install dataset-fashion-mnist"]:
        assert part in message
    assert "\n" not in message
    assert [path.name for path in (base / "named").iterdir()] == [".download.lock"]


def test_without_a_named_folder_the_download_goes_to_the_cache(places, monkeypatch):
    monkeypatch.delenv("DISTILL_DATA")
    origin, base = places
    calls = []

    def download(folder, *, download):
        calls.append(folder)
        tiny.mnist(Path(folder) / "FashionMNIST/raw", suffix=".gz")
        tiny.mnist(Path(folder) / "FashionMNIST/raw", suffix="")

    origin = replace(origin, download=download)
    cache = base / "home/.cache/distill"
    assert find(origin, None) == find(origin, None) == cache / "FashionMNIST/raw"
    assert len(calls) == 1
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == sorted([".download.lock", *origin.files])


def test_a_cache_that_cannot_be_written_is_named(places):
    origin, base = places
    (base / "named").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=rf"File exists.*{base}/named"):
        find(origin, None)
