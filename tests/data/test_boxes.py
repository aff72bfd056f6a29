"""COCO and VOC: boxes as they are written, augmented with their pictures, and named where they are impossible."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from distill.data import data
from distill.errors import DataError
from tests.data.objects import COLOURS, NAMES, picture, things, write_coco, write_voc


def coco(root, seed=0, **settings):
    usual = {"annotations": "annotations/things_pictures.json", "image_size": 48, "batch_size": 4, "workers": 0}
    return data.find("coco")(seed, root=root, **usual | settings)


def voc(root, seed=0, **settings):
    usual = {"classes": NAMES, "image_size": 48, "batch_size": 4, "workers": 0}
    return data.find("voc")(seed, root=root, **usual | settings)


def hits(module, batch) -> list[float]:
    """For each box, the share of its inside that has the colour of its class."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (module.info.mean, module.info.std))
    shares = []
    for inputs, target in zip(batch.inputs, batch.labels, strict=True):
        pixels = inputs * std + mean
        for box, name in zip(target["boxes"], target["labels"], strict=True):
            left, top, right, bottom = (box + torch.tensor([1, 1, -1, -1])).round().int().tolist()
            inside = pixels[:, top : max(bottom, top + 1), left : max(right, left + 1)]
            colour = torch.tensor(COLOURS[NAMES.index(module.info.class_names[name])])[:, None, None] / 255
            shares.append(((inside - colour).abs().amax(0) < 0.25).float().mean().item())
    return shares


@pytest.mark.parametrize(("write", "make"), [(write_coco, coco), (write_voc, voc)])
def test_boxes_go_along_with_their_pictures(tmp_path, write, make):
    module = make(write(tmp_path), val=0.1)
    train = module.train_dataloader()
    shares = []
    for epoch in range(4):
        train.sampler.set_epoch(epoch)
        for batch in train:
            assert len(batch.labels) == len(batch.inputs) == 4
            shares += hits(module, batch)
    for batch in module.test_dataloader():
        shares += hits(module, batch)
    assert len(shares) > 60
    assert np.mean(np.array(shares) > 0.8) > 0.95


def test_coco_is_read_as_written(tmp_path):
    module = coco(write_coco(tmp_path), val=0.0, test=0.05)
    names, reader = module.info.class_names, module.train.reader
    assert names == ("square", "disc")  # by id, whatever their order in the file
    for number in range(20):
        sample = reader.read(number)
        assert np.array_equal(sample.pictures[0], picture(number))
        written = [(*map(int, box), NAMES.index(names[label])) for box, label, _ in zip(*sample.label.values())]
        assert written == things(number)


