"""Direct convolution on blocked layouts: the same values, no repacking between layers, no memory but the output's."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from distill.kernels import BlockedConv2d, Geometry, blocked_conv, pack, unpack
from distill.kernels.blocked_conv import pack_weight, unpack_weight
from tests.kernels.shapes import convolutions, images_for

CHANNELS = st.sampled_from([1, 3, 8, 16, 24, 32])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conv=convolutions(CHANNELS, CHANNELS), extra=st.tuples(st.integers(0, 31), st.integers(0, 31)))
def test_it_is_the_plain_convolution(conv: nn.Conv2d, extra: tuple[int, int], way: str) -> None:
    images = images_for(conv, extra)
    with torch.no_grad():
        expected, found = conv(images), unpack(BlockedConv2d.from_dense(conv)(pack(images)))
    assert (found - expected).norm() <= 1e-4 * expected.norm()


@given(st.integers(1, 3), CHANNELS, CHANNELS, st.integers(1, 4), st.integers(1, 4))
def test_packing_is_undone_exactly_and_costs_no_memory(n: int, channels: int, others: int, h: int, w: int) -> None:
    images, weight = torch.randn(n, channels, h, w), torch.randn(others, channels, h, w)
    assert torch.equal(unpack(pack(images)), images)
    assert torch.equal(unpack_weight(pack_weight(weight)), weight)
    assert pack(images).untyped_storage().nbytes() == 4 * images.numel()
    assert pack_weight(weight).untyped_storage().nbytes() == 4 * weight.numel()


def test_the_layouts_are_those_of_the_paper() -> None:
    images, weight = torch.randn(2, 32, 3, 5), torch.randn(48, 32, 3, 3)
    assert pack(images)[1, 1, 2, 4, 7] == images[1, 16 + 7, 2, 4]
    assert pack_weight(weight)[2, 1, 0, 2, 5, 11] == weight[32 + 11, 16 + 5, 0, 2]


def test_layers_follow_each_other_without_repacking(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1))
    blocked = nn.Sequential(BlockedConv2d.from_dense(plain[0]), nn.ReLU(), BlockedConv2d.from_dense(plain[2]))
    images = torch.randn(2, 3, 13, 13)
    packed = pack(images)
    if way == "compiled":
        monkeypatch.setattr(blocked_conv, "pack", None)
        monkeypatch.setattr(blocked_conv, "unpack", None)
    with torch.no_grad():
        torch.testing.assert_close(unpack(blocked(packed)), plain(images), rtol=1e-4, atol=1e-5)


def test_nothing_is_allocated_but_the_output(way: str) -> None:
    if way == "torch":
        pytest.skip("only the kernel does without")
    conv = nn.Conv2d(16, 32, 3, padding=1)
    layer, images = BlockedConv2d.from_dense(conv), pack(torch.randn(1, 16, 14, 14))
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output = layer(images)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profiler.events())
    assert allocated == 4 * output.numel() == 4 * 32 * 14 * 14
    assert Geometry.of(conv).im2col_bytes(14, 14) == 4 * (16 * 3 * 3) * (14 * 14)


def test_it_can_be_trained(way: str) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3)
    layer, images = BlockedConv2d.from_dense(conv), torch.randn(2, 8, 6, 6)
    layer(pack(images)).square().sum().backward()
    conv(images).square().sum().backward()
    torch.testing.assert_close(unpack_weight(layer.weight.grad), conv.weight.grad)
    torch.testing.assert_close(layer.bias.grad, conv.bias.grad)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="groups is 2, but must be 1"):
        BlockedConv2d.from_dense(nn.Conv2d(4, 4, 3, groups=2))
    layer = BlockedConv2d.from_dense(nn.Conv2d(32, 16, 3))
    with pytest.raises(ValueError, match="images have 1 blocks of 16 channels, but must have 2 of 16: see pack"):
        layer(pack(torch.randn(1, 16, 5, 5)))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"), torch.no_grad():
        layer(pack(torch.randn(1, 32, 5, 2)))
