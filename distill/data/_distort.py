"""Distortions of written characters: black on white, grey."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

BILINEAR = v2.InterpolationMode.BILINEAR


def distortions(size: int) -> list[v2.Transform]:
    """Affine (10 degrees, a tenth of the side, a tenth of the size, shear of 10 degrees), elastic, stroke width, noise.

    Elastic distortions: Simard, Steinkraus, Platt, Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis, ICDAR 2003.
    """
    return [
        affine(),
        v2.ElasticTransform(alpha=float(size), sigma=size / 10, fill=255),
        StrokeWidth(),
        Noise(),
    ]


def affine() -> v2.Transform:
    """Turns, shifts, scales and shears; white moves in."""
    return v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 10, interpolation=BILINEAR, fill=255)


class StrokeWidth(v2.Transform):
    """Thickens a quarter of the pictures by a pixel on each side, and thins a quarter half as much."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"kind": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Image.Image) or params["kind"] > 1:
            return inpt
        if params["kind"] == 0:
            return inpt.filter(ImageFilter.MinFilter(3))
        return Image.blend(inpt, inpt.filter(ImageFilter.MaxFilter(3)), 0.5)


class Noise(v2.Transform):
    """Normal noise of a random standard deviation of up to 20 grey levels, and less contrast."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"deviation": float(20 * torch.rand(())), "contrast": float(0.5 + 0.5 * torch.rand(()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Image.Image):
            return inpt
        values = 255 - params["contrast"] * (255 - np.asarray(inpt, np.float32))
        values = values + params["deviation"] * torch.randn(values.shape).numpy()
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))
