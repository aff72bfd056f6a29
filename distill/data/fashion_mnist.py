"""Clothes of 28x28 pixels, in the form of MNIST.

Xiao, Rasul, Vollgraf: Fashion-MNIST, a Novel Image Dataset for Benchmarking. arXiv:1708.07747.
"""

from pathlib import Path

from torchvision import datasets

from distill.data import _idx, data
from distill.data._find import Origin, find
from distill.data._in_memory import InMemory
from distill.data._rand_augment import Magnitude
from distill.registry.ranges import BelowOne, Count, Index

ORIGIN = Origin(
    title="Fashion-MNIST",
    files=_idx.FILES,
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    download=datasets.FashionMNIST,
    advice="Debian and Ubuntu have them: apt install dataset-fashion-mnist.",
    packages=(Path("/usr/share/datasets/fashion-mnist"),),
)


@data("fashion_mnist")
class FashionMNIST(InMemory):
    """60,000 grey images of 10 kinds of clothes to train on, 10,000 to test with."""

    mean = (0.2860,)
    std = (0.3530,)

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        batch_size: Count = 128,
        val: BelowOne = 0.1,
        limit: Count | None = None,
        crop: Index = 2,
        flip: bool = True,
        rand_augment: Magnitude | None = None,
    ) -> None:
        super().__init__(
            seed,
            *_idx.read(ORIGIN, find(ORIGIN, root)),
            class_names=tuple(datasets.FashionMNIST.classes),
            batch_size=batch_size,
            val=val,
            limit=limit,
            crop=crop,
            flip=flip,
            rand_augment=rand_augment,
        )
