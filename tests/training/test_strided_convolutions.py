"""1x1 convolutions with a stride and few input channels, trained on a CPU."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.recipe.schema import Stage
from distill.training.strided_convolutions import convolutions, subsample_first, subsample_within
from students import mobilenet_v2, resnet8, resnet20
from tests.training.test_distiller import trained


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (resnet20(), 0),  # its shortcuts read 16 and 32 channels
        (mobilenet_v2(), 0),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2), nn.Conv2d(4, 8, 1, 2, 1)), 0),
        (resnet8(width=0.5), 1),
        (resnet8(width=0.25), 2),
        (nn.Conv2d(4, 8, 1, (1, 2)), 1),
    ],
)
def test_which_are_in_question(network: nn.Module, found: int) -> None:
    assert len([*convolutions(network)]) == found


def gradients(layer: nn.Conv2d, images: Tensor) -> list[Tensor]:
    """Of the images, the weight and the bias, by a sum of squares."""
    images = images.detach().requires_grad_()
    (layer(images) ** 2).sum().backward()
    return [images.grad, layer.weight.grad, layer.bias.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 8, 1, 2), nn.Conv2d(3, 5, 1, (3, 1)), nn.Conv2d(8, 8, 1, 2, groups=2)], ids=str
)
def test_gradients_are_those_of_64_bits(layer: nn.Conv2d, layout: torch.memory_format) -> None:
    images = torch.randn(16, layer.in_channels, 12, 13, generator=torch.Generator().manual_seed(0))
    twin = nn.Conv2d(layer.in_channels, layer.out_channels, 1, layer.stride, groups=layer.groups).double()
    twin.load_state_dict(layer.state_dict())
    expected = gradients(twin, images.double())
    layer = deepcopy(layer).to(memory_format=layout)
    subsample_first(layer)
    for found, exact in zip(gradients(layer, images.to(memory_format=layout)), expected, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_masked_weights_stay_masked() -> None:
    class Half(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 0.5

    layer, images = nn.Conv2d(4, 8, 1, 2), torch.randn(2, 4, 6, 6)
    parametrize.register_parametrization(layer, "weight", Half())
    before = layer(images)
    subsample_first(layer)
    torch.testing.assert_close(layer(images), before)
    subsample_within(layer)
    assert not any(isinstance(value, torch.nn.Module) or callable(value) for value in vars(layer).values())


def test_narrow_shortcuts_learn_alike_in_both_layouts(tmp_path: Path) -> None:
    """In channels last this process would crash, hang, or learn something else."""

    def learned(*, channels_last: bool) -> nn.Module:
        torch.manual_seed(0)
        student = resnet8(num_classes=10, channels=1, width=0.25)
        folder = tmp_path / str(channels_last)
        return trained(Stage(epochs=1), folder, student=student, channels_last=channels_last)[0]

    last, first = (learned(channels_last=layout) for layout in (True, False))
    for one, other in zip(last.state_dict().values(), first.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)  # convolutions round otherwise in each
    assert not any("_conv_forward" in vars(layer) for layer in last.modules())
