"""Data modules: one file each."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from distill.data.info import DataInfo
from distill.registry import data

if TYPE_CHECKING:  # pictures are prepared without PyTorch too
    from torch import Tensor
    from torch.utils.data import DataLoader

    from distill.batch import Batch

__all__ = ["READING", "DataInfo", "DataModule", "Viewed", "data"]

READING = ("root", "workers")
"""Settings of data sets that say where samples are read and by how many processes: a fingerprint says what they are."""


@runtime_checkable
class DataModule(Protocol):
    """What a run needs of a data set, which is a Lightning data module as well.

    Validation is a part of the training set, or a split of its own; the test split is read once, at the end of a run.
    """

    info: DataInfo

    batch_size: int
    """Samples in a training batch, over all processes."""

    samples: int
    """Training samples, after the validation part is held out: `Batch.sample` is below it."""

    def train_dataloader(self) -> "DataLoader[Batch]": ...

    def val_dataloader(self) -> "DataLoader[Batch]": ...

    def test_dataloader(self) -> "DataLoader[Batch]": ...

    def train_labels(self) -> "Tensor | None":
        """(samples,) class of each training sample, by `Batch.sample`; None where a sample has no single class."""

    def calibration(self, samples: int) -> "list[Batch]":
        """That many training samples, the same in every run, not augmented; every class in proportion, if any."""

    def fingerprint(self) -> str:
        """Names the content: two data sets of one fingerprint hold the same samples in the same splits."""


@runtime_checkable
class Viewed(Protocol):
    """What a data set promises as well if a teacher's outputs on it may be cached.

    How a training sample looks depends on the seed and `Batch.view` alone, and epoch e shows view ``e % views``.
    """

    views: int | None
    """Set before training; None lets every epoch look different."""

    def every_view(self) -> "DataLoader[Batch]":
        """Each of the ``views`` of each training sample once, in any order."""
