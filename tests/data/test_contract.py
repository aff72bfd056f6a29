"""What every data module must do."""

import inspect
import json

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from distill.batch import Batch
from distill.data import DataInfo, DataModule, Viewed, data
from distill.data.preprocessing import Preprocessing
from distill.errors import RecipeError
from distill.recipe.schema import Component
from distill.recipe.typed import section
from distill.registry import injected, schema
from tests.data import moves, objects, tiny

SHARED = {"batch_size", "val", "limit"}
MAKERS = {
    "mnist": tiny.mnist,
    "fashion_mnist": tiny.mnist,
    "cifar10": tiny.cifar10,
    "cifar100": tiny.cifar100,
    "image_folder": tiny.pictures,
    "pictures": tiny.plain_pictures,
    "image_masks": tiny.masks,
    "coco": objects.write_coco,
    "voc": objects.write_voc,
    "voc_masks": tiny.voc_masks,
    "flying_chairs": moves.write_chairs,
    "sintel": moves.write_sintel,
    "kitti_flow": moves.write_kitti_flow,
    "hwdb": tiny.gnt,
}
GENERATED = {"samples": 25, "test_samples": 10, "image_size": 32, "workers": 0}
FROM_FILES = {"image_size": 16, "workers": 0}
PAIRS = {"height": 32, "width": 40, "workers": 0}
SETTINGS = {
    "image_folder": FROM_FILES,
    "pictures": FROM_FILES,
    "image_masks": FROM_FILES | {"classes": ["sky", "sea", "land"]},
    "coco": FROM_FILES | {"annotations": "annotations/things_pictures.json"},
    "voc": FROM_FILES | {"classes": objects.NAMES},
    "voc_masks": FROM_FILES | {"classes": objects.NAMES},
    "flying_chairs": PAIRS,
    "sintel": PAIRS,
    "kitti_flow": PAIRS,
    "hwdb": FROM_FILES,
    "fashion_scenes": GENERATED | {"articles": "digits"},
    "photo_crops": GENERATED | {"crop": True},
    "flying_cutouts": GENERATED | {"crop": True},
    "characters": {"copies": 1, "image_size": 16},
}


def augmentation(name, on):
    """The settings that switch a data set's augmentation on or off."""
    return {key: on for key in ("crop", "flip", "distort") if key in inspect.signature(data.find(name)).parameters}


@pytest.fixture(params=data.names())
def make(request, tmp_path):
    """Builds a tiny version of each set."""
    settings = {"batch_size": 4}
    if request.param in MAKERS:
        settings["root"] = tmp_path / "root"
        MAKERS[request.param](tmp_path / "root")
    settings |= SETTINGS.get(request.param, {})

    def made(seed=0, augmented=None, **more):
        changed = {} if augmented is None else augmentation(request.param, augmented)
        return data.find(request.param)(seed, **{**settings, **changed, **more})

    return made


def samples(module):
    return [module.train.fingerprint(), module.val.fingerprint(), module.test.fingerprint()]


@pytest.mark.parametrize("name", data.names())
def test_settings_are_typed_and_shared(name):
    component = data.find(name)
    assert injected(component) == ["seed"]
    settings = inspect.signature(component).parameters
    assert set(settings) >= SHARED
    required = {} if name == "digits" else {"root": "."}
    assert set(settings) >= required.keys()
    required |= {"classes": ["a", "b"]} if name == "image_masks" else {}
    section({"name": name, **required}, schema(component, Component), "data")


def test_says_what_it_holds(make):
    module = make()
    assert isinstance(module, pl.LightningDataModule)
    assert isinstance(module, DataModule)
    assert isinstance(module, Viewed)
    assert len(set(module.info.class_names)) == module.info.num_classes
    assert len(module.info.mean) == len(module.info.std) == module.info.channels
    assert module.samples == len(module.train)
    if (labels := module.train_labels()) is not None:
        assert labels.dtype == torch.int64
        assert len(labels) == module.samples
        assert set(labels.tolist()) <= set(range(module.info.num_classes))


def test_its_preprocessing_makes_inputs_of_any_picture(make):
    info = make().info
    picture = Image.fromarray(tiny.pixels(50, 40, 3))
    pixels = Preprocessing.from_json(json.loads(json.dumps(info.to_json()))["preprocessing"])(picture)
    assert pixels.shape == (info.channels, *info.image_size)
    assert DataInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_batches_are_as_announced(make):
    module = make(val=0.2)
    labels, info = module.train_labels(), module.info
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        batch = next(iter(loader))
        assert isinstance(batch, Batch)
        assert batch.inputs.shape == (len(batch.sample), info.images * info.channels, *info.image_size)
        assert (batch.inputs.dtype, batch.sample.dtype) == (torch.float32, torch.int64)
        assert batch.inputs.is_contiguous()
        assert batch.inputs.isfinite().all()
    for batch in module.train_dataloader():
        assert len(batch.sample) == 4
        assert labels is None or torch.equal(batch.labels, labels[batch.sample])


