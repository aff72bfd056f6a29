"""Style: losses against plain formulas, mistakes named, and the whole line with pictures of any size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import distill
from distill.artifact import Artifact
from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import DataError, ExportError, RecipeError
from distill.export import exporter
from distill.pipeline.run import run
from distill.recipe.schema.perceptual import Layers, Perceptual
from distill.recipe.typed import built
from distill.registry import task as tasks
from distill.tasks._perceptual import PerceptualMaps, gram
from distill.tasks.style import Style, total_variation
from students import student

INFO = DataInfo(3, (32, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), preprocessing={"mode": "RGB"})
RANDOM: dict[str, Any] = {
    "name": "mobilenet_v1",
    "weights": "random",
    "layers": {"content": ["stage2"], "style": ["stem", "stage2"]},
}


def style(**settings: Any) -> Style:
    return built({"name": "style", "picture_size": 40, "perceptual": RANDOM, **settings}, tasks, {"info": lambda: INFO})


def batch(seed: int = 0, samples: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(samples, 3, 32, 32, generator=generator), None, torch.arange(samples))


def test_the_loss_of_johnson_as_parts_of_what_is_compared_with() -> None:
    task, given, output = style(), batch(0), batch(1).inputs
    network = task.maps.network
    mean, std = (torch.tensor(values)[:, None, None] for values in (INFO.mean, INFO.std))
    imagenet = [torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]

    def maps(pictures: Tensor) -> list[Tensor]:
        stem = network.stem((pictures * std + mean - imagenet[0]) / imagenet[1])
        return [stem, network.stage2(network.stage1(stem))]

    def gramian(features: Tensor) -> Tensor:
        channels, size = features.shape[1], features[0].numel()
        return torch.stack(
            [torch.tensor([[(a * b).sum() / size for a in one] for b in one]) for one in features]
        ).reshape(-1, channels, channels)

    painting = Image.open(task.picture).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
    target = (torch.from_numpy(np.asarray(painting).copy()).movedim(-1, 0) / 255 - mean) / std
    (_, content), (_, wanted) = maps(output), maps(given.inputs)
    style_errors = [
        (gramian(ours) - gramian(theirs)).square().mean() / gramian(theirs).square().mean()
        for ours, theirs in zip(maps(output), maps(target[None]), strict=True)
    ]
    loss = task.loss(output, given)
    torch.testing.assert_close(loss["content"], (content - wanted).square().mean() / wanted.square().mean())
    torch.testing.assert_close(loss["style"], 2 * torch.stack(style_errors).mean(), rtol=1e-3, atol=1e-5)


def test_a_copy_has_no_content_error_and_the_style_picture_no_style_error() -> None:
    task, given = style(content_weight=1.0, smooth_weight=0.0), batch()
    assert task.loss(given.inputs, given)["content"] == 0
    pixels = torch.from_numpy(np.asarray(Image.open(task.picture).resize((40, 40), Image.Resampling.BILINEAR)).copy())
    mean, std = (torch.tensor(values)[:, None, None] for values in (INFO.mean, INFO.std))
    painting = ((pixels.movedim(-1, 0) / 255 - mean) / std)[None]
    assert task.loss(painting, Batch(painting, None, torch.zeros(1)))["style"] < 1e-6


def test_total_variation_counts_neighbours() -> None:
    picture = torch.zeros(1, 3, 2, 2)
    picture[..., 0, 0] = 1.0
    assert total_variation(picture) == 0.5 + 0.5


def test_gram_of_half_precision_maps_does_not_overflow() -> None:
    features = torch.full((1, 2, 64, 64), 8.0)  # the sum over places is 262,144, float16 ends at 65,504
    with torch.autocast("cpu", torch.float16):
        found = gram(features.half())
    torch.testing.assert_close(found, gram(features))


def test_gram_is_blind_to_places() -> None:
    features = torch.randn(1, 4, 5, 6)
    moved = features.flatten(2)[..., torch.randperm(30)].view(1, 4, 5, 6)
    torch.testing.assert_close(gram(features), gram(moved))


def test_maps_of_vgg_are_those_of_its_activations_and_nothing_behind_them_is_computed() -> None:
    spec = Perceptual("vgg16", weights="random")
    maps = PerceptualMaps(spec, INFO)
    called: list[nn.Module] = []
    maps.network.classifier.register_forward_hook(lambda *_: called.append(maps.network))
    found = maps(torch.randn(1, 3, 32, 32))
    assert {path: tuple(map.shape[1:]) for path, map in found.items()} == {
        "features.3": (64, 32, 32),
        "features.8": (128, 16, 16),
        "features.15": (256, 8, 8),
        "features.22": (512, 4, 4),
    }
    assert all((map >= 0).all() for map in found.values())
    assert not called


def test_a_map_before_an_activation_in_place_is_not_the_one_behind_it() -> None:
    """torchvision's VGG has a ReLU in place behind every convolution."""
    pictures = torch.randn(1, 3, 32, 32)
    alone = PerceptualMaps(Perceptual("vgg16", weights="random", layers=Layers(["features.0"], [])), INFO)(pictures)
    both = PerceptualMaps(Perceptual("vgg16", weights="random", layers=Layers(["features.0"], ["features.3"])), INFO)
    torch.testing.assert_close(both(pictures)["features.0"], alone["features.0"])
    assert (alone["features.0"] < 0).any()


