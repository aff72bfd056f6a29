"""Photographs of 32x32 pixels, 100 classes.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, technical report, 2009.
"""

from torchvision import datasets

from distill.data import data
from distill.data._cifar import Cifar


@data("cifar100")
class CIFAR100(Cifar):
    """50,000 colour images of 100 classes to train on, 10,000 to test with."""

    title = "CIFAR-100"
    reference = datasets.CIFAR100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
