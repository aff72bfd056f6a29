"""Layers without weights, in PyTorch's terms."""

from typing import Any

import torch

from distill.models.caffe._layer import Layer, Part
from distill.models.caffe._weighted import plain

POOL = {0: "Max", 1: "Average"}


def pooling(layer: Layer) -> list[Part]:
    """Maximum or average; sizes are rounded up, and a last window that lies in the padding alone is left out."""
    settings = layer.message.pooling_param
    layer.need(settings.pool in POOL and layer.rank == 4, "pools other than maximum or average of (height, width)")
    kind = POOL[settings.pool]
    if settings.global_pooling:
        return [Part(f"Global{kind}Pool", {"output_size": 1})]
    kernel, stride, padding = (
        [getattr(settings, f"{short}_h"), getattr(settings, f"{short}_w")]
        if settings.HasField(f"{short}_h") or settings.HasField(f"{short}_w")
        else [getattr(settings, name)] * 2
        for name, short in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad"))
    )
    layer.need(min(*kernel, *stride) > 0, f"has kernel {kernel} and stride {stride}")
    layer.need(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)), "is padded by more than half a window")
    up = settings.round_mode == 0 and settings.ceil_mode
    for size, k, s, p in zip(layer.shapes[0][2:], kernel, stride, padding, strict=True):
        empty = up and p == 0 and -(-(size - k) // s) * s >= size
        layer.need(not empty, f"has a last window beyond a map of {size}, in which Caffe finds nothing: crop the map")
    options = {"kernel_size": kernel, "stride": stride} | ({"padding": padding} if any(padding) else {})
    return [Part(f"{kind}Pool", options | ({"ceil_mode": True} if up else {}))]


def relu(layer: Layer) -> list[Part]:
    """With a slope for negative values, if there is one."""
    slope = plain(layer.message.relu_param.negative_slope) if hasattr(layer.message, "relu_param") else 0.0
    return [Part("LeakyReLU", {"negative_slope": slope}) if slope else Part("ReLU", {})]


def lrn(layer: Layer) -> list[Part]:
    """Across channels, or within each."""
    settings = layer.message.lrn_param
    layer.need(settings.local_size % 2 == 1, f"has local_size {settings.local_size}, which is even")
    options = {"size": settings.local_size, "alpha": plain(settings.alpha), "beta": plain(settings.beta)}
    if settings.norm_region == 1:
        return [Part("LRNWithin", options)]
    return [Part("LRN", options | {"k": plain(settings.k)})]


def eltwise(layer: Layer) -> list[Part]:
    """Sum, product or maximum."""
    settings = layer.message.eltwise_param
    layer.need(len(set(layer.shapes)) == 1, f"reads maps of different shapes: {', '.join(map(str, layer.shapes))}")
    coefficients = [plain(value) for value in settings.coeff]
    layer.need(
        not coefficients or (settings.operation == 1 and len(coefficients) == len(layer.shapes)),
        f"has {len(coefficients)} coefficients for {len(layer.shapes)} maps, or for no sum",
    )
    operation = ("PROD", "SUM", "MAX")[settings.operation]
    options: dict[str, Any] = {} if operation == "SUM" else {"operation": operation}
    return [Part("Eltwise", options | ({"coefficients": coefficients} if coefficients else {}))]


def concat(layer: Layer) -> list[Part]:
    """Along any axis."""
    settings = layer.message.concat_param
    axis = layer.axis(settings.concat_dim if settings.HasField("concat_dim") else settings.axis)
    return [Part("Concat", {} if axis == 1 else {"axis": axis})]


def slice_(layer: Layer) -> list[Part]:
    """At given points, or in equal parts."""
    settings = layer.message.slice_param
    axis = layer.axis(settings.slice_dim if settings.HasField("slice_dim") else settings.axis)
    size, count = layer.shapes[0][axis], len(layer.tops)
    points = list(settings.slice_point) or [size * part // count for part in range(1, count)]
    layer.need(bool(settings.slice_point) or size % count == 0, f"cuts {size} into {count} unequal parts")
    sizes = [after - before for before, after in zip([0, *points], [*points, size], strict=True)]
    layer.need(len(sizes) == count and min(sizes) > 0, f"cuts {size} at {points} into {count} parts")
    return [Part("Slice", {"sizes": sizes} | ({} if axis == 1 else {"axis": axis}))]


def split(layer: Layer) -> list[Part]:
    """The same map for several readers."""
    return [Part("Split", {"count": len(layer.tops)})]


def crop(layer: Layer) -> list[Part]:
    """To the size of a second map."""
    settings = layer.message.crop_param
    axis = layer.axis(settings.axis)
    axes = layer.rank - axis
    offsets = list(settings.offset) or [0]
    layer.need(len(offsets) in (1, axes), f"has {len(offsets)} offsets for {axes} axes")
    return [Part("Crop", {"axis": axis, "offsets": offsets if len(offsets) == axes else offsets * axes})]


def flatten(layer: Layer) -> list[Part]:
    """Some axes into one."""
    settings = layer.message.flatten_param if hasattr(layer.message, "flatten_param") else None
    start, end = (layer.axis(settings.axis), layer.axis(settings.end_axis)) if settings else (1, layer.rank - 1)
    options = {} if start == 1 else {"start_dim": start}
    return [Part("Flatten", options if end == layer.rank - 1 else options | {"end_dim": end})]


def reshape(layer: Layer) -> list[Part]:
    """The batch's size is kept where it stays the same, so that any batch can be read."""
    settings = layer.message.reshape_param
    shape = layer.shapes[0]
    axis = settings.axis % (len(shape) + 1)
    end = len(shape) if settings.num_axes < 0 else axis + settings.num_axes
    layer.need(end <= len(shape), f"reshapes axes {axis} to {end} of {list(shape)}")
    middle = list(settings.shape.dim)
    layer.need(
        all(axis + k < len(shape) for k, size in enumerate(middle) if size == 0), "keeps an axis that is not there"
    )
    wanted = [0] * axis + [shape[axis + k] if size == 0 and axis + k != 0 else size for k, size in enumerate(middle)]
    wanted += shape[end:]
    layer.need(bool(wanted) and wanted.count(-1) < 2 and min(wanted) >= -1, f"has no possible shape: {wanted}")
    return [Part("Reshape", {"shape": [0 if wanted[0] in (0, shape[0]) else wanted[0], *wanted[1:]]})]


def permute(layer: Layer) -> list[Part]:
    """Axes that are not named follow in order."""
    order = [int(axis) for axis in layer.message.permute_param.order]
    order += [axis for axis in range(layer.rank) if axis not in order]
    layer.need(sorted(order) == list(range(layer.rank)), f"orders axes {order} of a map of rank {layer.rank}")
    return [Part("Permute", {"order": order})]


def softmax(layer: Layer) -> list[Part]:
    """Along any axis."""
    return [Part("Softmax", {"dim": layer.axis(layer.message.softmax_param.axis)})]


def dropout(layer: Layer) -> list[Part]:
    """Nothing, but while training."""
    return [Part("Dropout", {"p": plain(layer.message.dropout_param.dropout_ratio)})]


def power(layer: Layer) -> list[Part]:
    """(shift + scale x) ^ power"""
    settings = layer.message.power_param
    values = {"power": plain(settings.power), "scale": plain(settings.scale), "shift": plain(settings.shift)}
    return [Part("Power", {name: value for name, value in values.items() if value != (name != "shift")})]


def elu(layer: Layer) -> list[Part]:
    """With its slope at minus infinity."""
    return [Part("ELU", {"alpha": plain(layer.message.elu_param.alpha)})]


def pointwise(layer: Layer) -> list[Part]:
    """Functions without settings."""
    return [Part(layer.type, {})]


def prior_box(layer: Layer) -> list[Part]:
    """Ratios that are given twice count once, and 1 is always among them."""
    settings = layer.message.prior_box_param
    ratios: list[float] = []
    for ratio in settings.aspect_ratio:
        layer.need(ratio > 0, f"has an aspect ratio of {ratio}")
        if all(abs(ratio - known) >= 1e-6 for known in (1.0, *ratios)):
            ratios += [plain(ratio), plain(1 / ratio)] if settings.flip else [plain(ratio)]
    options: dict[str, Any] = {
        "min_sizes": [plain(size) for size in settings.min_size],
        "max_sizes": [plain(size) for size in settings.max_size],
        "ratios": ratios,
        "variances": [plain(variance) for variance in settings.variance] or [0.1],
        "steps": [plain(step) for step in _height_width(settings, "step", settings.step)],
        "image": _height_width(settings, "img", settings.img_size),
    }
    options = {key: value for key, value in options.items() if value}
    options |= {"clip": True} if settings.clip else {}
    options |= {"offset": plain(settings.offset)} if settings.offset != 0.5 else {}
    layer.need(
        len(layer.bottoms) == 2 and "min_sizes" in options, "has no min_size, or does not read a map and an image"
    )
    return [Part("PriorBox", options)]


def _height_width(settings: Any, name: str, both: float) -> list[Any]:
    found = [getattr(settings, f"{name}_h"), getattr(settings, f"{name}_w")]
    return found if all(found) else [both, both] if both else []


def detection_output(layer: Layer) -> list[Part]:
    """Best boxes of each class."""
    settings = layer.message.detection_output_param
    suppression = settings.nms_param
    layer.need(
        settings.num_classes > 0 and len(layer.bottoms) >= 3, "has no num_classes, or reads less than three maps"
    )
    layer.need(suppression.eta == 1, f"has an eta of {suppression.eta:g}: only 1 is known")
    options: dict[str, Any] = {
        "num_classes": settings.num_classes,
        "overlap": plain(suppression.nms_threshold),
        "candidates": suppression.top_k,
        "keep": settings.keep_top_k,
        "code": {1: "CORNER", 2: "CENTER_SIZE", 3: "CORNER_SIZE"}[settings.code_type],
    }
    options |= {} if settings.share_location else {"share_location": False}
    options |= {"background": settings.background_label_id} if settings.background_label_id else {}
    options |= {"variance_encoded": True} if settings.variance_encoded_in_target else {}
    if settings.HasField("confidence_threshold"):
        options["confidence"] = plain(settings.confidence_threshold)
    boxes = torch.Size(layer.shapes[2]).numel() // 8
    classes = 1 if settings.share_location else settings.num_classes
    sizes = [torch.Size(shape[1:]).numel() for shape in layer.shapes[:2]]
    layer.need(
        sizes == [boxes * classes * 4, boxes * settings.num_classes],
        f"reads {sizes[0]} locations and {sizes[1]} confidences for {boxes} boxes",
    )
    return [Part("DetectionOutput", options)]
