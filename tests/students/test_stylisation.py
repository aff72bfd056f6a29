"""Networks that repaint pictures."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.export.onnx_file import answer, serialize, session
from distill.models.surgery import deployable
from distill.models.taps import Taps
from students import light_style_net, student, style_net

NAMES = ("style_net", "light_style_net")


def build(**chosen: int) -> nn.Module:
    torch.manual_seed(0)
    return light_style_net(**{"width": 2, "blocks": 1, "kernel": 3, **chosen}).eval()


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_keyword_only_and_have_defaults(name: str) -> None:
    for parameter in inspect.signature(student.find(name)).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_but_those_a_norm_takes_away_gets_a_gradient(name: str) -> None:
    network = student.find(name)(width=2, blocks=2)
    pictures = torch.randn(2, 3, 32, 24)
    repainted, features = Taps(network, network.stages)(pictures)
    assert repainted.shape == pictures.shape
    assert [feature.shape[2:].numel() for feature in features.values()] == [16 * 12, 8 * 6, 8 * 6]
    repainted.square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 45), st.integers(16, 45))
def test_pictures_of_any_size_keep_it(height: int, width: int) -> None:
    assert build()(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


def test_kernels_of_even_size_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel is 4, but must be one of 3, 5, 7, 9"):
        style_net(kernel=4)


@torch.no_grad()
def test_one_onnx_file_repaints_pictures_of_every_size() -> None:
    network = build(kernel=5)
    runtime = session(serialize(deployable(network), torch.randn(1, 3, 32, 32), any_size=True), threads=1)
    for shape in ((1, 3, 32, 32), (2, 3, 40, 24), (1, 3, 33, 47), (3, 3, 64, 17)):
        pictures = torch.randn(shape)
        torch.testing.assert_close(answer(runtime, pictures), network(pictures), rtol=1e-3, atol=1e-4)
