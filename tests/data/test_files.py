"""The file formats of MNIST and CIFAR: read as written, and named when damaged."""

import contextlib
import gzip
import os
import pickle
import shutil
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision import datasets

from distill.data import _cifar, _idx, data, fashion_mnist, mnist
from distill.errors import DataError
from tests.data import tiny

PACKAGED = fashion_mnist.ORIGIN.packages[0]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_as_written(tmp_path, suffix):
    train, test = _idx.read(mnist.ORIGIN, tiny.mnist(tmp_path, suffix=suffix))
    assert np.array_equal(train.images[:, 0], tiny.pixels(40, 28, 28))
    assert np.array_equal(test.images[:, 0], tiny.pixels(20, 28, 28))
    assert train.labels.tolist() == tiny.numbers(40, 10)


def test_idx_files_are_read_as_torchvision_reads_them(tmp_path):
    tiny.mnist(tmp_path / "MNIST/raw", suffix="")
    reference = datasets.MNIST(tmp_path, train=False)
    _, ours = _idx.read(mnist.ORIGIN, tmp_path / "MNIST/raw")
    assert torch.equal(ours.images[:, 0], reference.data)
    assert torch.equal(ours.labels, reference.targets)


def damage_idx(path):
    content = gzip.decompress(path.read_bytes())
    yield "ended before", path.read_bytes()[:-20]
    yield "Not a gzipped file", b"<html>404</html>"
    yield "no IDX file", gzip.compress(b"<html>404</html>")
    yield "no IDX file", gzip.compress(b"")
    yield "is damaged: .* bytes for an array", gzip.compress(content[:-1])
    yield "is damaged: .* bytes for an array", gzip.compress(content + b"\0")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "is no IDX file of 3-dimensional bytes"),
        (b"\0\0\x08\x03" + 3 * b"\xff\xff\xff\xff", "is damaged: an array of shape .*, of up to 2147483648 bytes"),
        (b"\0\0\x08\x03" + 3 * b"\0\0\0\x02", r"is damaged: more bytes for an array of shape \(2, 2, 2\)"),
    ],
)
def test_no_more_of_an_idx_file_is_unpacked_than_its_header_announces(tmp_path, header, message):
    path = tiny.mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    zeros = zlib.compressobj(wbits=31)
    with path.open("wb") as file:
        file.write(zeros.compress(header))
        for _ in range(100):
            file.write(zeros.compress(bytes(2**20)))
        file.write(zeros.flush())
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{path} {message}"):
        data.find("mnist")(0, root=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.parametrize("name", [f"{name}.gz" for name in _idx.FILES])
def test_a_damaged_idx_file_is_named(tmp_path, name):
    path = tiny.mnist(tmp_path) / name
    for message, content in damage_idx(path):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} .*{message}.*; get it again"):
            data.find("mnist")(0, root=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path} is missing"):
        data.find("mnist")(0, root=tmp_path)


def test_idx_files_that_do_not_fit_together_are_named(tmp_path):
    tiny.mnist(tmp_path, suffix="")
    tiny.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(39, dtype=np.uint8) % 10)
    with pytest.raises(DataError, match=rf"{tmp_path}: 40 images but 39 labels in train-\*"):
        data.find("mnist")(0, root=tmp_path)
    tiny.write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(40, dtype=np.uint8))
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: label 39 of 10 classes"):
        data.find("mnist")(0, root=tmp_path)


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="needs the package dataset-fashion-mnist")
class TestRealFashionMNIST:
    def test_is_read(self):
        train, test = _idx.read(fashion_mnist.ORIGIN, PACKAGED)
        assert train.images.shape == (60_000, 1, 28, 28)
        assert train.labels.bincount().tolist() == [6_000] * 10
        assert test.labels.bincount().tolist() == [1_000] * 10
        pixels = train.images.float() / 255
        assert pixels.mean().item() == pytest.approx(fashion_mnist.FashionMNIST.mean[0], abs=1e-4)
        assert pixels.std().item() == pytest.approx(fashion_mnist.FashionMNIST.std[0], abs=1e-4)

    def test_is_not_taken_for_mnist(self):
        with pytest.raises(DataError, match="holds Fashion-MNIST, not MNIST"):
            data.find("mnist")(0, root=PACKAGED)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cifar_files_are_read_as_written(tmp_path, protocol):
    ours = _cifar.read(tiny.cifar100(tmp_path, protocol=protocol) / "cifar-100-python", datasets.CIFAR100)
    train, test, names = ours
    assert np.array_equal(train.images, tiny.pixels(200, 3072).reshape(-1, 3, 32, 32))
    assert test.labels.tolist() == tiny.numbers(100, 100)
    assert names[42] == "thing 42"


