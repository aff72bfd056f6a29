"""A teacher that learned from other images than the student does answers as it did on those."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2.functional import resize

from distill.artifact import Artifact, load
from distill.data import DataInfo
from distill.data.digits import Digits
from distill.errors import RecipeError
from distill.export import onnx_file
from distill.models.input_transform import InputTransform, _channels
from distill.models.weights import load_weights
from distill.pipeline.build import initial_artifact
from distill.pipeline.teacher_inputs import input_transform, trained_on
from distill.recipe.schema import TeacherNetwork
from distill.tasks.classification import Classification
from tests.nets import ConvNet

NAME = "tests.nets:ConvNet"
DATA = Digits(0, limit=100)


def teacher(folder: Path, about: dict[str, Any] | None = None, *, channels: int = 1, **spec: Any) -> TeacherNetwork:
    """A recipe's teacher that starts from a file of ours, with weights of its own."""
    arguments = {"channels": channels}
    model = ConvNet(**arguments).eval()
    model.stage1[1].running_mean.normal_()  # else the first batch norm would hide a shift
    entry = {"name": NAME, "num_classes": 10, **arguments}
    Artifact(model, network=entry, about={"info": about} if about else {}).save(folder / "teacher.safetensors")
    return TeacherNetwork(NAME, str(folder / "teacher.safetensors"), arguments=arguments, **spec)


def made(spec: TeacherNetwork) -> Artifact:
    return initial_artifact(spec, DATA, Classification(DATA.info), seed=0)


def plain(spec: TeacherNetwork) -> nn.Module:
    """The same network without anything before it."""
    model = ConvNet(**spec.arguments)
    load_weights(model, str(spec.weights), name=NAME)
    return model.eval()


def images() -> tuple[Tensor, Tensor]:
    """Some as pixels from 0 to 1, and the same as the data normalises them."""
    normalised = DATA.calibration(8)[0].inputs
    return normalised * DATA.info.std[0] + DATA.info.mean[0], normalised


