"""Pictures and masks: augmented together, and named where they do not fit."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import data
from distill.errors import DataError, RecipeError
from tests.data import tiny

NAMES = ["sky", "sea", "land"]


def make(root, seed=0, **settings):
    usual = {"classes": NAMES, "image_size": 32, "batch_size": 4, "workers": 0}
    return data.find("image_masks")(seed, root=root, **usual | settings)


def agreement(module, batch) -> float:
    """Share of pixels whose colour is what tiny.masks paints for their class."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (module.info.mean, module.info.std))
    colour = 255 * (batch.inputs * std + mean).mean(1)
    painted = torch.where(batch.labels == 255, 255, 50 * batch.labels)
    return ((colour - painted).abs() < 15).float().mean().item()


def test_masks_go_along_with_their_pictures(tmp_path):
    module = make(tiny.masks(tmp_path), smallest_crop=0.2)
    for epoch in range(3):
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            assert (batch.labels.dtype, batch.labels.shape) == (torch.int64, (4, 32, 32))
            assert set(batch.labels.unique().tolist()) <= {0, 1, 2, 255}
            assert agreement(module, batch) > 0.75  # pictures are smoothed at edges, masks are not
    for batch in module.test_dataloader():
        assert agreement(module, batch) > 0.75


def test_without_crop_and_flip_training_sees_what_evaluation_sees(tmp_path):
    module = make(tiny.masks(tmp_path), crop=False, flip=False)
    plain = {s: label for batch in module.calibration(20) for s, label in zip(batch.sample.tolist(), batch.labels)}
    for batch in module.train_dataloader():
        for sample, label in zip(batch.sample.tolist(), batch.labels, strict=True):
            assert torch.equal(label, plain[sample])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_their_pictures_are(tmp_path, orientation):
    tiny.masks(tmp_path)
    tags = Image.Exif()
    tags[0x0112] = orientation
    for path in tmp_path.glob("*/*.png"):
        Image.open(path).copy().save(path, exif=tags)
    for batch in make(tmp_path).test_dataloader():
        assert agreement(make(tmp_path), batch) > 0.75


def test_palettes_and_bits_are_numbers_of_classes(tmp_path):
    tiny.masks(tmp_path)
    expected = {s: x for b in make(tmp_path).calibration(20) for s, x in zip(b.sample.tolist(), b.labels)}
    for path in (tmp_path / "masks").iterdir():
        mask = Image.open(path)
        palette = Image.fromarray(np.asarray(mask), mode="P")
        palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        palette.save(path)
    found = {s: x for b in make(tmp_path).calibration(20) for s, x in zip(b.sample.tolist(), b.labels)}
    assert all(torch.equal(found[sample], expected[sample]) for sample in expected)


def test_splits_of_its_own_are_used(tmp_path):
    for part, samples in {"train": 8, "val": 4, "test": 5}.items():
        tiny.masks(tmp_path / part, samples)
    module = make(tmp_path)
    assert [len(source) for source in (module.train, module.val, module.test)] == [8, 4, 5]
    shutil.rmtree(tmp_path / "val")
    module = make(tmp_path, val=0.25)
    assert [len(source) for source in (module.train, module.val, module.test)] == [6, 2, 5]


def test_the_test_set_is_held_out_first(tmp_path):
    module = make(tiny.masks(tmp_path), test=0.2, val=0.25, limit=12)
    assert [len(source) for source in (module.train, module.val, module.test)] == [9, 3, 4]
    positions = [set(source.chosen.tolist()) for source in (module.train, module.val, module.test)]
    assert len(set.union(*positions)) == 16
    assert set(make(tmp_path, test=0.2).test.chosen.tolist()) == positions[2]


def turned(mask):
    """The picture and its mask lie on one side, which an Exif tag says of the picture alone."""
    tags = Image.Exif()
    tags[0x0112] = 6
    for path, settings in ((mask.parents[1] / "images/7.png", {"exif": tags}), (mask, {})):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, **settings)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda mask: mask.write_bytes(mask.read_bytes()[:60]), "is no readable mask"),
        (
            lambda mask: Image.new("L", (9, 9)).save(mask),
            r"images/7.png is of 48x40 pixels, but .*/masks/7.png is of 9x9\Z",
        ),
        (lambda mask: Image.new("L", (48, 40), 3).save(mask), "class 3 of 3; pixels without a class are 255"),
        (
            lambda mask: Image.new("L", (48, 40), 255).save(mask),
            r"masks/7.png: no pixel has a class, all are 255; remove",
        ),
        (turned, "images/7.png is of 48x40 .*/masks/7.png is of 40x48, its size without its Exif orientation"),
        (
            lambda mask: shutil.copy(mask, mask.with_suffix(".BMP")),
            r"masks/7.BMP and .*/masks/7.png have one name; remove",
        ),
        (
            lambda mask: shutil.copy(mask, mask.parents[1] / "images/7.tif"),
            r"images/7.png and .*/images/7.tif have one name",
        ),
        (lambda mask: Image.new("RGB", (48, 40)).save(mask), "is of mode RGB: a mask holds one number a pixel"),
        (lambda mask: mask.unlink(), r"images/7.png has no mask of its name"),
    ],
)
def test_what_does_not_fit_is_named_before_training(tmp_path, damage, message):
    damage(tiny.masks(tmp_path) / "masks/7.png")
    with pytest.raises(DataError, match=message):
        make(tmp_path)


def test_impossible_classes_are_refused(tmp_path):
    for classes in (["sky"], ["sky", "sky"], [str(number) for number in range(256)]):
        with pytest.raises(RecipeError, match=r"data\.classes=.*2 to 255 different names"):
            make(tiny.masks(tmp_path / str(len(classes)), 2), classes=classes)


def test_folders_that_are_missing_are_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/none \(data.root\) is no folder"):
        make(tmp_path / "none")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path} should hold 'images' and 'masks'"):
        make(tmp_path)


@pytest.mark.parametrize("split", [False, True])
def test_masks_of_0_and_255_are_refused_in_every_run(tmp_path, split):
    """255 is how many programs write an object, and it would leave every object out."""
    for part in ("train", "test") if split else ("",):
        for path in (tiny.masks(tmp_path / part) / "masks").iterdir():
            mask = np.array(Image.open(path))
            Image.fromarray(np.where(mask % 255 > 0, 255, 0).astype(np.uint8)).save(path)
    for _ in range(2):
        with pytest.raises(DataError, match=r"training masks hold one class alone, 'sky'; pixels of 255 have no class"):
            make(tmp_path)


def test_a_class_in_no_training_mask_is_said_in_every_run(tmp_path, caplog):
    tiny.masks(tmp_path / "train", classes=2)
    tiny.masks(tmp_path / "test", classes=3)
    for _ in range(2):
        make(tmp_path)
        assert "1 of the 3 classes are in no training mask, 'land' among them" in caplog.text
        caplog.clear()
