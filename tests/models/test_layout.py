"""Where networks have their channels: torchvision's transformers at small size."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import convnext, maxvit, resnet, swin_transformer, vision_transformer

from distill.models.layout import channels_first, layouts
from distill.models.taps import Taps

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
SWIN = {"patch_size": [4, 4], "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}


def network(name: str) -> nn.Module:
    made: dict[str, Any] = {
        "swin": lambda: swin_transformer.SwinTransformer(**SWIN),
        "swin_v2": lambda: swin_transformer.SwinTransformer(
            **SWIN,
            block=swin_transformer.SwinTransformerBlockV2,
            downsample_layer=swin_transformer.PatchMergingV2,
        ),
        "convnext": lambda: convnext.ConvNeXt([convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]),
        "maxvit": lambda: maxvit.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], head_dim=4, stochastic_depth_prob=0.0),
        "resnet": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]),
        "vit": lambda: vision_transformer.VisionTransformer(32, 8, 2, 2, 16, 32),
    }
    torch.manual_seed(0)
    return made[name]().eval()


LAST = ["features.0", "features.0.1", "features.1.1", "features.2", "features.2.norm", "features.3", "norm"]


@pytest.mark.parametrize(
    ("name", "last", "first"),
    [
        ("swin", LAST, ["features.0.0", "permute", ""]),
        ("swin_v2", LAST, ["features.0.0", "permute", ""]),
        ("convnext", ["features.1.0.block.2"], ["features.0", "features.1", "features.2", "features.3"]),
        ("maxvit", [], ["stem", "blocks.0", "blocks.1"]),  # 8 channels on 8 x 8 pixels: shapes tell nothing
        ("resnet", [], ["layer1", "layer4", ""]),
    ],
)
def test_the_layout_is_found_by_running_the_network(name: str, last: list[str], first: list[str]) -> None:
    model = network(name)
    _, features = Taps(model, [*last, *first])(IMAGES)
    found = layouts(model, IMAGES, features)
    assert found == dict.fromkeys(last, "channels_last") | dict.fromkeys(first, "channels_first")


def test_swins_map_is_what_its_own_permutation_makes_of_it() -> None:
    _, features = Taps(network("swin"), ["norm", "permute"])(IMAGES)
    assert torch.equal(channels_first(features["norm"], "channels_last"), features["permute"])


def test_the_network_is_left_as_it_was() -> None:
    model = network("swin")
    before = model(IMAGES)
    _, features = Taps(model, ["features.1"])(IMAGES)
    layouts(model.train(), IMAGES, features)
    assert model.training
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert torch.equal(model.eval()(IMAGES), before)


def test_a_network_that_cannot_run_on_zeros_counts_as_channels_first() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            if not (features := self.conv(images)).any():
                raise RuntimeError("nothing to see")
            return self.head(self.norm(features.permute(0, 2, 3, 1)))

    model = Picky()
    assert layouts(model, IMAGES, Taps(model, ["norm"])(IMAGES)[1]) == {"norm": "channels_first"}


def test_tokens_become_a_map_without_those_that_lead() -> None:
    model = network("vit")
    _, features = Taps(model, ["conv_proj", "encoder.dropout"])(IMAGES)
    made = channels_first(features["encoder.dropout"] - model.encoder.pos_embedding, "tokens")
    torch.testing.assert_close(made, features["conv_proj"])
    with pytest.raises(ValueError, match="12 tokens make no square map"):
        channels_first(torch.zeros(1, 12, 4), "tokens")