@pytest.mark.parametrize(
    ("name", "layer", "size", "message"),
    [
        ("vit_b_16", "conv_proj", 32, "the network cannot read pictures of 3x32x32: Wrong image height"),
        ("vit_b_16", "encoder.layers.encoder_layer_0.self_attention", 224, "MultiheadAttention. returns no maps"),
        ("resnet18", "fc", 32, "'fc' .Linear. returns no maps"),
    ],
)
def test_perceptual_layers_without_maps_are_named(name: str, layer: str, size: int, message: str) -> None:
    maps = PerceptualMaps(Perceptual(name, weights="random", layers=Layers([layer], [])), INFO)
    with pytest.raises(RecipeError, match=f"task.perceptual.*{message}"):
        maps(torch.randn(1, 3, size, size))


def test_the_perceptual_network_reads_what_it_was_trained_on() -> None:
    """EfficientNet-Lite0 reads (255 x - 127) / 128."""
    maps = PerceptualMaps(Perceptual(), INFO)
    black = (torch.zeros(1, 3, 16, 16) - torch.tensor(INFO.mean)[:, None, None]) / torch.tensor(INFO.std)[:, None, None]
    torch.testing.assert_close(maps.prepare.of(black), torch.full((1, 3, 16, 16), -127 / 128))
    assert set(maps(black)) == {"blocks.4", "stem", "blocks.1.depthwise", "blocks.3.depthwise", "blocks.5.depthwise"}


def test_the_run_s_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _ = style().maps
    assert torch.equal(torch.rand(3), expected)


def test_fidelity_of_the_teacher_to_itself_is_perfect_and_falls_with_noise() -> None:
    task, teacher = style(), batch().inputs

    def values(output: Tensor) -> dict[str, float]:
        metrics = task.fidelity()
        task.compare(metrics, output, teacher)
        return {name: float(value) for name, value in metrics.compute().items()}

    same, near, far = (values(teacher + noise * torch.randn(teacher.shape)) for noise in (0, 0.05, 0.5))
    assert same["ssim"] == pytest.approx(1)
    assert same["feature_distance"] == 0
    assert same["ssim"] > near["ssim"] > far["ssim"]
    assert same["psnr"] > near["psnr"] > far["psnr"]
    assert 0 < near["feature_distance"] < far["feature_distance"]


def test_a_prediction_is_a_png_of_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    mean, std = np.array(INFO.mean), np.array(INFO.std)
    output = torch.from_numpy((pixels / 255 - mean) / std).movedim(-1, 0)[None].float()
    (prediction,) = json.loads(json.dumps(style().predict(output)))
    assert (prediction["width"], prediction["height"]) == (24, 20)
    drawn = style().draw(Image.new("RGB", (3, 3)), prediction)
    np.testing.assert_array_equal(np.asarray(drawn), pixels)


def test_predicting_needs_neither_picture_nor_weights(tmp_path: Path) -> None:
    task = style(picture=str(tmp_path / "gone.jpg"), perceptual={**RANDOM, "weights": "gone.pth"})
    assert task.predict(torch.zeros(1, 3, 8, 8))[0]["width"] == 8


def broken(folder: Path, content: bytes) -> str:
    (folder / "no_picture.jpg").write_bytes(content)
    return str(folder / "no_picture.jpg")