def test_evaluation_is_everything_in_fixed_order(make):
    module = make(val=0.2)
    for loader, source in ((module.val_dataloader(), module.val), (module.test_dataloader(), module.test)):
        once, again = list(loader), list(loader)
        assert torch.cat([batch.sample for batch in once]).tolist() == list(range(len(source)))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(once, again, strict=True))


def test_the_seed_decides_views_and_order_but_not_the_split(make):
    first, same, other = make(seed=0), make(seed=0), make(seed=1)
    assert samples(first) == samples(same) == samples(other)
    assert first.fingerprint() == other.fingerprint()
    batch, same_batch, other_batch = (next(iter(module.train_dataloader())) for module in (first, same, other))
    assert torch.equal(batch.inputs, same_batch.inputs)
    assert not torch.equal(batch.sample, other_batch.sample) or not torch.equal(batch.inputs, other_batch.inputs)


def test_a_sample_looks_different_in_another_epoch(make):
    loader = make(augmented=True, val=0.0).train_dataloader()
    views = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        views.append(
            {s: view for batch in batches for s, view in zip(batch.sample.tolist(), batch.inputs, strict=True)}
        )
    shared = views[0].keys() & views[1].keys()
    same = [sample for sample in shared if torch.equal(views[0][sample], views[1][sample])]
    # By chance 1 of 18: nine offsets, two sides. Crops around boxes leave some pictures whole, as SSD's paper has it.
    assert len(same) < len(shared) / 2


def test_val_of_zero_holds_nothing_out(make):
    held_out = make(val=0.2)
    module = make(val=0.0)
    assert list(module.val_dataloader()) == []
    assert module.samples == held_out.samples + len(held_out.val)


def test_limit_takes_a_stratified_subset_of_training_alone(make):
    whole, module = make(), make(limit=8, val=0.25)
    assert module.samples == 6
    assert len(module.val) == 2
    assert samples(module)[2] == samples(whole)[2]
    if module.train_labels() is not None:
        counts = torch.cat([module.train_labels(), module.val.classes]).bincount(minlength=module.info.num_classes)
        assert counts.max() - counts.min() <= 1
    assert module.fingerprint() != whole.fingerprint()


def test_the_fingerprint_tells_splits_apart(make):
    assert make(val=0.2).fingerprint() == make(val=0.2, batch_size=3).fingerprint()
    assert make(val=0.2).fingerprint() != make(val=0.4).fingerprint()


def test_calibration_is_a_fair_deterministic_sample_as_it_is(make):
    module = make(val=0.0)
    batches = module.calibration(6)
    assert [len(batch.sample) for batch in batches] == [4, 2]
    assert torch.equal(make(seed=1, val=0.0).calibration(6)[0].inputs, batches[0].inputs)
    still = {}
    for batch in make(augmented=False, val=0.0).train_dataloader():
        still |= dict(zip(batch.sample.tolist(), batch.inputs, strict=True))
    for batch in batches:
        for sample, picture in zip(batch.sample.tolist(), batch.inputs, strict=True):
            assert torch.equal(still.get(sample, picture), picture)
    if (labels := module.train_labels()) is not None:
        assert all(torch.equal(batch.labels, labels[batch.sample]) for batch in batches)
        counts = labels[torch.cat([batch.sample for batch in module.calibration(8)])].bincount(
            minlength=module.info.num_classes
        )
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("setting", "value"), [("batch_size", 0), ("val", 1.0), ("limit", 0)])
def test_impossible_settings_are_refused(make, setting, value):
    with pytest.raises(RecipeError, match=rf"data\.{setting}={value}"):
        make(**{setting: value})


def test_a_negative_crop_is_refused():
    with pytest.raises(RecipeError, match=r"data\.crop=-1"):
        data.find("digits")(0, crop=-1)


def test_digits_are_split_once_and_for_all():
    module = data.find("digits")(0, val=0.1)
    assert [len(part) for part in (module.train, module.val, module.test)] == [1294, 144, 359]
    assert module.test.classes.bincount().tolist() == pytest.approx([35.9] * 10, abs=2)
    combined = torch.cat([part.images for part in (module.train, module.val, module.test)]).flatten(1)
    assert len(combined.unique(dim=0)) == len(combined)  # no image twice: none of the test's in training
    assert combined.max() == 255
    pixels = torch.cat([module.train.images, module.val.images]) / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((*module.info.mean, *module.info.std), abs=1e-3)
