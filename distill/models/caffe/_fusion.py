"""Caffe's BatchNorm only normalises; the Scale after it is the other half of what PyTorch calls batch normalisation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from distill.models.caffe.network import values_of

Entry = dict[str, Any]


def join_scales(layers: Sequence[Entry], weights: Mapping[str, Tensor]) -> tuple[list[Entry], dict[str, Tensor]]:
    """A Scale of channels that is the only reader of a BatchNorm is joined with it. The joined layer has the name of
    the Scale, whose output it computes."""
    readers = Counter(name for layer in layers for name in layer["inputs"])
    norms = {values_of(layer)[0]: layer for layer in layers if layer["type"] in ("BatchNorm", "BatchNorm1d")}
    joined = dict(weights)
    gone: set[str] = set()
    result: list[Entry] = []
    for layer in layers:
        norm = norms.get(layer["inputs"][0])
        if layer["type"] == "Scale" and norm and readers[norm["name"]] == 1 and _per_channel(layer, norm):
            layer = norm | {"name": layer["name"]}
            del layer["affine"]
            for key in ("running_mean", "running_var", "num_batches_tracked"):
                joined[f"{layer['name']}.{key}"] = joined.pop(f"{norm['name']}.{key}")
            weight = joined[f"{layer['name']}.weight"].flatten()
            bias = joined.get(f"{layer['name']}.bias")
            joined |= {
                f"{layer['name']}.weight": weight,
                f"{layer['name']}.bias": weight.new_zeros(len(weight)) if bias is None else bias.flatten(),
            }
            gone.add(norm["name"])
        result.append(layer)
    return [layer for layer in result if layer["name"] not in gone], joined


def _per_channel(scale: Entry, norm: Entry) -> bool:
    ones = 2 if norm["type"] == "BatchNorm" else 0
    return list(scale["shape"]) == [norm["num_features"], *[1] * ones]