@pytest.mark.parametrize("content", [b"", b"a text", None])
def test_a_style_picture_that_is_none_is_named_before_anything_is_trained(
    tmp_path: Path, content: bytes | None
) -> None:
    path = str(tmp_path / "nowhere.jpg") if content is None else broken(tmp_path, content)
    trained: list[str] = []
    recipe = distill.load_recipe(
        "style/smoke", [f"task.picture={path}", f"output={tmp_path}", "tracking.mode=disabled"]
    )
    with pytest.raises(DataError, match=Path(path).name) as error:
        run(recipe, on_epoch=lambda step, epoch, metrics: trained.append(step))
    assert "\n" not in str(error.value)
    assert trained == []


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (16, 161)])
def test_a_style_picture_that_shows_no_style_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=rf"small.png \(task.picture\) is of {size[0]}x{size[1]} pixels: a style needs"):
        _ = style(picture=tmp_path / "small.png").targets


@pytest.mark.parametrize(
    ("perceptual", "message"),
    [
        ({"name": "vgg16"}, "'vgg16' needs weights"),
        ({**RANDOM, "layers": None}, "which layers"),
        ({**RANDOM, "layers": {"content": ["stagf2"], "style": []}}, "stage2"),
        ({**RANDOM, "weights": "gone.pth"}, "task.perceptual: no checkpoint file 'gone.pth'"),
        ({**RANDOM, "name": "mobilnet_v1"}, "mobilenet_v1"),
        ({"name": "vgg61", "weights": "random"}, "task.perceptual.*Did you mean 'vgg"),
    ],
)
def test_a_perceptual_network_that_cannot_be_built_is_named(perceptual: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _ = style(perceptual=perceptual).maps


def test_outputs_of_another_size_grey_pictures_and_no_loss_are_refused() -> None:
    with pytest.raises(RecipeError, match="outputs 3x30x32 for pictures of 3x32x32"):
        style().check(torch.zeros(2, 3, 30, 32), batch())
    with pytest.raises(RecipeError, match="in colours"):
        Style(DataInfo(1, (32, 32), (0.5,), (0.5,)))
    with pytest.raises(RecipeError, match="both 0"):
        style(content_weight=0, style_weight=0)


def test_the_whole_line_and_pictures_of_any_size(tmp_path: Path) -> None:
    result = run(distill.load_recipe("style/smoke", [f"output={tmp_path}", "tracking.mode=disabled"]))
    report = json.loads((result.folder / "report.json").read_text())
    steps = {step["step"]: step["metrics"] for step in report["steps"]}
    assert (report["monitor"], report["mode"], report["units"]) == ("total", "min", {"psnr": "dB"})
    assert {"test/ssim", "test/psnr", "test/feature_distance"} <= steps["student"].keys()
    assert "test/ssim" not in steps["teacher"]
    assert {"train/picture", "train/seen", "train/task_style"} <= set(report["curves"]["student/distill"][0])
    wide = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(wide)
    files = (result.folder / "student.safetensors", result.folder / "export" / "student.onnx")
    drawn = [style().draw(Image.new("RGB", (1, 1)), distill.predict(file, [wide])[0]) for file in files]
    assert [picture.size for picture in drawn] == [(70, 50)] * 2
    artifact, exported = (torch.from_numpy(np.asarray(picture).copy()).float() for picture in drawn)
    assert F.l1_loss(artifact, exported) < 10
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for file in files:
        with pytest.raises(DataError, match=r"dot\.png: the network cannot read 1x1 pixels \(.+\): resize it"):
            distill.predict(file, [tmp_path / "dot.png"])


def test_openvino_repaints_pictures_of_any_size(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = student.find("light_style_net")(width=4).eval()
    made = exporter.find("openvino")(Artifact(network), tmp_path, [batch()], style())
    for size in ((32, 32), (48, 20), (33, 61)):
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(made.predict(images), network(images).detach(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ExportError, match=r"reads inputs of \[\?,3,\?,\?\], not of \[1,4,32,32\]"):
        made.predict(torch.randn(1, 4, 32, 32))


def test_layers_of_a_network_are_given_as_sections() -> None:
    assert style().perceptual.layers == Layers(["stage2"], ["stem", "stage2"])
