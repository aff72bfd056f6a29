"""CASIA's .gnt files: read as written, and named when damaged."""

import re
import struct

import numpy as np
import pytest

from distill.data import data
from distill.errors import DataError
from tests.data import tiny


def make(root, **settings):
    return data.find("hwdb")(0, root=root, **{"image_size": 16, "batch_size": 4, "workers": 0, **settings})


def test_characters_are_read_as_written(tmp_path):
    module = make(tiny.gnt(tmp_path), val=0.0)
    assert module.info.class_names == tuple(sorted(tiny.CHARACTERS))
    reader = module.train.reader
    for position, (character, pixels) in enumerate(tiny.handwriting(40)):
        (picture,), label = reader.read(position)
        assert module.info.class_names[label] == character
        height, width = pixels.shape
        side = max(height, width)
        assert picture.size == (side, side)
        top, left = round((side - height) / 2), round((side - width) / 2)
        square = np.full((side, side), 255, np.uint8)
        square[top : top + height, left : left + width] = pixels
        assert np.array_equal(picture, square)


def test_casia_s_own_folders_and_several_files(tmp_path):
    tiny.gnt(tmp_path)
    (tmp_path / "train").rename(tmp_path / "HWDB1.1trn_gnt")
    (tmp_path / "HWDB1.1trn_gnt/second.gnt").write_bytes((tmp_path / "HWDB1.1trn_gnt/001.gnt").read_bytes())
    module = make(tmp_path, val=0.25)
    assert [len(source) for source in (module.train, module.val, module.test)] == [60, 20, 20]


def test_codes_of_one_byte_and_endings_in_upper_case_are_read(tmp_path):
    tiny.gnt(tmp_path)
    (tmp_path / "train/002.GNT").write_bytes(struct.pack("<I2sHH", 22, b"A\0", 4, 3) + bytes(12))
    module = make(tmp_path, val=0.0)
    assert module.info.class_names == ("A", *sorted(tiny.CHARACTERS))
    assert len(module.train) == 41


def damaged():
    head = struct.pack("<I2sHH", 10 + 12, "一".encode("gbk"), 4, 3)
    yield head[:7], "it ends within a header"
    yield head + bytes(11), "a record of 22 bytes for 4x3 pixels"
    yield (
        struct.pack("<I2sHH", 2**32 - 1, b"\xd2\xbb", 65535, 65535),
        "a record of 4294967295 bytes for 65535x65535 pixels",
    )
    yield struct.pack("<I2sHH", 10, b"\xd2\xbb", 0, 3), "a record of 10 bytes for 0x3 pixels"
    for code in (b"\xff\xff", b"\0\0", b"AB", b"\0A", b"\x07\0", b" \0", b"\xa1\xa1"):
        message = re.escape(f"{code.rstrip(bytes(1))!r} is no character of GBK")
        yield struct.pack("<I2sHH", 22, code, 4, 3) + bytes(12), message


@pytest.mark.parametrize(("content", "message"), list(damaged()))
def test_a_damaged_file_is_named_with_the_place(tmp_path, content, message):
    path = tiny.gnt(tmp_path) / "train/001.gnt"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + content)
    with pytest.raises(
        DataError, match=f"{path} is damaged at byte {size}: {message}.*; unpack the file again, or remove it"
    ):
        make(tmp_path)


def test_what_is_missing_or_unknown_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no .gnt files in 'train' or 'HWDB1.1trn_gnt'"):
        make(tmp_path)
    path = tiny.gnt(tmp_path) / "test/001.gnt"
    path.write_bytes(path.read_bytes() + struct.pack("<I2sHH", 22, "丁".encode("gbk"), 4, 3) + bytes(12))
    with pytest.raises(DataError, match=f"{path}: '丁' is no character of the training set"):
        make(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        make(tmp_path)


def test_a_single_character_is_refused(tmp_path):
    tiny.gnt(tmp_path, train=1)
    with pytest.raises(
        DataError, match=f"{tmp_path}/train holds one character, '啊': classification needs at least two"
    ):
        make(tmp_path)
