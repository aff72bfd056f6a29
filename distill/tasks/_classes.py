"""What logits say about classes."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

Logits = Float[Tensor, "batch classes"]
SHOWN = 5
"""Classes of a prediction, the most probable first."""


def most_probable(logits: Logits, name: Callable[[int], Any]) -> list[dict[str, Any]]:
    """``{"class": "cat", "probability": 0.9, "top": [...]}`` of each image.

    Args:
        logits: on any device.
        name: of a class by its number.
    """
    best = logits.detach().float().softmax(1).cpu().topk(min(SHOWN, logits.shape[1]))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    named = [
        [{"class": name(index), "probability": p} for p, index in zip(values, indices, strict=True)]
        for values, indices in rows
    ]
    return [{**top[0], "top": top} for top in named]


def top1_agreement(output: Logits, reference: Logits) -> float:
    """The part of the images for which the most probable class is the same."""
    return float((output.argmax(1) == reference.argmax(1)).float().mean())
