"""A whole map from one with holes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.mgd import MaskedGeneration


class Recorder(nn.Module):
    """Generates what it is given, and remembers it."""

    def forward(self, masked: Tensor) -> Tensor:
        self.masked = masked
        return masked


def recording(**settings) -> tuple[MaskedGeneration, Recorder]:
    loss, recorder = MaskedGeneration((8, 4, 6, 6), (8, 4, 6, 6), **settings), Recorder()
    loss.generation = recorder
    return loss, recorder


def test_mgd_without_a_mask_is_the_squared_error_per_image() -> None:
    loss = MaskedGeneration((3, 2, 4, 4), (3, 5, 4, 4), mask_ratio=0.0)
    student, teacher = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 4, 4)
    adapted = torch.einsum("oc,bchw->bohw", loss.adapter.weight[..., 0, 0], student) + loss.adapter.bias[:, None, None]
    first, second = loss.generation[0], loss.generation[2]
    hidden = F.conv2d(adapted, first.weight, first.bias, padding=1).clamp(min=0)
    generated = F.conv2d(hidden, second.weight, second.bias, padding=1)
    torch.testing.assert_close(loss(student, teacher), ((generated - teacher) ** 2).sum() / 3)


def test_mgd_masks_pixels_in_all_channels_alike() -> None:
    loss, recorder = recording()
    ones = torch.ones(200, 4, 6, 6)
    value = loss(ones, ones)
    masked = recorder.masked
    assert set(masked.unique().tolist()) == {0, 1}
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    assert masked.mean().item() == pytest.approx(0.35, abs=0.03)
    assert not torch.equal(masked[0], masked[1])
    assert value.item() == pytest.approx((1 - masked).sum().item() / 200)


def test_mgd_masks_channels_at_all_pixels_alike() -> None:
    loss, recorder = recording(mask="channels", mask_ratio=0.15)
    loss(torch.ones(400, 4, 6, 6), torch.zeros(400, 4, 6, 6))
    masked = recorder.masked
    assert torch.equal(masked, masked[..., :1, :1].expand_as(masked))
    assert masked.mean().item() == pytest.approx(0.85, abs=0.03)


def test_mgd_draws_its_masks_anew_but_repeats_them_from_one_seed() -> None:
    loss = MaskedGeneration((3, 4, 6, 6), (3, 4, 6, 6))
    maps = torch.randn(3, 4, 6, 6), torch.randn(3, 4, 6, 6)
    values = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        values.append(loss(*maps).item())
    assert values[0] == values[2] != values[1]


def test_mgd_learns_to_fill_the_holes() -> None:
    loss = MaskedGeneration((8, 2, 8, 8), (8, 2, 8, 8), mask_ratio=0.3)
    smooth = F.interpolate(torch.randn(8, 2, 2, 2), size=8, mode="bilinear")
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    before = loss(smooth, smooth).item()
    for _ in range(100):
        optimizer.zero_grad()
        value = loss(smooth, smooth)
        value.backward()
        optimizer.step()
    assert value.item() < 0.5 * before


def test_mgd_compares_at_the_smaller_size() -> None:
    loss = MaskedGeneration((2, 3, 4, 4), (2, 3, 8, 8), mask_ratio=0.0)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loss(student, teacher), loss(student, F.avg_pool2d(teacher, 2)))


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_mgd_refuses_a_mask_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio is {ratio}; it must be at least 0 and below 1"):
        MaskedGeneration((2, 3, 4, 4), (2, 3, 4, 4), mask_ratio=ratio)
