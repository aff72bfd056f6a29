"""Generated scenes and pairs: exact labels, the same in every run, nothing of the test set in training."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import data
from distill.data._generated import train_and_test
from distill.data._photographs import MOST, PACKAGES, SIDE, collected
from distill.errors import DataError, RecipeError
from tests.data import tiny

SMALL = {"samples": 20, "test_samples": 12, "batch_size": 4, "workers": 0}


def scenes(seed=0, **settings):
    return data.find("fashion_scenes")(seed, **{"articles": "digits", "image_size": 64, **SMALL, **settings})


def cutouts(seed=0, **settings):
    return data.find("flying_cutouts")(seed, **{"image_size": 64, **SMALL, **settings})


@pytest.mark.parametrize("make", [scenes, cutouts])
def test_samples_are_the_same_for_every_seed_and_in_every_run(make):
    first, other = make(0), make(1)
    assert first.fingerprint() == other.fingerprint()
    for position in range(3):
        samples = [module.test.reader.read(position) for module in (first, other)]
        assert samples[0].pictures[0].tobytes() == samples[1].pictures[0].tobytes()
    differing = {make(objects=2).fingerprint(), make(image_size=32).fingerprint(), first.fingerprint()}
    assert len(differing) == 3


def test_a_box_is_the_outline_of_its_article():
    """The box of a scene of one article against its mask, which is drawn by other means than the box is computed."""
    boxes, masks = scenes(objects=1), scenes(objects=1, labels="masks")
    for position in range(20):
        label = boxes.train.reader.read(position).label
        mask = masks.train.reader.read(position).label.numpy()
        rows, columns = np.nonzero(mask)
        assert label["boxes"].tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
        assert set(mask[mask > 0].tolist()) == {int(label["labels"][0]) + 1}
    assert masks.info.class_names == ("background", *boxes.info.class_names)


def test_articles_are_of_the_classes_that_are_named():
    """Sevens alone look like sevens among all digits, by the pixels that are drawn."""
    sevens, digits = scenes(classes=["7"]), scenes()
    assert sevens.info.class_names == ("7",)
    assert sevens.info.num_classes == 1
    labels = torch.cat([sevens.train.reader.read(position).label["labels"] for position in range(18)])
    assert labels.unique().tolist() == [0]
    drawn = sevens.train.reader.make.articles.images
    known = digits.train.reader.make.articles
    assert torch.equal(drawn, known.images[known.classes == 7])
    swapped = scenes(classes=["3", "1"], labels="masks")
    assert swapped.info.class_names == ("background", "3", "1")
    assert swapped.fingerprint() != scenes(classes=["1", "3"], labels="masks").fingerprint()


@pytest.mark.parametrize(
    ("classes", "fault"),
    [(["seven"], "data.classes: seven is not one of 0, 1, 2"), (["1", "1"], "data.classes: 1 is named twice")],
)
def test_unknown_classes_of_articles_are_named(classes, fault):
    with pytest.raises(RecipeError, match=fault):
        scenes(classes=classes)


def test_scenes_hold_as_many_articles_as_asked_for_that_overlap_little():
    module = scenes(objects=4, samples=60)
    labels = [module.train.reader.read(position).label for position in range(54)]
    counts = {len(label["boxes"]) for label in labels}
    assert counts == {1, 2, 3, 4}
    for label in labels:
        left, top, right, bottom = label["boxes"].unbind(1)
        width = torch.minimum(right[:, None], right) - torch.maximum(left[:, None], left)
        height = torch.minimum(bottom[:, None], bottom) - torch.maximum(top[:, None], top)
        shared, area = width.clamp(0) * height.clamp(0), (right - left) * (bottom - top)
        overlap = shared / (area[:, None] + area - shared)
        assert overlap.fill_diagonal_(0).max() <= 0.25


def test_flow_of_cutouts_is_exact():
    """The second picture, looked up where the flow says, is the first one but for what is hidden in one of them."""
    module = cutouts(objects=2, motion=0.08)
    differences, wrong = [], []
    for batch in module.test_dataloader():
        first, second = batch.inputs.split(3, dim=1)
        size = first.shape[-1]
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        for sign, found in ((1, differences), (-1, wrong)):
            flow = sign * batch.labels["flow"]
            at = torch.stack([2 * (x + flow[:, 0] + 0.5) / size - 1, 2 * (y + flow[:, 1] + 0.5) / size - 1], -1)
            inside = (at.abs() < 0.9).all(-1)
            there = torch.nn.functional.grid_sample(second, at, align_corners=False)
            found.append((there - first).abs().mean(1)[inside])
    exact, mirrored = torch.cat(differences), torch.cat(wrong)
    assert exact.median() < 0.01  # half a grey level of 127.5 is 0.004
    assert exact.mean() < mirrored.mean() / 3


def test_photographs_of_the_test_set_are_not_those_of_the_training_set(tmp_path):
    train, test = train_and_test("scikit-learn")
    assert [photo.size for photo in train] == [(426, 427), (426, 427)]
    assert [photo.size for photo in test] == [(214, 427), (214, 427)]
    tiny.plain_pictures(tmp_path / "photos", 20)
    train, test = train_and_test(tmp_path / "photos")
    assert (len(train), len(test)) == (17, 3)
    assert not {photo.tobytes() for photo in train} & {photo.tobytes() for photo in test}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty \(data.root\) holds no pictures"):
        train_and_test(tmp_path / "empty")


def test_of_a_large_folder_pictures_from_all_over_are_used_and_their_number_said(tmp_path, caplog):
    for number in range(2 * MOST + 1):
        Image.new("RGB", (16, 16), (number // 256, number % 256, 0)).save(tmp_path / f"{number:03}.bmp")
    caplog.set_level("INFO", logger="distill")
    numbers = [256 * red + green for red, green, _ in (photo.getpixel((0, 0)) for photo in collected(tmp_path))]
    assert len(numbers) == MOST
    assert (numbers[0], numbers[-1]) == (0, 2 * MOST - 2)
    assert {after - before for before, after in pairwise(numbers)} <= {2, 3}
    assert f"{MOST} of the {2 * MOST + 1} pictures in {tmp_path} are used" in caplog.text


@pytest.mark.parametrize("name", ["flying_cutouts", "fashion_scenes", "photo_crops"])
def test_folders_without_photographs_that_can_be_cut_are_named(tmp_path, name):
    root, make = tmp_path / "photos", data.find(name)
    with pytest.raises(DataError, match=rf"{root} \(data.root\) is no folder"):
        make(0, root=root)
    root.mkdir()
    for size in ((1, 1), (15, 400), (400, 15)):
        Image.new("RGB", size).save(root / "a.png")
        with pytest.raises(
            DataError, match=rf"a.png is of {size[0]}x{size[1]} pixels: too small .* at least 16; remove"
        ):
            make(0, root=root)
    Image.new("RGB", (16, 16), "teal").save(root / "a.png")
    articles = {"articles": "digits"} if name == "fashion_scenes" else {}
    module = make(0, root=root, image_size=32, **SMALL, **articles)
    for batch in (*module.train_dataloader(), *module.test_dataloader()):
        assert batch.inputs.isfinite().all()


def test_photographs_of_packages_are_reduced_and_a_missing_package_is_named(tmp_path):
    for package in PACKAGES:
        file = tmp_path / PACKAGES[package][0].replace("*", "x")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2560, 1600), "teal").save(file)
    assert {photo.size for photo in collected("debian", tmp_path)} == {(768, SIDE), (640, 427)}
    assert len(collected("debian", tmp_path)) == len(PACKAGES) + 2
    next((tmp_path / "wallpapers").rglob("*.jpg")).unlink()
    with pytest.raises(DataError, match="not installed: apt install plasma-workspace-wallpapers$"):
        collected("debian", tmp_path)


def test_photographs_are_part_of_the_fingerprint(tmp_path):
    tiny.plain_pictures(tmp_path / "photos", 4)
    before = scenes(root=tmp_path / "photos").fingerprint()
    assert scenes().fingerprint() != before
    Image.new("RGB", (50, 50)).save(tmp_path / "photos/0.png")
    assert scenes(root=tmp_path / "photos").fingerprint() != before


@pytest.mark.parametrize("make", [scenes, cutouts])
def test_pictures_too_small_are_refused(make):
    with pytest.raises(RecipeError, match=r"data.image_size=15: .* at least 16 pixels"):
        make(image_size=15)
