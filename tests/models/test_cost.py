"""Counts against those that torchvision publishes beside its weights."""

import pytest
import torch
import torchvision
from torch import nn

from distill.models import cost

# The smallest member of each family; regnets compute their widths, which needs values.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet"),
    *("inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"),
    *("regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t"),
    *("vgg11", "vgg11_bn", "vit_b_16", "vit_b_32", "wide_resnet50_2"),
)


def on_meta(name: str) -> nn.Module:
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return torchvision.models.get_model(name, weights=None, **settings).to("meta")


@pytest.mark.parametrize("name", FAMILIES)
def test_macs_are_those_that_torchvision_publishes(name: str) -> None:
    weights = torchvision.models.get_model_weights(name)
    published = next(iter(weights))
    size = published.transforms().crop_size[0]
    model = on_meta(name)
    found = cost.macs(model, torch.empty(2, 3, size, size, device="meta")) / 1e9
    assert found == pytest.approx(published.meta["_ops"], abs=0.001, rel=1e-3)  # which has three digits
    assert cost.params(model) >= published.meta["num_params"]  # theirs without auxiliary heads


def test_attention_is_counted_as_its_products() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    tokens, features, hidden = 5, 8, 16
    products = 4 * features * features + 2 * features * hidden  # q, k, v, output and the two layers
    assert cost.macs(layer, torch.randn(2, tokens, features)) == tokens * (products + 2 * tokens * features)
    assert layer.training
    assert torch.backends.mha.get_fastpath_enabled()


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 1, groups=2), nn.Flatten(), nn.Linear(96, 5)
    )


def effective(model: nn.Module, images: torch.Tensor) -> tuple[int, int]:
    counts = [cost.nonzero(model, name, parameter) for name, parameter in model.named_parameters()]
    return sum(counts), cost.effective_macs(model, images)


def test_a_dense_network_is_as_effective_as_it_is_large() -> None:
    model, images = net(), torch.randn(2, 3, 4, 4)
    assert effective(model, images) == (cost.params(model), cost.macs(model, images))


def test_zeros_of_weights_cost_nothing() -> None:
    model, images = net(), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        model[0].weight[1:3] = 0  # two of four filters
        model[2].weight[0] = 0
        model[4].weight[:, ::2] = 0
        model[4].bias.zero_()
    macs = 16 * (2 * 27 + 5 * 2) + 5 * 48
    params = (2 * 27 + 4) + (5 * 2 + 6) + (5 * 48 + 5)
    assert effective(model, images) == (params, macs)


def test_zeros_of_a_weight_that_is_used_twice_are_counted_twice() -> None:
    layer = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(layer, layer)
    with torch.no_grad():
        layer.weight[0] = 0
    assert effective(model, torch.randn(1, 4)) == (12, 24)


def test_attention_has_zeros_in_its_packed_weight() -> None:
    class Attention(nn.MultiheadAttention):
        def forward(self, tokens):  # type: ignore[override]
            return super().forward(tokens, tokens, tokens)[0]

    model, tokens = Attention(8, 2, batch_first=True), torch.randn(1, 5, 8)
    whole = cost.macs(model, tokens)
    with torch.no_grad():
        model.in_proj_weight[::2] = 0
    assert cost.effective_macs(model, tokens) == whole - 5 * 12 * 8


def test_a_class_token_may_go_into_a_module() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.zeros(1, 1, 8)), nn.Linear(8, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(self.token.expand(len(inputs), -1, -1)).mean(1)

    model, images = Token(), torch.randn(2, 3, 4, 4)
    assert cost.macs(model, images) == 24
    assert effective(model, images) == (8 + 27, 24)  # the token's zeros are values that it was given


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(kind: type[nn.RNNBase], gates: int) -> None:
    layer = kind(8, 16, num_layers=2, bidirectional=True, batch_first=True)
    steps, hidden = 5, 16
    products = 2 * gates * hidden * (8 + hidden) + 2 * gates * hidden * (2 * hidden + hidden)
    assert cost.macs(layer, torch.randn(1, steps, 8)) == steps * products
