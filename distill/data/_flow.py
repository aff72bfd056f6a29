"""Optical flow that goes along with its pictures: vectors turn and scale as the pixels that they belong to do."""

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

UNKNOWN = float("nan")


class Flow(tv_tensors.TVTensor):
    """(2, height, width) float32: pixels to the right, then down, from the first picture to the second; NaN where
    unknown.

    It knows flips, crops, padding and resizing of torchvision.transforms.v2; no other transform may be used with it.
    """


@F.register_kernel(F.horizontal_flip, Flow)
def _horizontal_flip(flow: Flow, *_: Any, **__: Any) -> Flow:
    return _flow(flow.flip(-1) * _vector(-1, 1))


@F.register_kernel(F.vertical_flip, Flow)
def _vertical_flip(flow: Flow, *_: Any, **__: Any) -> Flow:
    return _flow(flow.flip(-2) * _vector(1, -1))


@F.register_kernel(F.resize, Flow)
def _resize(flow: Flow, size: list[int] | None, *_: Any, max_size: int | None = None, **__: Any) -> Flow:
    height, width = flow.shape[-2:]
    resized = F.resize_image(flow.as_subclass(Tensor), size, max_size=max_size, antialias=True)
    return _flow(resized * _vector(resized.shape[-1] / width, resized.shape[-2] / height))


@F.register_kernel(F.pad, Flow)
def _pad(flow: Flow, padding: list[int], *_: Any, **__: Any) -> Flow:
    return _flow(F.pad_image(flow.as_subclass(Tensor), padding, fill=UNKNOWN))


@F.register_kernel(F.crop, Flow)
def _crop(flow: Flow, top: int, left: int, height: int, width: int) -> Flow:
    inside = F.crop_image(torch.ones(flow.shape[-2:])[None], top, left, height, width)
    return _flow(F.crop_image(flow.as_subclass(Tensor), top, left, height, width).where(inside > 0, UNKNOWN))


@F.register_kernel(F.center_crop, Flow)
def _center_crop(flow: Flow, output_size: list[int]) -> Flow:
    inside = F.center_crop_image(torch.ones(flow.shape[-2:])[None], output_size)
    return _flow(F.center_crop_image(flow.as_subclass(Tensor), output_size).where(inside > 0, UNKNOWN))


@F.register_kernel(F.resized_crop, Flow)
def _resized_crop(
    flow: Flow, top: int, left: int, height: int, width: int, size: list[int], *_: Any, **__: Any
) -> Flow:
    return _resize(_crop(flow, top, left, height, width), size)


def _vector(right: float, down: float) -> Float32[Tensor, "2 1 1"]:
    return torch.tensor([right, down], dtype=torch.float32)[:, None, None]


def _flow(values: Tensor) -> Flow:
    return values.as_subclass(Flow)
