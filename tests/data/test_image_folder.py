"""Pictures in folders: which part is what, the same views however they are read, and broken files named."""

import shutil

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from distill.data import data
from distill.errors import DataError, RecipeError
from tests.data import tiny

folder = data.find("image_folder")


def make(root, seed=0, **settings):
    return folder(seed, root=root, **{"image_size": 16, "batch_size": 4, "workers": 0, **settings})


def by_sample(loader):
    return {
        sample: picture for batch in loader for sample, picture in zip(batch.sample.tolist(), batch.inputs, strict=True)
    }


def names(source):
    return {"/".join(source.reader.files[position].parts[-3:]) for position in source.chosen}


def test_without_a_test_folder_val_is_the_test_set(tmp_path):
    module = make(tiny.pictures(tmp_path), val=0.2)
    assert names(module.test) == {f"val/{name}/{number}.jpg" for name in ("cat", "dog") for number in range(5)}
    assert names(module.train) | names(module.val) == {name.replace("val", "train") for name in names(module.test)}
    assert module.val.classes.tolist() == [0, 1]
    assert not names(module.train) & names(module.val)


def test_with_a_test_folder_val_is_the_validation_set(tmp_path):
    module = make(tiny.pictures(tmp_path, ("train", "val", "test")), val=0.2)
    assert [len(part) for part in (module.train, module.val, module.test)] == [10, 10, 10]
    assert all(name.startswith("val/") for name in names(module.val))
    assert all(name.startswith("test/") for name in names(module.test))


def test_train_and_test_alone_hold_validation_out_of_train(tmp_path):
    module = make(tiny.pictures(tmp_path, ("train", "test")), val=0.2)
    assert [len(part) for part in (module.train, module.val, module.test)] == [8, 2, 10]


def test_evaluation_sees_the_centre(tmp_path):
    module = make(tiny.pictures(tmp_path), image_size=14)
    batch = next(iter(module.test_dataloader()))
    picture = Image.open(tmp_path / "val/cat/0.jpg").convert("RGB").resize((round(50 * 16 / 40), 16), Image.BILINEAR)
    left = (picture.width - 14) // 2
    expected = v2.functional.pil_to_tensor(picture.crop((left, 1, left + 14, 15))).double() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (module.info.mean, module.info.std))
    torch.testing.assert_close(batch.inputs[0], ((expected - mean) / std).float(), rtol=0, atol=2 / 255 / 0.2)


def test_views_depend_on_seed_epoch_and_sample_alone(tmp_path):
    tiny.pictures(tmp_path)
    views = {}
    for settings in ({"batch_size": 5}, {"batch_size": 5, "workers": 2}, {"batch_size": 2}):
        loader = make(tmp_path, val=0.0, **settings).train_dataloader()
        for epoch in (0, 3):
            loader.sampler.set_epoch(epoch)
            torch.manual_seed(len(views))  # the state of the global generator must not matter
            for sample, picture in by_sample(loader).items():
                views.setdefault((epoch, sample), []).append(picture)
    for same in views.values():
        assert len(same) == 3
        assert all(torch.equal(same[0], other) for other in same)
    assert not any(torch.equal(views[0, sample][0], views[3, sample][0]) for sample in range(10))
    other_seed = by_sample(make(tmp_path, seed=1, val=0.0).train_dataloader())
    assert not any(torch.equal(picture, views[0, sample][0]) for sample, picture in other_seed.items())


def test_reading_leaves_the_global_generator_alone(tmp_path):
    loader = make(tiny.pictures(tmp_path)).train_dataloader()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    source, picks = loader.dataset, next(iter(loader.sampler))
    assert torch.equal(torch.random.get_rng_state(), before)
    source[picks]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_crop_and_flip_training_sees_what_evaluation_sees(tmp_path):
    module = make(tiny.pictures(tmp_path), crop=False, flip=False)
    views = by_sample(module.train_dataloader())
    for batch in module.calibration(8):
        for sample, picture in zip(batch.sample.tolist(), batch.inputs, strict=True):
            assert torch.equal(views.get(sample, picture), picture)


def test_flip_alone_mirrors(tmp_path):
    module = make(tiny.pictures(tmp_path), crop=False, flip=True, val=0.0, batch_size=10)
    plain = by_sample(module.calibration(10))
    states = set()
    for sample, picture in by_sample(module.train_dataloader()).items():
        mirrored = torch.equal(picture, plain[sample].flip(2))
        assert mirrored or torch.equal(picture, plain[sample])
        states.add(mirrored)
    assert states == {True, False}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_named_in_one_line(tmp_path, workers):
    path = tiny.pictures(tmp_path) / "val/dog/3.jpg"
    module = make(tmp_path, workers=workers)
    for content in (b"no picture", path.read_bytes()[:200], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"\A{path} is no readable picture \(.*\); replace or remove it\Z"):
            list(module.test_dataloader())


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/nowhere .*should hold 'train' and 'val'"):
        make(tmp_path / "nowhere")
    tiny.pictures(tmp_path)
    (tmp_path / "val/bird").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/val/bird holds no pictures"):
        make(tmp_path)
    shutil.copy(tmp_path / "val/cat/0.jpg", tmp_path / "val/bird/0.jpg")
    with pytest.raises(DataError, match=f"{tmp_path}/train/bird is missing: 'train' and 'val'"):
        make(tmp_path)
    shutil.move(tmp_path / "val/bird", tmp_path / "train/bird")
    with pytest.raises(DataError, match=f"{tmp_path}/val/bird is missing"):
        make(tmp_path)
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train holds no class folders"):
        make(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"image_size": 0}, {"smallest_crop": 0.0}, {"smallest_crop": 1.5}, {"workers": -1}]
)
def test_impossible_settings_are_refused(tmp_path, settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(RecipeError, match=f"data.{name}={value}"):
        make(tiny.pictures(tmp_path), **settings)


def test_the_fingerprint_is_of_names_and_sizes(tmp_path):
    tiny.pictures(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    before = make(tmp_path / "here").fingerprint()
    assert make(tmp_path / "there").fingerprint() == before
    assert make(tmp_path / "here", image_size=8).fingerprint() != before
    path = tmp_path / "there/val/cat/0.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert make(tmp_path / "there").fingerprint() != before
    path = tmp_path / "here/train/cat/0.jpg"
    path.rename(path.with_name("renamed.jpg"))
    assert make(tmp_path / "here").fingerprint() != before