def test_voc_is_read_as_torchvision_reads_it(tmp_path):
    root = write_voc(tmp_path / "VOCdevkit/VOC2012")
    reference = VOCDetection(tmp_path, "2012", "train")
    reader = voc(root).train.reader
    for position, (image, target) in enumerate(reference):
        sample = reader.read(position)
        assert np.array_equal(sample.pictures[0], image)
        for box, label, crowd, thing in zip(
            *sample.label.values(), target["annotation"].get("object", []), strict=True
        ):
            corners = [int(thing["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
            assert (box + torch.tensor([1, 1, 0, 0])).tolist() == corners
            assert NAMES[label] == thing["name"]
            assert int(crowd) == int(thing["difficult"])


def test_pictures_without_objects_have_empty_boxes(tmp_path):
    module = coco(write_coco(tmp_path))
    label = module.train.reader.read(4).label
    assert label["boxes"].shape == (0, 4)
    counts = {len(target["boxes"]) for batch in module.train_dataloader() for target in batch.labels}
    assert counts >= {0, 2} or counts >= {0, 1}


def test_coco_s_own_layout_needs_no_names(tmp_path):
    root = write_coco(tmp_path, folder="train2017")
    (root / "annotations/things_train2017.json").rename(root / "annotations/instances_train2017.json")
    assert len(data.find("coco")(0, root=root, workers=0).train.reader) == 20


def test_files_for_validation_and_test_are_used(tmp_path):
    root = write_coco(tmp_path, folder="images")
    written = (root / "annotations/things_images.json").read_text()
    for name in ("val", "test"):
        (root / f"annotations/{name}.json").write_text(written)
    settings = {"val_annotations": "annotations/val.json", "test_annotations": "annotations/test.json"}
    settings["annotations"] = "annotations/things_images.json"
    module = coco(root, **settings)
    assert [len(source) for source in (module.train, module.val, module.test)] == [20, 20, 20]
    (root / "annotations/val.json").write_text(written.replace('"disc"', '"circle"'))
    with pytest.raises(DataError, match=r"val.json and .*things_images.json have other categories"):
        coco(root, **settings)


def set_in(section, position, **values):
    return lambda content: content[section][position].update(values)


def crowds_alone(content):
    for entry in content["annotations"]:
        entry["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_in("annotations", 3, bbox=[70, 10, 20, 10]),
            r"annotation 3: box \(70, 10, 90, 20\) leaves its image of 80x60",
        ),
        (set_in("annotations", 3, bbox=[-9, 10, 20, 10]), r"annotation 3: box \(-9, 10, 11, 20\) leaves its image"),
        (
            set_in("annotations", 3, bbox=[9, 10, 0, 10]),
            r"annotation 3: box .* is empty; correct it or set data.invalid",
        ),
        (set_in("annotations", 3, bbox=[9, 10, float("nan"), 10]), "annotation 3: box .* leaves its image"),
        (set_in("annotations", 3, bbox=[9, 10]), "annotation 3 has no 'bbox' of left, top, width and height"),
        (set_in("annotations", 3, bbox="9"), "annotation 3 has no 'bbox'"),
        (set_in("annotations", 3, category_id=5), "annotation 3 is of category 5, which the file does not list"),
        (set_in("annotations", 3, image_id=5), "annotation 3 is of image 5, which the file does not list"),
        (set_in("annotations", 3, id=2), "two entries of 'annotations' have the id 2"),
        (set_in("categories", 0, name=None), "entry 0 of 'categories' has no 'name'"),
        (set_in("categories", 0, name=""), "entry 0 of 'categories' has no 'name'"),
        (set_in("categories", 0, name=" "), "entry 0 of 'categories' has no 'name'"),
        (
            lambda content: content["categories"].append({**content["categories"][0], "id": 77}),
            "two categories have the name",
        ),
        (set_in("images", 0, file_name=3), "entry 0 of 'images' has no 'file_name'"),
        (set_in("images", 0, width="80"), "entry 0 of 'images' has no 'width'"),
        (set_in("images", 0, width=10**400), "entry 0 of 'images' has no 'width'"),
        (lambda content: content.pop("images"), "has no list 'images'"),
        (lambda content: content.update(annotations=[]), "its pictures hold no objects; a detector needs some"),
        (crowds_alone, "its pictures hold no objects but crowds and difficult ones"),
        (set_in("annotations", 3, iscrowd="0"), "annotation 3 has 'iscrowd' \"0\"; 0 or 1 is needed"),
        (set_in("annotations", 3, iscrowd=2), "annotation 3 has 'iscrowd' 2;"),
        (set_in("annotations", 3, iscrowd=1.0), r"annotation 3 has 'iscrowd' 1\.0;"),
        (set_in("annotations", 3, iscrowd=None), "annotation 3 has 'iscrowd' null;"),
        (set_in("annotations", 3, iscrowd=[]), r"annotation 3 has 'iscrowd' \[\];"),
        (set_in("annotations", 3, bbox=[9, 10, 10**400, 10]), "annotation 3 has no 'bbox'"),
        (set_in("annotations", 3, bbox=[9.0, 10, 10**400, 10]), "annotation 3 has no 'bbox'"),
        (set_in("categories", 0, name="\ud800"), "the name of category 90 is not UTF-8"),
        (set_in("images", 3, file_name="a\0.png"), "no file can be called as 'file_name' of image 116 says"),
        (set_in("images", 3, file_name="\ud800.png"), "no file can be called as 'file_name' of image 116 says"),
        (set_in("images", 3, file_name="x" * 5000), "no file can be called as 'file_name' of image 116 says"),
        (set_in("images", 19, file_name="x" * 5000), "no file can be called as 'file_name' of image 100 says"),
        (set_in("images", 3, file_name="7.png"), "images 107 and 116 have one 'file_name', '7.png'; keep one"),
        (set_in("images", 3, file_name="./7.png"), "images 107 and 116 have one 'file_name'"),
        (lambda content: content.update(images=[]), "lists 0 images"),
        (lambda content: content["images"].append([]), "entry 20 of 'images' has no 'id'"),
        (set_in("images", 0, file_name="missing.png"), "missing.png.*: No such file|'missing.png' is in none of"),
        (set_in("images", 3, file_name="missing.png"), "missing.png: No such file"),
    ],
)
def test_impossible_annotations_are_named_before_training(tmp_path, change, message):
    with pytest.raises(DataError, match=f"{tmp_path}.*{message}"):
        coco(write_coco(tmp_path, change=change))


@pytest.mark.parametrize(("written", "crowd"), [(0, 0), (1, 1), (False, 0), (True, 1)])
def test_crowds_are_marked_by_numbers_or_truth_values(tmp_path, written, crowd):
    root = write_coco(tmp_path, change=set_in("annotations", 0, iscrowd=written))
    assert coco(root).train.reader.read(0).label["iscrowd"].tolist() == [crowd, 0]


def test_boxes_that_leave_their_image_can_be_skipped_and_rounding_is_clipped(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [70, 10, 20, 10]
        content["annotations"][1]["bbox"] = [40, 20, 40.5, 40.25]

    root = write_coco(tmp_path, change=change)
    with pytest.raises(DataError, match="annotation 0"):
        coco(root)
    label = coco(root, invalid="skip").train.reader.read(0).label
    assert label["boxes"].tolist() == [[40, 20, 80, 60]]


@pytest.mark.parametrize("size", [(1, 1), (3, 60), (60, 2)])
def test_pictures_too_small_to_crop_are_trained_on(tmp_path, size):
    def change(content):
        content["images"][0] |= {"width": size[0], "height": size[1]}
        content["annotations"] = [
            one for one in content["annotations"] if one["image_id"] != content["images"][0]["id"]
        ]
        whole = {"id": 999, "image_id": content["images"][0]["id"], "category_id": content["categories"][0]["id"]}
        content["annotations"].append(whole | {"bbox": [0, 0, *size]})

    root = write_coco(tmp_path, change=change)
    Image.new("RGB", size).save(root / "pictures/19.png")
    module = coco(root, val=0.0)
    loader = module.train_dataloader()
    for epoch in range(8):  # among torchvision's crops is one that is none
        loader.sampler.set_epoch(epoch)
        assert sum(len(batch.labels) for batch in loader) > 0


def test_pictures_may_lie_in_several_of_the_usual_folders(tmp_path):
    root = write_coco(tmp_path)
    (root / "images").mkdir()
    (root / "pictures/3.png").rename(root / "images/3.png")
    assert {file.parent.name for file in coco(root).train.reader.files if file.name == "3.png"} == {"images"}


def test_a_picture_of_another_size_is_named(tmp_path):
    root = write_coco(tmp_path)
    Image.new("RGB", (40, 30)).save(root / "pictures/3.png")
    with pytest.raises(DataError, match=r"3\.png is of 40x30 pixels, but its boxes are for 80x60"):
        coco(root)


def test_a_picture_on_its_side_has_the_size_that_people_see(tmp_path):
    root = write_coco(tmp_path)
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (60, 80)).save(root / "pictures/3.png", exif=tags)
    assert coco(root).train.reader.read(3).pictures[0].size == (80, 60)
    Image.new("RGB", (80, 60)).save(root / "pictures/3.png", exif=tags)
    with pytest.raises(DataError, match=r"3\.png is of 60x80 .* are for 80x60, its size without its Exif orientation"):
        coco(root)
    Image.new("RGB", (60, 80)).save(root / "pictures/3.png")
    with pytest.raises(DataError, match=r"3\.png is of 60x80 pixels, but its boxes are for 80x60\Z"):
        coco(root)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_coco_file_is_named(tmp_path, content):
    path = write_coco(tmp_path) / "annotations/things_pictures.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} is (no JSON file|not of COCO's form)"):
        coco(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: No such file or directory; name the file with data.annotations"):
        coco(tmp_path)


def test_pictures_in_two_lists_are_said(tmp_path, caplog):
    root = write_voc(tmp_path / "voc")
    voc(root)
    coco(write_coco(tmp_path / "coco"))
    assert not caplog.text
    with (root / "ImageSets/Main/val.txt").open("a") as listing:
        listing.write("000003\n000004\n")
    voc(root)
    assert "2 of the 7 pictures of the 'test' split are in the 'train' split as well, '000003.jpg'" in caplog.text
    caplog.clear()
    coco(tmp_path / "coco", val_annotations="annotations/things_pictures.json")
    assert "20 of the 20 pictures of the 'val' split" in caplog.text
