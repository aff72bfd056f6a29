"""VOC's files and lists: named where they are impossible."""

import pytest

from distill.errors import DataError, RecipeError
from tests.data.objects import write_voc
from tests.data.test_boxes import voc


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>square</name>", "<name>cube</name>", r"object \d is a 'cube', which is none of data\.classes"),
        ("<xmax>", "<xmax>9", r"object 0: box \(.*, 9\d+, .*\) leaves its image of 80x60"),
        ("<width>80</width>", "", "is not of VOC's form"),
        ("<xmin>", "<xmin>x", "is not of VOC's form"),
        ("</annotation>", "", "is not of VOC's form"),
        (
            "<annotation>",
            "<?xml version='1.0' encoding='klingon'?><annotation>",
            "is not of VOC's form .unknown encoding",
        ),
        ("<difficult>1", "<difficult>true", "'difficult' of an object 'square' is 'true', not 0 or 1"),
        ("<difficult>1", "<difficult>2", "'difficult' of an object 'square' is '2', not 0 or 1"),
    ],
)
def test_impossible_voc_files_are_named(tmp_path, old, new, message):
    path = write_voc(tmp_path) / "Annotations/000001.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=f"{path}.*{message}"):
        voc(tmp_path)


def test_missing_voc_files_are_named(tmp_path):
    with pytest.raises(DataError, match="ImageSets/Main/other.txt cannot be read"):
        voc(write_voc(tmp_path), train_list="other")
    with pytest.raises(DataError, match="cannot be read .embedded null byte.; name the list with data.train_list"):
        voc(tmp_path, train_list="a\0")
    with pytest.raises(RecipeError, match="a name is there twice"):
        voc(tmp_path, classes=["disc", "disc"])
    (tmp_path / "Annotations/000001.xml").unlink()
    with pytest.raises(DataError, match=r"Annotations/000001.xml: No such file"):
        voc(tmp_path)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "000000  1\n000001 -1\n",
            r"'000000  1' is not the name of one picture; the lists of single classes hold flags",
        ),
        ("000000\n000001\0\n", r"'000001\\x00' is not the name of one picture"),
        ("000000\n000001\n000000\n", "names '000000' more than once"),
        ("\n", "names no pictures"),
        ("000004\n000009\n", "its pictures hold no objects; a detector needs some to find"),
        ("000004\n000001\n", "its pictures hold no objects but crowds and difficult ones"),
    ],
)
def test_impossible_lists_of_voc_are_named(tmp_path, listed, message):
    path = write_voc(tmp_path) / "ImageSets/Main/val.txt"
    path.write_text(listed)
    with pytest.raises(DataError, match=f"{path}:? {message}"):
        voc(tmp_path)


def test_lists_of_voc_may_begin_with_a_byte_order_mark(tmp_path):
    path = write_voc(tmp_path) / "ImageSets/Main/val.txt"
    path.write_text("000016\n", encoding="utf-8-sig")
    assert [file.stem for file in voc(tmp_path).test.reader.files] == ["000016"]


def test_names_in_lists_of_voc_may_end_in_spaces(tmp_path):
    path = write_voc(tmp_path) / "ImageSets/Main/val.txt"
    path.write_bytes(b" 000016 \r\n\r\n000017\t\n")
    assert [file.stem for file in voc(tmp_path).test.reader.files] == ["000016", "000017"]
