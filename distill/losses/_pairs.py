"""What the losses share that see several taps at once, each of the student beside one of the teacher."""

import torch
from jaxtyping import Float
from torch import Tensor

Shape = tuple[int, ...]


def paired(loss: str, student_shapes: list[Shape], teacher_shapes: list[Shape]) -> list[tuple[Shape, Shape]]:
    """Both shapes of every pair of taps.

    Raises:
        ValueError: a tap is left over.
    """
    if len(student_shapes) != len(teacher_shapes):
        raise ValueError(
            f"{loss} compares taps in pairs, but there are {len(student_shapes)} of the student "
            f"and {len(teacher_shapes)} of the teacher; name as many of each"
        )
    return list(zip(student_shapes, teacher_shapes))


def sum_of_halved(values: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The sum of all values; the last counts whole, each before it half of the next."""
    return torch.stack([value / 2**depth for depth, value in enumerate(reversed(values))]).sum()
