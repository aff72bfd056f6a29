"""Folders of pictures as they are found on disks: links, loops, names of other encodings, damaged files."""

import os

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as Reference

from distill.data import data
from distill.data._scan import check_pictures, pictures_below
from distill.errors import DataError, RecipeError
from tests.data import tiny

folder = data.find("image_folder")


@pytest.fixture
def root(tmp_path):
    return tiny.pictures(tmp_path / "root")


def make(root, **settings):
    return folder(0, root=root, **{"image_size": 16, "batch_size": 4, "workers": 0, **settings})


def test_pictures_come_in_the_order_of_torchvision(root):
    """Splits and views depend on positions, so the order is part of what a seed means."""
    for name in ("train/cat/b/1.jpg", "train/cat/a.b/2.jpg", "train/cat/a/B.JPG", "train/dog/x.jpeg"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    (root / "train/cat/notes.txt").write_text("no picture")
    reader = make(root).train.reader
    expected = Reference(root / "train").samples
    assert list(zip(map(str, reader.files), reader.classes.tolist(), strict=True)) == expected


def test_links_to_files_and_folders_are_followed(root, tmp_path):
    tiny.plain_pictures(tmp_path / "elsewhere", 4)
    (root / "train/cat/link.png").symlink_to(tmp_path / "elsewhere/0.png")
    (root / "train/cat/more").symlink_to(tmp_path / "elsewhere")
    assert len(make(root, val=0.0).train) == 10 + 1 + 4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.jpg", r"cat/link\.jpg is a link that cannot be followed \(No such file or directory\); remove it"),
        ("link.jpg", r"cat/link\.jpg is a link that cannot be followed \(Too many levels of symbolic links\)"),
        ("../../train", r"is a link back to a folder that it is in; remove it"),
        (".", r"cat/link\.jpg is a link back to a folder that it is in"),
    ],
)
def test_links_that_lead_nowhere_or_back_are_named(root, target, message):
    (root / "train/cat/link.jpg").symlink_to(target)
    with pytest.raises(DataError, match=message):
        make(root)


@pytest.mark.parametrize("name", ["train/fox", "test"])
def test_a_class_or_a_split_that_is_a_link_to_nowhere_is_named(root, name):
    (root / name).symlink_to("/nowhere")
    with pytest.raises(
        DataError, match=rf"{root}/{name} is a link that cannot be followed \(No such file .*; remove it"
    ):
        make(root)


def test_a_split_of_unlabelled_pictures_that_is_a_link_to_nowhere_is_named(tmp_path):
    for part in ("train", "test"):
        tiny.plain_pictures(tmp_path / part)
    (tmp_path / "val").symlink_to("/nowhere")
    with pytest.raises(DataError, match=rf"{tmp_path}/val is a link that cannot be followed"):
        data.find("pictures")(0, root=tmp_path, image_size=16, workers=0)


def test_a_class_whose_name_is_not_utf_8_is_named(root):
    (root / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match=r"train/caf\\xe9: the name of this folder is not UTF-8; rename it") as captured:
        make(root)
    str(captured.value).encode()


def test_a_file_whose_name_is_not_utf_8_is_read_and_can_be_named(root):
    path = (root / "train/cat/0.jpg").rename(root / "train/cat" / os.fsdecode(b"caf\xe9.jpg"))
    module = make(root)
    module.fingerprint()
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cat/caf\\xe9.jpg is no readable picture") as captured:
        make(root)
    str(captured.value).encode()


def test_a_single_class_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train holds one class folder, 'cat': classification needs at least two"):
        make(tiny.pictures(tmp_path / "one", classes=("cat",)))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_damaged_header_is_found_before_training(root, part):
    (root / part / "dog/3.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=rf"{root}/{part}/dog/3\.jpg is no readable picture"):
        make(root)


def cut(path, suffix="jpg"):
    """A picture of noise whose file ends too early, but whose header is there."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(path.with_suffix(f".{suffix}"))
    path.with_suffix(f".{suffix}").write_bytes(path.with_suffix(f".{suffix}").read_bytes()[:-1500])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_picture_that_is_cut_off_is_found_before_training(root, suffix):
    (root / "val/dog/3.jpg").unlink()
    cut(root / "val/dog/3.jpg", suffix)
    with pytest.raises(DataError, match=rf"val/dog/3\.{suffix} is no readable picture"):
        make(root)


def test_what_programs_write_behind_a_whole_picture_does_no_harm(root):
    whole = (root / "val/dog/3.jpg").read_bytes()
    for behind in (b"\0" * 100, b"\0" * 5000):
        (root / "val/dog/3.jpg").write_bytes(whole + behind)
        make(root)


def test_an_animation_is_found_before_training(root):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(root / "val/dog/x.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"x\.webp holds 2 frames, not one picture"):
        make(root)


def test_headers_are_read_once_while_files_stay_as_they_are(root, monkeypatch):
    files, read = pictures_below(root), []
    monkeypatch.setattr("distill.data._scan.check_picture", read.append)
    check_pictures(files)
    assert sorted(read) == sorted(files)
    check_pictures(files)
    assert len(read) == len(files)
    Image.new("RGB", (9, 9)).save(files[0])
    check_pictures(files)
    assert len(read) == 2 * len(files)


def test_a_home_that_cannot_be_written_is_no_error(root, tmp_path):
    (tmp_path / "home").write_text("a file where a folder should be")
    assert len(make(root).test) == 10


def test_an_unlabelled_folder_is_split_once_and_for_all(tmp_path):
    tiny.plain_pictures(tmp_path / "plain")
    settings = {"root": tmp_path / "plain", "image_size": 16, "workers": 0, "val": 0.25, "test": 0.2}
    module, other = (data.find("pictures")(seed, **settings) for seed in (0, 1))
    assert [len(source) for source in (module.train, module.val, module.test)] == [12, 4, 4]
    assert module.fingerprint() == other.fingerprint()
    assert [batch.labels for batch in module.train_dataloader()] == [None]
    with pytest.raises(RecipeError, match=r"data\.test=0\.0 of 20 samples"):
        data.find("pictures")(0, **settings | {"test": 0.0})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty \(data.root\) holds no pictures to train with"):
        data.find("pictures")(0, **settings | {"root": tmp_path / "empty"})
