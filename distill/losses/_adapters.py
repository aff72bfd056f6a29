"""Learned layers that give a student's map the teacher's channels: trained with the student, never shipped."""

from typing import Any

from torch import nn


def adapter(student_channels: int, teacher_channels: int) -> nn.Module:
    """A 1x1 convolution; nothing where the channels agree already."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)


def connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """A 1x1 convolution and a batch norm, which finds the teacher's scale at any learning rate."""
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False), nn.BatchNorm2d(teacher_channels)
    )


def bottleneck(inputs: int, inner: int, outputs: int, patch: tuple[int, int] | None = None) -> nn.Sequential:
    """1x1, 3x3 and 1x1 convolutions, each followed by batch norm and ReLU.

    Args:
        inputs: channels.
        inner: channels of the convolution in the middle.
        outputs: channels.
        patch: the middle convolution reads patches of this height and width, side by side, instead of 3x3.
    """
    geometry: dict[str, Any] = {"kernel_size": patch, "stride": patch} if patch else {"kernel_size": 3, "padding": 1}
    return nn.Sequential(
        nn.Conv2d(inputs, inner, kernel_size=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, inner, **geometry, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, outputs, kernel_size=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