@torch.no_grad()
def test_other_mean_and_std_give_what_its_own_images_give(tmp_path: Path) -> None:
    spec = teacher(tmp_path, mean=[0.5], std=[0.1])
    pixels, normalised = images()
    torch.testing.assert_close(made(spec).model(normalised), plain(spec)((pixels - 0.5) / 0.1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_another_size_gives_what_its_own_images_give(tmp_path: Path) -> None:
    spec = teacher(tmp_path, image_size=20)
    pixels, normalised = images()
    own = (resize(pixels, [20, 20], antialias=True) - DATA.info.mean[0]) / DATA.info.std[0]
    torch.testing.assert_close(made(spec).model(normalised), plain(spec)(own), rtol=1e-3, atol=1e-3)


def test_a_smaller_size_is_resized_without_aliases() -> None:
    pixels, normalised = images()
    own = InputTransform(DATA.info.mean, DATA.info.std, [0.0], [1.0], size=[3, 5]).of(normalised)
    torch.testing.assert_close(own, resize(pixels, [3, 5], antialias=True), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_network_of_three_colours_sees_grey_images_in_grey(tmp_path: Path) -> None:
    mean, std = [0.2, 0.4, 0.6], [0.1, 0.2, 0.3]
    spec = teacher(tmp_path, channels=3, mean=mean, std=std)
    pixels, normalised = images()
    own = (pixels.repeat(1, 3, 1, 1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(made(spec).model(normalised), plain(spec)(own), rtol=1e-4, atol=1e-4)


def test_a_file_of_ours_says_what_it_was_trained_on(tmp_path: Path) -> None:
    about = DataInfo(1, (28, 20), (0.28,), (0.35,)).to_json()
    spec = teacher(tmp_path, about)
    assert trained_on(NAME, str(spec.weights)) == {"mean": [0.28], "std": [0.35], "size": [28, 20]}
    own = input_transform(spec, DATA.info, 1)
    assert own == {"data_mean": [0.3058], "data_std": [0.3762], "mean": [0.28], "std": [0.35], "size": [28, 20]}
    own = input_transform(teacher(tmp_path, about, mean=[0.5], std=[0.5], image_size=32), DATA.info, 1)
    assert own is not None
    assert (own["mean"], own["std"], own["size"]) == ([0.5], [0.5], [32, 32])


def test_a_teacher_of_the_same_images_sees_them_as_they_are(tmp_path: Path) -> None:
    about = DataInfo(1, (8, 8), (0.3058,), (0.3762,)).to_json()
    artifact = made(teacher(tmp_path, about))
    assert not artifact.model._forward_pre_hooks
    assert artifact.network == {"name": NAME, "num_classes": 10, "channels": 1}


def test_torchvisions_weights_say_what_they_were_trained_on() -> None:
    assert trained_on("resnet18", "IMAGENET1K_V1") == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert trained_on("resnet18", "IMAGENET9") == {}


@torch.no_grad()
def test_files_and_copies_of_it_see_the_same(tmp_path: Path) -> None:
    artifact = made(teacher(tmp_path, mean=[0.5], std=[0.1], image_size=12))
    _, normalised = images()
    artifact.save(tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors", allow=["tests.nets"])
    assert torch.equal(again(normalised), artifact.model(normalised))
    assert torch.equal(copy.deepcopy(again)(normalised), again(normalised))
    assert again.state_dict().keys() == ConvNet().state_dict().keys()
    known = trained_on(NAME, str(tmp_path / "again.safetensors"))
    assert known == {"mean": [0.5], "std": [0.1], "size": [12, 12]}


def test_its_onnx_file_sees_the_same(tmp_path: Path) -> None:
    model = made(teacher(tmp_path, mean=[0.5], std=[0.1], image_size=12)).model
    _, normalised = images()
    answer = onnx_file.answer(onnx_file.session(onnx_file.serialize(model, normalised)), normalised)
    torch.testing.assert_close(answer, model(normalised).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"mean": [0.5, 0.5], "std": [0.1, 0.1]}, "reads 1 channels, but mean has 2 values and std 2"),
        ({"mean": [0.5], "std": [0.0]}, r"std \[0.0\] and image_size None are to be above 0"),
        ({"image_size": 0}, "image_size 0 are to be above 0"),
    ],
)
def test_impossible_inputs_are_named(settings: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=complaint):
        made(teacher(tmp_path, **settings))


PAIRS = DataInfo(3, (96, 128), (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), images=2)


def test_a_teacher_of_pairs_reads_both_images_as_one() -> None:
    assert input_transform(TeacherNetwork("flow_correlation", epochs=1), PAIRS, 6) is None
    own = input_transform(TeacherNetwork("flow_correlation", epochs=1, mean=[0.1, 0.2, 0.3]), PAIRS, 6)
    assert own is not None
    assert (own["mean"], own["data_mean"]) == ([0.1, 0.2, 0.3] * 2, [0.5, 0.4, 0.3] * 2)
    assert own["size"] is None
    assert input_transform(TeacherNetwork("raft_small", epochs=1), PAIRS, None) is None  # does not tell its channels
    assert trained_on("raft_small", "C_T_V2") == {}  # torchvision does not say
    with pytest.raises(RecipeError, match="image_size would change the flow between two images"):
        input_transform(TeacherNetwork("flow_correlation", epochs=1, image_size=64), PAIRS, 6)


def test_means_are_copied_to_the_device_once() -> None:
    transform = InputTransform((0.1, 0.2, 0.3), (0.9, 0.8, 0.7), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    with torch.inference_mode():
        first = transform.of(torch.ones(2, 3, 4, 4))
    copies = _channels.cache_info().misses
    images = torch.ones(2, 3, 4, 4, requires_grad=True)
    transform.of(images).sum().backward()
    assert _channels.cache_info().misses == copies
    torch.testing.assert_close(first, transform.of(images))
    assert transform.of(images.double()).dtype == torch.float64
    values = [(0.9 + 0.1 - 0.5) / 0.2, (0.8 + 0.2 - 0.4) / 0.3, (0.7 + 0.3 - 0.3) / 0.4]
    torch.testing.assert_close(first[0, :, 0, 0], torch.tensor(values))
    with FakeTensorMode() as mode:
        assert transform.of(mode.from_tensor(torch.ones(2, 3, 4, 4))).shape == (2, 3, 4, 4)
