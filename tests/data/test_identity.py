"""Fingerprints of files: others where the content is another one of the same size, the same for a copy."""

import shutil

import numpy as np
import pytest
from PIL import Image

from distill.data import data
from distill.data.pictures import BLOCK, file_identity
from tests.data import moves, objects, tiny
from tests.data.test_contract import SETTINGS


def negated(path):
    """Flow to the other side."""
    head, body = path.read_bytes()[:12], np.frombuffer(path.read_bytes()[12:], "<f4")
    path.write_bytes(head + (-body).tobytes())


def mirrored(path):
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def exchanged(path):
    """Classes 0 and 1 of a mask change places."""
    mask = np.array(Image.open(path))
    Image.fromarray(np.where(mask < 2, 1 - mask, mask)).save(path)


def inverted(path):
    """The last character of the file in white on black."""
    content = path.read_bytes()
    path.write_bytes(content[:-50] + bytes(255 - value for value in content[-50:]))


def write_bitmaps(root):
    """Masks as BMP files, whose size follows from height and width."""
    tiny.masks(root)
    for path in (root / "masks").iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return root


@pytest.mark.parametrize(
    ("name", "write", "files", "change"),
    [
        ("flying_chairs", moves.write_chairs, "data/*.flo", negated),
        ("flying_chairs", moves.write_chairs, "data/*.ppm", mirrored),
        ("sintel", moves.write_sintel, "training/flow/*/*.flo", negated),
        ("image_masks", write_bitmaps, "masks/*", exchanged),
        ("hwdb", tiny.gnt, "train/*", inverted),
    ],
)
def test_other_content_of_the_same_size_is_another_data_set(tmp_path, name, write, files, change):
    root = write(tmp_path / "root")

    def fingerprint(folder):
        return data.find(name)(0, root=folder, **SETTINGS[name]).fingerprint()

    before, sizes = fingerprint(root), {path: path.stat().st_size for path in root.glob(files)}
    assert fingerprint(shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)) == before
    for path in sizes:
        change(path)
    assert {path: path.stat().st_size for path in root.glob(files)} == sizes
    assert fingerprint(root) != before


@pytest.mark.parametrize("place", [0, 5 * BLOCK, -1])
def test_of_large_files_beginning_middle_and_end_count(tmp_path, place):
    path, content = tmp_path / "a.bmp", bytearray(10 * BLOCK)
    path.write_bytes(content)
    before = file_identity(tmp_path, path)
    content[place] = 1
    path.write_bytes(content)
    assert file_identity(tmp_path, path) != before


def test_pictures_elsewhere_than_in_the_root_have_an_identity(tmp_path):
    root = objects.write_coco(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    settings = SETTINGS["coco"] | {"annotations": str(root / "annotations/things_pictures.json")}
    shutil.move(root / "pictures", root / "annotations/pictures")
    for path in (root / "annotations/pictures").iterdir():
        path.rename(root / "annotations" / path.name)
    assert data.find("coco")(0, root=tmp_path / "empty", **settings).fingerprint()
