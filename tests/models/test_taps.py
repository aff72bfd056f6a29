import pytest
import torch
from torch import nn

from distill.errors import TapError
from distill.models.taps import Taps, stages
from tests.nets import ConvNet


def test_returns_the_named_maps() -> None:
    _, features = Taps(ConvNet(width=4), ["stage2", ""])(torch.randn(2, 1, 16, 16))
    assert {path: tuple(f.shape) for path, f in features.items()} == {"stage2": (2, 8, 4, 4), "": (2, 10)}


def test_the_maps_are_what_the_modules_compute() -> None:
    model, images = ConvNet().eval(), torch.randn(2, 1, 16, 16)
    _, features = Taps(model, ["stage2"])(images)
    torch.testing.assert_close(features["stage2"], model.stage2(model.stage1(images)))


def test_leaves_no_hook_behind() -> None:
    model = ConvNet(width=4)
    Taps(model, ["stage2"])(torch.randn(2, 1, 16, 16))
    assert not model.stage2._forward_hooks


def test_a_wrong_path_names_the_nearest() -> None:
    with pytest.raises(TapError, match="no module 'stage9'. Did you mean 'stage3'"):
        Taps(ConvNet(), ["stage9"])


def test_refuses_a_map_that_is_overwritten() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    with pytest.raises(TapError, match="output of '0' is overwritten"):
        Taps(model, ["0"])(torch.randn(1, 3, 4, 4))


def test_refuses_what_is_not_one_tensor() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    with pytest.raises(TapError, match="'0' .LSTM. returns a tuple"):
        Taps(model, ["0"])(torch.randn(2, 5, 3))


def test_a_network_without_stages_says_what_to_write() -> None:
    assert stages(ConvNet()) == ["stage1", "stage2", "stage3"]
    with pytest.raises(TapError, match="Linear names no stages: write student"):
        stages(nn.Linear(1, 1))
