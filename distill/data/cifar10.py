"""Photographs of 32x32 pixels, 10 classes.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, technical report, 2009.
"""

from pathlib import Path

from torchvision import datasets

from distill.data import _cifar, data
from distill.data._find import find
from distill.data._in_memory import InMemory

ORIGIN = _cifar.origin("CIFAR-10", datasets.CIFAR10)


@data("cifar10")
class CIFAR10(InMemory):
    """50,000 colour images of 10 classes to train on, 10,000 to test with."""

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    def __init__(
        self,
        seed: int,
        *,
        root: Path | None = None,
        batch_size: int = 128,
        val: float = 0.1,
        limit: int | None = None,
        crop: int = 4,
        flip: bool = True,
    ) -> None:
        train, test, class_names = _cifar.read(find(ORIGIN, root), datasets.CIFAR10)
        super().__init__(
            seed,
            train,
            test,
            class_names=class_names,
            batch_size=batch_size,
            val=val,
            limit=limit,
            crop=crop,
            flip=flip,
        )
