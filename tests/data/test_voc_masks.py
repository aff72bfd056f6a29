"""VOC's masks: read as torchvision reads them, and named where they are damaged."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCSegmentation

from distill.data import data
from distill.errors import DataError, RecipeError
from tests.data.tiny import voc_masks

NAMES = ["disc", "square"]


def make(root, **settings):
    usual = {"classes": NAMES, "image_size": 48, "batch_size": 4, "workers": 0}
    return data.find("voc_masks")(0, root=root, **usual | settings)


def test_masks_are_those_that_torchvision_reads(tmp_path):
    root = voc_masks(tmp_path / "VOCdevkit" / "VOC2012")
    module = make(root)
    assert module.info.class_names == ("background", *NAMES)
    reference = VOCSegmentation(str(tmp_path), image_set="val")
    assert len(module.test) == len(reference) == 5
    for position, (picture, mask) in enumerate(reference):
        read = module.test.reader.read(position)
        assert read.pictures[0].tobytes() == picture.tobytes()
        np.testing.assert_array_equal(np.asarray(read.label), np.asarray(mask))
    for batch in module.test_dataloader():
        assert (batch.labels.dtype, batch.labels.shape[1:]) == (torch.int64, (48, 48))
        assert set(batch.labels.unique().tolist()) <= {0, 1, 2, 255}


def test_a_mask_of_another_size_or_class_is_named(tmp_path):
    root = voc_masks(tmp_path)
    mask = root / "SegmentationClass" / "000003.png"
    Image.new("L", (20, 20)).save(mask)
    with pytest.raises(DataError, match=r"000003\.jpg is of 80x60 pixels, but .*000003\.png is of 20x20"):
        make(root)
    Image.new("L", (80, 60), 7).save(mask)
    with pytest.raises(DataError, match=r"000003\.png: class 7 of 3"):
        make(root)
    mask.unlink()
    with pytest.raises(DataError, match=r"000003\.png"):
        make(root)


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Segmentation.nowhere\.txt cannot be read"):
        make(voc_masks(tmp_path), test_list="nowhere")


def test_a_class_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="different names"):
        make(voc_masks(tmp_path), classes=["background", "disc"])


@pytest.mark.parametrize(("name", "known"), [("voc", 20), ("voc_masks", 20), ("fashion_scenes", 10)])
def test_no_class_at_all_is_refused(tmp_path, name, known):
    settings = {"articles": "digits"} if name == "fashion_scenes" else {"root": tmp_path}
    with pytest.raises(RecipeError, match=rf"data.classes is \[\], but must name a class: .* for all {known}$"):
        data.find(name)(0, classes=[], **settings)


def test_pictures_in_two_lists_are_said(tmp_path, caplog):
    make(voc_masks(tmp_path), test_list="train")
    assert "pictures of the 'test' split are in the 'train' split as well" in caplog.text
