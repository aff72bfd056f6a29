"""Handwritten digits of 28x28 pixels.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998.
"""

from pathlib import Path

from torchvision import datasets

from distill.data import _idx, data
from distill.data._find import Origin, find
from distill.data._in_memory import InMemory
from distill.data._rand_augment import Magnitude
from distill.registry.ranges import BelowOne, Count, Index

ORIGIN = Origin(
    title="MNIST",
    files=_idx.FILES,
    folders=("mnist", "MNIST/raw"),
    download=datasets.MNIST,
    advice=f"They are at {datasets.MNIST.mirrors[0]}.",
)


@data("mnist")
class MNIST(InMemory):
    """60,000 grey images of 10 digits to train on, 10,000 to test with."""

    mean = (0.1307,)
    std = (0.3081,)

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        batch_size: Count = 128,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        crop: Index = 2,
        flip: bool = False,
        rand_augment: Magnitude | None = None,
    ) -> None:
        super().__init__(
            seed,
            *_idx.read(ORIGIN, find(ORIGIN, root)),
            class_names=tuple("0123456789"),
            batch_size=batch_size,
            val=val,
            limit=limit,
            crop=crop,
            flip=flip,
            rand_augment=rand_augment,
        )
