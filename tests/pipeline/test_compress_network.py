"""Networks that are their own reference: what hooks see of them, and what is said about the result."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.step import Step
from distill.cli.main import main
from distill.compress import hook
from distill.data.image_inputs import ImageInputs
from distill.data.info import DataInfo
from distill.errors import ExportError, RecipeError
from distill.models.caffe import CaffeNet, read
from distill.pipeline.compress_network import Compressed, compress_network, export_compressed
from distill.pipeline.reference import Reference
from distill.recipe.loading import load_compression
from distill.recipe.schema import Compression
from tests.models.caffe.test_detection import SETTINGS, detector

INFO = DataInfo(4, (8, 10), mean=(0.0,) * 4, std=(1.0,) * 4)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 4, 8, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net(tmp_path: Path) -> CaffeNet:
    return read(*detector(tmp_path, SETTINGS["corners"]))


def asked(folder: Path, recipe: str) -> Compression:
    (folder / "recipe.yaml").write_text(recipe)
    return load_compression(str(folder / "recipe.yaml"))


def compressed(net: CaffeNet, images: Tensor, compression: Compression) -> Compressed:
    return compress_network(Artifact(net, network=net.entry), compression, ImageInputs(images, None), INFO)


def test_a_detector_stays_one_and_says_what_it_still_detects(net: CaffeNet, images: Tensor, tmp_path: Path) -> None:
    result = compressed(net, images, asked(tmp_path, "compress: {quantize: {bits: 8, layers: ['class_2']}}"))
    assert [step.step for step in result.steps] == ["network", "compress/1-quantize"]
    assert result.steps[0].metrics == {"change": 0.0, "detections": 1.0}
    assert 0 < result.steps[1].metrics["change"] < 0.02
    result.artifact.save(tmp_path / "small.safetensors")
    again = open_artifact(tmp_path / "small.safetensors").model(images[:2])
    assert again.shape[:2] == (1, 1)
    assert again.shape[3] == 7
    assert torch.equal(again, result.artifact.model(images[:2]))


def test_the_network_that_was_given_stays_as_it_is(net: CaffeNet, images: Tensor, tmp_path: Path) -> None:
    before = net(images[:1])
    compressed(net, images, asked(tmp_path, "compress: {quantize: {bits: 2}}"))
    assert not net.joined
    assert torch.equal(net(images[:1]), before)


def test_an_exported_detector_gives_locations_and_confidences(net: CaffeNet, images: Tensor, tmp_path: Path) -> None:
    compression = asked(tmp_path, "compress: {quantize: {bits: 8}}\nexport: {onnx: {}}")
    result = compressed(net, images, compression)
    exported = export_compressed(result, compression, tmp_path)
    joined = result.artifact.copy_model()
    assert isinstance(joined, CaffeNet)
    joined.joined = True
    torch.testing.assert_close(exported["onnx"].predict(images[:3]), joined(images[:3]), atol=1e-4, rtol=1e-4)


def test_an_export_that_does_not_fit_is_refused_before_the_hooks(net: CaffeNet, images: Tensor, tmp_path: Path) -> None:
    compression = asked(tmp_path, "compress: {quantize: {bits: 8}}\nexport: {onnx: {nms: true}}")
    steps = list[Step]()
    given = (Artifact(net, network=net.entry), compression, ImageInputs(images, None), INFO)
    with pytest.raises(ExportError, match="nms=true suppresses boxes"):
        compress_network(*given, on_step=steps.append)
    assert steps == []


def test_changes_are_measured_on_images_that_hooks_do_not_see(net: CaffeNet, images: Tensor) -> None:
    net.joined = True
    reference = Reference(INFO, net, ImageInputs(images, None))
    seen = torch.cat([batch.inputs for batch in reference.calibration])
    assert len(seen) + len(reference.images) == len(images)
    assert not any(torch.equal(image, other) for image in seen for other in reference.images)
    few = Reference(INFO, net, ImageInputs(images[:3], None))
    assert len(few.images) == 3


def test_without_labels_the_loss_has_the_derivatives_of_the_output() -> None:
    """The mean square of a linear network's derivatives along random directions is that over its outputs."""
    torch.manual_seed(0)
    linear = nn.Linear(320, 3, bias=False)
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.randn(1, 4, 8, 10).expand(4000, -1, -1, -1)
    reference = Reference(INFO, model, ImageInputs(images, None))
    squares = []
    for batch in reference.calibration:
        for image, label in zip(batch.inputs, batch.labels, strict=True):
            one = batch._replace(inputs=image[None], labels=label[None])
            squares.append(torch.autograd.grad(reference.loss(model(one.inputs), one), linear.weight)[0].square())
    torch.testing.assert_close(torch.stack(squares).mean(0), images[0].flatten().square().expand(3, -1))


def test_labels_of_classes_that_are_not_there(net: CaffeNet, images: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(320, 3))
    with pytest.raises(RecipeError, match=r"labels up to 5 do not fit a network with outputs of shape \[3\]"):
        Reference(INFO, model, ImageInputs(images, torch.full((16,), 5)))
    net.joined = True
    with pytest.raises(RecipeError, match="labels up to 0 do not fit"):
        Reference(INFO, net, ImageInputs(images, torch.zeros(16, dtype=torch.long)))


def test_probabilities_have_the_loss_of_their_logits(images: Tensor) -> None:
    torch.manual_seed(0)
    linear, labels = nn.Linear(320, 3), torch.arange(16) % 3
    losses = []
    for end in ([], [nn.Softmax(1)]):
        model = nn.Sequential(nn.Flatten(), linear, *end)
        reference = Reference(INFO, model, ImageInputs(images, labels))
        losses.append(reference.loss(model(reference.calibration[0].inputs), reference.calibration[0]))
    torch.testing.assert_close(*losses)


def test_images_that_the_network_cannot_read(images: Tensor) -> None:
    with pytest.raises(RecipeError, match="cannot read images of 4x8x10"):
        Reference(INFO, nn.Conv2d(3, 1, 1), ImageInputs(images, None))


def test_exports_of_another_network_are_not_written_over(
    net: CaffeNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Artifact(net, network=net.entry, about={"info": INFO.to_json()}).save(tmp_path / "a.safetensors")
    (tmp_path / "student.onnx").write_text("of another network")
    (tmp_path / "recipe.yaml").write_text("compress: {svd: {max_params: 0.8}}\nexport: {onnx: {}}")
    given = ["--recipe", str(tmp_path / "recipe.yaml"), "--images", str(tmp_path)]
    assert main(["compress", str(tmp_path / "a.safetensors"), *given]) == 2
    assert "student.onnx is there already: remove it, or name an --output in another folder" in capsys.readouterr().err
    assert (tmp_path / "student.onnx").read_text() == "of another network"


def test_an_encoded_file_is_refused_with_the_files_to_take(
    net: CaffeNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = Artifact(net, network=net.entry, about={"info": INFO.to_json()})
    quantized = hook.find("quantize")(artifact, bits=8, rounding="nearest")
    hook.find("encode")(quantized).save(tmp_path / "a.safetensors")
    (tmp_path / "recipe.yaml").write_text("compress: {svd: {max_params: 0.8}, encode: {}}")
    given = ["--recipe", str(tmp_path / "recipe.yaml"), "--images", str(tmp_path)]
    assert main(["compress", str(tmp_path / "a.safetensors"), *given]) == 2
    assert "a.safetensors' is entropy-coded, and hooks come before 'encode'" in capsys.readouterr().err
