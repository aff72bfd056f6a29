"""What images a teacher's weights were trained on, from the recipe, the checkpoint or torchvision."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torchvision
from safetensors import SafetensorError, safe_open

from distill.container.file_format import KEY
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.models.input_transform import INPUT_TRANSFORM, InputTransform
from distill.models.published import published
from distill.recipe.schema import TeacherNetwork

log = logging.getLogger(__name__)


def input_transform(spec: TeacherNetwork, data: DataInfo, channels: int | None) -> dict[str, Any] | None:
    """The settings of `InputTransform` for a teacher, None if its images are the data's.

    What the recipe says comes first, then what the teacher's weights are known to have been trained on.

    Args:
        spec: the recipe entry.
        data: what the data set says about its images.
        channels: of the network's input, None if it does not tell.

    Raises:
        RecipeError: mean and standard deviation are for another number of channels, or impossible; or another size of
            pairs of images, which would change the flow between them.
    """
    if spec.image_size and data.images > 1:
        raise RecipeError(f"teacher '{spec.name}': image_size would change the flow between two images; remove it")
    if not all(value > 0 for value in [*(spec.std or []), 1 if spec.image_size is None else spec.image_size]):
        raise RecipeError(f"teacher '{spec.name}': std {spec.std} and image_size {spec.image_size} are to be above 0")
    known: dict[str, Any] = {"mean": data.mean, "std": data.std, "size": data.image_size}
    known |= trained_on(spec.name, spec.weights) if spec.weights else {}
    mean, std = spec.mean or known["mean"], spec.std or known["std"]
    channels = channels or len(mean) * (data.images if len(mean) <= data.channels else 1)
    mean, std, data_mean, data_std = (
        _each(values, channels, data.images) for values in (mean, std, data.mean, data.std)
    )
    if not len(mean) == len(std) == channels:
        raise RecipeError(
            f"teacher '{spec.name}' reads {channels} channels, but mean has {len(mean)} values and std {len(std)}; "
            "set all three, or leave them to the data"
        )
    size = [spec.image_size] * 2 if spec.image_size else list(data.image_size if data.images > 1 else known["size"])
    same_colours = all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(mean + std, data_mean + data_std, strict=False))
    same_size = size == list(data.image_size)
    if same_colours and same_size and channels == data.channels * data.images:
        return None
    log.info("teacher '%s' reads images of its own: mean %s, std %s, size %s", spec.name, mean, std, size)
    return asdict(InputTransform(data_mean, data_std, mean, std, None if same_size else size))


def trained_on(name: str, weights: str) -> dict[str, Sequence[Any]]:
    """Mean, standard deviation and size of the images behind a checkpoint, as far as they are known.

    Args:
        name: the network's, for torchvision's weights.
        weights: one of our files, which say it, any other file, or the name of torchvision's or a package's weights.
            Those work at more sizes than one: their size is the recipe's choice.
    """
    if Path(weights).suffix:
        return _recorded(Path(weights))
    if package := published(name, weights):
        return {"mean": package.mean, "std": package.std}
    try:
        preset = torchvision.models.get_model_weights(name)[weights].transforms()
    except (KeyError, ValueError):  # said better by who loads the weights
        return {}
    known = {key: getattr(preset, key, None) for key in ("mean", "std")}  # those for optical flow do not say
    return {key: list(values) for key, values in known.items() if values}


def _recorded(path: Path) -> dict[str, Sequence[Any]]:
    """What an artifact says about its images: the network's own before those of its data."""
    try:
        with safe_open(path, "pt") as file:
            head = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (OSError, SafetensorError):  # no file, or not one of ours
        return {}
    data = head.get("about", {}).get("info", {})
    size = {"size": data["image_size"]} if data else {}
    own = {key: value for key, value in head.get("network", {}).get(INPUT_TRANSFORM, {}).items() if value is not None}
    found = data | size | own
    return {key: found[key] for key in ("mean", "std", "size") if key in found}


def _each(values: Sequence[float], channels: int, images: int) -> list[float]:
    """One value for each channel of all images, from those of one image, or from one for all."""
    repeated = {1: channels, channels // images: images}
    return list(values) * repeated.get(len(values), 1)
