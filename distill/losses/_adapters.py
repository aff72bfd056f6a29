"""Learned layers that give a student's map the teacher's channels: trained with the student, never shipped."""

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
