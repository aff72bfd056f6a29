"""Pictures of a folder as a finished network reads them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.image_inputs import read_inputs
from distill.data.info import DataInfo
from distill.errors import DataError

INFO = DataInfo(3, (4, 6), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("cat/a.png", (255, 0, 51)), ("cat/b.png", (0, 0, 0)), ("dog/c.png", (255, 255, 255))):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), colour).save(path)
    return tmp_path / "pictures"


def test_pictures_have_the_networks_size_and_the_order_of_their_names(folder: Path) -> None:
    images, labels = read_inputs(folder, INFO)
    assert images.shape == (3, 3, 4, 6)
    assert labels is None
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([1, 0, 0.2]))
    assert images[2].min() == 1


def test_blue_first_less_a_mean_times_a_scale_as_caffe_has_it(folder: Path) -> None:
    mean, scale = np.array([104, 117, 123]), 0.017
    info = replace(INFO, mean=tuple(mean / 255), std=(1 / (255 * scale),) * 3)
    expected = torch.tensor((np.array([51, 0, 255]) - mean) * scale).float()
    torch.testing.assert_close(read_inputs(folder, info, order="bgr").images[0, :, 2, 3], expected)


@pytest.mark.parametrize("preprocessing", [{}, {"mode": "RGB"}, {"resize": 4}, {"resize": 4, "crop": [4, 6]}])
def test_pictures_of_several_sizes_fill_one_batch(folder: Path, preprocessing: dict) -> None:
    Image.new("RGB", (30, 9), (255, 255, 255)).save(folder / "wide.png")
    assert read_inputs(folder, replace(INFO, preprocessing=preprocessing)).images.shape == (4, 3, 4, 6)


def test_grey_networks_read_grey(folder: Path) -> None:
    images = read_inputs(folder, replace(INFO, channels=1, mean=(0.0,), std=(1.0,))).images
    assert images.shape == (3, 1, 4, 6)
    assert images[1].max() == 0


def test_folders_are_classes_in_the_order_of_their_names(folder: Path) -> None:
    labels = read_inputs(folder, INFO, labels="folders").labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]


def test_folders_are_the_networks_classes_where_it_names_them(folder: Path) -> None:
    info = replace(INFO, class_names=("bird", "dog", "cat"))
    labels = read_inputs(folder, info, labels="folders").labels
    assert labels is not None
    assert labels.tolist() == [2, 2, 1]
    with pytest.raises(DataError, match=r"the network has no class 'dog'. Did you mean 'dot'\? There are: cat, dot"):
        read_inputs(folder, replace(INFO, class_names=("cat", "dot")), labels="folders")


def test_what_notebooks_and_macos_leave_behind_is_passed_over(folder: Path) -> None:
    for name in ("cat/.ipynb_checkpoints/a.png", ".ipynb_checkpoints/a.png", "cat/._a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    labels = read_inputs(folder, INFO, labels="folders").labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1]


def test_a_list_of_labels_as_caffe_has_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog/c.png 7\ncat/a.png 2\n\ncat/b.png 3\n")
    labels = read_inputs(folder, INFO, labels=str(tmp_path / "labels.txt")).labels
    assert labels is not None
    assert labels.tolist() == [2, 3, 7]


def test_a_limit_spreads_evenly(folder: Path) -> None:
    assert torch.equal(read_inputs(folder, INFO, limit=2).images, read_inputs(folder, INFO).images[[0, 1]])


@pytest.mark.parametrize(
    ("lines", "message"),
    [("cat/a.png 2\n", "no line for 'cat/b.png'"), ("cat/a.png two", "line 1: 'cat/a.png two' is not of the form")],
)
def test_lists_that_are_wrong(folder: Path, tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "labels.txt").write_text(lines)
    with pytest.raises(DataError, match=message):
        read_inputs(folder, INFO, labels=str(tmp_path / "labels.txt"))


def test_folders_that_hold_nothing_to_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_inputs(tmp_path / "missing", INFO)
    with pytest.raises(DataError, match="reads 4 channels"):
        read_inputs(folder, replace(INFO, channels=4))
    Image.new("RGB", (4, 4)).save(folder / "loose.png")
    with pytest.raises(DataError, match=r"loose.png lies in no folder of a class"):
        read_inputs(folder, INFO, labels="folders")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        read_inputs(tmp_path / "empty", INFO)
