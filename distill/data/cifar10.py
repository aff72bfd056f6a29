"""Photographs of 32x32 pixels, 10 classes.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images, technical report, 2009.
"""

from torchvision import datasets

from distill.data import data
from distill.data._cifar import Cifar


@data("cifar10")
class CIFAR10(Cifar):
    """50,000 colour images of 10 classes to train on, 10,000 to test with."""

    title = "CIFAR-10"
    reference = datasets.CIFAR10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
