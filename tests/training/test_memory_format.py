"""The layout that networks are trained in on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distill.recipe.schema import Stage
from distill.training.memory_format import memory_format_on_cpu
from students import mobilenet_v2, resnet8, resnet20
from tests.training.test_distiller import same, trained


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (resnet20(), torch.channels_last),  # its shortcuts read 16 and 32 channels
        (mobilenet_v2(), torch.channels_last),
        (nn.Conv2d(4, 8, 1), torch.channels_last),
        (nn.Conv2d(4, 8, 3, 2), torch.channels_last),
        (resnet8(width=0.5), torch.contiguous_format),
        (nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(4, 8, 1, (1, 2))), torch.contiguous_format),
    ],
)
def test_strided_1x1_convolutions_of_few_channels_are_not_trained_channels_last(
    network: nn.Module, expected: torch.memory_format
) -> None:
    assert memory_format_on_cpu([nn.ReLU(), network]) == expected


def test_narrow_shortcuts_learn_as_in_the_other_layout(tmp_path: Path) -> None:
    """In channels last oneDNN writes behind its memory: this process would crash, hang, or learn something else."""

    def learned(*, channels_last: bool) -> nn.Module:
        torch.manual_seed(0)
        student = resnet8(num_classes=10, channels=1, width=0.25)
        folder = tmp_path / str(channels_last)
        return trained(Stage(epochs=1), folder, student=student, channels_last=channels_last)[0]

    assert same(learned(channels_last=True), learned(channels_last=False))
