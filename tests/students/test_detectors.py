"""What every detector does, whatever its body and its head."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from distill.data import DataInfo
from distill.export.onnx_file import answer, serialize, session
from distill.models.taps import Taps
from distill.tasks.detection import Detection
from students import student
from students.torchvision_detectors import COCO_IDS

NAMES = [name for name in student.names() if "anchors" in inspect.signature(student.find(name)).parameters]
TORCHVISION = [name for name in NAMES if "coco" in inspect.signature(student.find(name)).parameters]
VGG_320 = ("ssd300_vgg16", 320)
"""Its last two convolutions have no padding: with other sizes than 300 strides are others."""
OURS = [name for name in NAMES if name not in TORCHVISION]
STRIDES = {
    "ssd_miniature": [8, 16, 32],
    "ssd300_vgg16": [8, 16, 32, 64, 100, 300],
    "retinanet_resnet50_fpn_v2": [8, 16, 32, 64, 128],
    "fcos_resnet50_fpn": [8, 16, 32, 64, 128],
}


def task(name: str, size: int, **settings: Any) -> Detection:
    """The task whose anchors have the default number of the network in every cell."""
    counts = inspect.signature(student.find(name)).parameters["anchors"].default
    scales = [[0.1 * (1 + number) for number in range(count)] for count in counts]
    strides = STRIDES.get(name, [16, 32, 64, 128, 256, 512])
    info = DataInfo(3, (size, size), (0.5,) * 3, (0.25,) * 3, tuple("abcde"))
    return Detection(info, **{"strides": strides, "scales": scales, "ratios": [[]]} | settings)


def build(name: str, size: int = 64, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    arguments = task(name, size).network_arguments()
    if name in TORCHVISION:
        del arguments["bins"]
    return student.find(name)(**{**arguments, **settings})


@pytest.mark.parametrize(("name", "size"), [(n, size) for n in NAMES for size in (300, 320) if (n, size) != VGG_320])
def test_its_outputs_are_the_anchors_of_the_task(name: str, size: int) -> None:
    with torch.device("meta"):
        output = build(name, size).eval()(torch.empty(2, 3, size, size))
    assert output.shape == (2, len(task(name, size).anchors), 1 + 5 + 4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_its_maps_shrink_by_the_strides_and_its_reader_gives_the_output(name: str) -> None:
    size = 300 if name == "ssd300_vgg16" else 64
    network = build(name, size).eval()
    output, features = Taps(network, network.stages)(torch.randn(1, 3, size, size))
    torch.testing.assert_close(network.reader()(list(features.values())), output)
    assert [tuple(feature.shape[2:]) for feature in features.values()] == task(name, size).settings.grid((size, size))


@pytest.mark.parametrize("name", OURS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = build(name)
    network(torch.randn(2, 3, 128, 128)).square().mean().backward()
    assert [path for path, parameter in network.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_it_computes_the_same_in_onnx() -> None:
    network, batch = build("ssd_miniature").eval(), torch.randn(2, 3, 64, 64)
    found = answer(session(serialize(network, batch), threads=1), batch)
    torch.testing.assert_close(found, network(batch), rtol=1e-4, atol=1e-4)


def test_anchors_are_ordered_as_the_task_has_them() -> None:
    """The head of the last map, told to put out the number of each anchor: cell by cell, row by row."""
    network = build("ssd_miniature").eval()
    layer = network.head.layers[0]
    nn.init.zeros_(layer.weight)
    layer.bias.data = torch.arange(4.0).repeat_interleave(10)
    output = network(torch.randn(1, 3, 64, 64))
    assert output[0, : 8 * 8 * 4, 3].tolist() == [0, 1, 2, 3] * 64


@pytest.mark.parametrize("name", OURS)
def test_boxes_as_distributions(name: str) -> None:
    with torch.device("meta"):
        output = build(name, bins=8).eval()(torch.empty(2, 3, 64, 64))
    assert output.shape[2] == 1 + 5 + 4 * 8


@pytest.mark.parametrize("name", NAMES)
def test_anchors_for_other_maps_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="anchors are given for 2 maps, but the network has"), torch.device("meta"):
        student.find(name)(num_classes=5, anchors=(4, 4))


def test_maps_of_mobilenet_may_begin_earlier_and_end_earlier() -> None:
    settings: dict[str, Any] = {"maps": ("stage3", "stage4"), "extras": (), "anchors": (4, 4), "width": 0.25}
    network = student.find("ssd_mobilenet_v1")(num_classes=5, **settings)
    assert network.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, (12 * 12 + 6 * 6) * 4, 10)
    assert not [path for path, _ in network.named_parameters() if "stage5" in path]
    with pytest.raises(ValueError, match="maps are taken from .*not from 'stage9'"):
        student.find("ssd_mobilenet_v1")(maps=("stage9",), extras=(), anchors=(4,))


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_dicts_of_torchvision_load(name: str) -> None:
    build_theirs = getattr(detection, name)
    with torch.device("meta"):
        ours, theirs = student.find(name)(coco=True), build_theirs(weights=None, weights_backbone=None, num_classes=91)
    shapes = [{key: value.shape for key, value in network.state_dict().items()} for network in (ours, theirs)]
    counters = {key for key in shapes[1] if key.endswith("num_batches_tracked")} - shapes[0].keys()
    assert not counters or name == "fcos_resnet50_fpn"  # whose weights have fixed statistics, without counters
    assert shapes[0] == {key: shape for key, shape in shapes[1].items() if key not in counters}


def decoded_by_torchvision(name: str, image: Tensor, weights: dict[str, Tensor], **settings: Any) -> dict[str, Tensor]:
    theirs = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91, **settings).eval()
    theirs.load_state_dict(weights, strict=False)
    with torch.no_grad():
        return theirs([image])[0]


def with_louder_heads(network: nn.Module) -> dict[str, Tensor]:
    """Weights under which some anchors are certain of something, as those of a trained network are."""
    torch.manual_seed(1)
    for path, parameter in network.head.named_parameters():
        if path.endswith("weight") and parameter.dim() == 4:
            parameter.data *= 3
        if "cls_logits" in path and path.endswith("bias"):
            nn.init.constant_(parameter, -2.0)
    return network.state_dict()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "ssd300_vgg16",
            {
                "centres": "strides",
                "scales": [[a, (a * b) ** 0.5] for a, b in [(0.07, 0.15), (0.15, 0.33), (0.33, 0.51), (0.51, 0.69)]]
                + [[0.69, (0.69 * 0.87) ** 0.5], [0.87, (0.87 * 1.05) ** 0.5]],
                "ratios": [[2, 1 / 2], *[[2, 1 / 2, 3, 1 / 3]] * 3, *[[2, 1 / 2]] * 2],
            },
        ),
        (
            "fcos_resnet50_fpn",
            {"centres": "corners", "scales": [[s / 320] for s in (8, 16, 32, 64, 128)], "ratios": [[]]},
        ),
    ],
)
def test_the_raw_values_mean_what_torchvision_makes_of_them(name: str, settings: dict[str, Any]) -> None:
    """Its most probable detections, by its own decoding, are among those that the task finds."""
    size = 300 if name == "ssd300_vgg16" else 320
    torch.manual_seed(0)
    network = student.find(name)(coco=True).eval()
    weights = with_louder_heads(network)
    image = torch.rand(3, size, size)
    sizes = {} if name == "ssd300_vgg16" else {"min_size": size, "max_size": size}
    identity = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "nms_thresh": 0.99999}
    theirs = decoded_by_torchvision(name, image, weights, **sizes, **identity)
    info = DataInfo(3, (size, size), (0.0,) * 3, (1.0,) * 3, tuple(map(str, range(80))))
    ours = Detection(info, strides=STRIDES[name], **settings)
    with torch.no_grad():
        boxes, scores = (values[0] for values in ours.decoded(network(image[None])))
    columns = zip(*(theirs[key].tolist() for key in ("boxes", "scores", "labels")), strict=True)
    shown = [(torch.tensor(box), score, COCO_IDS.index(i)) for box, score, i in columns if i in COCO_IDS]
    assert len(shown) >= 5
    for box, score, label in shown[:10]:
        place = int((boxes - box).abs().amax(1).argmin())
        torch.testing.assert_close(boxes[place], box, rtol=0, atol=0.1)
        found, background = float(scores[place, label]), 1 - float(scores[place].sum())
        if name == "ssd300_vgg16":  # torchvision's softmax has the ids of no class too
            assert found >= score - 1e-4
        else:
            assert found / background == pytest.approx(score / (1 - score), rel=1e-2)
