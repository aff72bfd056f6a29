"""Data modules: one file each."""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.utils.data import DataLoader

from distill.batch import Batch
from distill.registry import data

__all__ = ["DataModule", "Viewed", "data"]


@runtime_checkable
class DataModule(Protocol):
    """What a data set offers to a run; it is a Lightning data module as well.

    Validation is a part of the training set, or a split of its own; the test split is read once, at the end of a run.
    """

    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]
    """(height, width)"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """What inputs are normalised with, per channel, for pixels from 0 to 1."""

    batch_size: int
    """Samples in a training batch, over all processes."""

    def train_dataloader(self) -> DataLoader[Batch]: ...

    def val_dataloader(self) -> DataLoader[Batch]: ...

    def test_dataloader(self) -> DataLoader[Batch]: ...

    def train_labels(self) -> Tensor:
        """The training labels, in the order of `Batch.sample`."""

    def calibration(self, samples: int) -> list[Batch]:
        """Some training images of every class, the same each time, not augmented."""

    def fingerprint(self) -> str:
        """Names the content: two data sets of one fingerprint hold the same samples in the same splits."""


@runtime_checkable
class Viewed(Protocol):
    """What a data set promises beside that if a teacher's answers to it may be cached.

    How a training sample looks depends on the seed and `Batch.view` alone, and epoch e shows view ``e % views``.
    """

    views: int | None
    """Set before training; None lets every epoch look different."""

    def every_view(self) -> DataLoader[Batch]:
        """Each of the ``views`` of each training sample once, in any order."""