def test_cifar10_joins_its_five_files_as_torchvision_does(tmp_path, monkeypatch):
    tiny.cifar10(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for part, train in zip(
        _cifar.read(tmp_path / "cifar-10-batches-py", datasets.CIFAR10)[:2], (True, False), strict=True
    ):
        reference = datasets.CIFAR10(tmp_path, train=train)
        assert np.array_equal(part.images.permute(0, 2, 3, 1), reference.data)
        assert part.labels.tolist() == reference.targets


def test_cifar_as_python_2_wrote_it(tmp_path):
    """The real files hold Python 2's strings: opcode U, which no Python 3 writes."""
    tiny.cifar100(tmp_path)
    path = tmp_path / "cifar-100-python/test"
    row = bytes(range(32)) * 96
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I1\nI3072\ntcnumpy\ndtype\n"
        b"(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nT" + len(row).to_bytes(4, "little") + row + b"tb"
    )
    path.write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x0bfine_labels](K\x07eu.")
    _, test, _ = _cifar.read(path.parent, datasets.CIFAR100)
    assert test.images.flatten().numpy().tobytes() == row
    assert test.labels.tolist() == [7]


def damage_cifar(path):
    entry = pickle.loads(path.read_bytes())
    yield "cannot be read", path.read_bytes()[:-500]
    yield "cannot be read", b"<html>404</html>"
    yield "cannot be read", b""
    yield "not a dictionary", pickle.dumps([entry])
    yield "rows of 3 x 32 x 32", pickle.dumps({**entry, "data": entry["data"][:, :-1]})
    yield "rows of 3 x 32 x 32", pickle.dumps({**entry, "data": None})
    yield "one label for each", pickle.dumps({**entry, "fine_labels": entry["fine_labels"][:-1]})
    yield "one label for each", pickle.dumps({**entry, "fine_labels": None})
    yield "label 100 of 100 classes", pickle.dumps({**entry, "fine_labels": [100, *entry["fine_labels"][1:]]})


def test_a_damaged_cifar_file_is_named(tmp_path):
    path = tiny.cifar100(tmp_path) / "cifar-100-python/train"
    for message, content in damage_cifar(path):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} .*{message}"):
            data.find("cifar100")(0, root=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        data.find("cifar100")(0, root=tmp_path)


def test_damaged_names_of_classes_are_named(tmp_path):
    meta = tiny.cifar100(tmp_path) / "cifar-100-python/meta"
    tiny.pickled(meta, {"fine_label_names": [1, 2]})
    with pytest.raises(DataError, match=f"{meta} is damaged: no list of names"):
        data.find("cifar100")(0, root=tmp_path)


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


class Rebuilt:
    """Pickles as an array of these parts, whatever they are."""

    def __init__(self, *state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        rebuild, arguments, _ = np.zeros(1, np.uint8).__reduce__()
        return rebuild, arguments, self.state


@pytest.mark.parametrize(
    "state",
    [
        (1, (10**9, 3072), np.dtype(np.uint8), False, b"few"),
        (1, (-1, 3072), np.dtype(np.uint8), False, b""),
        (1, (1, 3), np.dtype(object), False, [1, 2, 3]),
        (1, (1, 3), np.dtype(np.int64), False, b"abc"),
        (1, (1, 10**12), np.dtype(np.uint8), False, 10**12),
        (1, "shape", np.dtype(np.uint8), False, b"abc"),
    ],
)
def test_arrays_that_do_not_hold_their_bytes_are_refused(tmp_path, state):
    path = tiny.cifar100(tmp_path) / "cifar-100-python/train"
    path.write_bytes(pickle.dumps({"data": Rebuilt(*state), "fine_labels": [0]}, protocol=2))
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        data.find("cifar100")(0, root=tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_cannot_run_code(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = tiny.cifar100(tmp_path) / "cifar-100-python/train"
    tiny.pickled(path, {"data": Attack()}, protocol)
    with pytest.raises(DataError, match=f"{path} .*it asks for 'posix.system', no part of a CIFAR file"):
        data.find("cifar100")(0, root=tmp_path)
    assert not (tmp_path / "attacked").exists()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4), cifar=st.booleans())
def test_any_damage_is_a_data_error_or_unseen(tmp_path, changes, cifar):
    """Flipped pixels cannot be noticed; what is noticed must not escape as some other error."""
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    if cifar:
        path = tiny.cifar100(tmp_path / "set", train=2, test=2) / "cifar-100-python/train"
    else:
        path = tiny.mnist(tmp_path / "set", 2, 2, suffix="") / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    for place, value in changes:
        # Formats begin and end with what matters.
        near = int(place * 400)
        content[near if near < 200 else near - 400] = value
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        data.find("cifar100" if cifar else "mnist")(0, root=tmp_path / "set")
