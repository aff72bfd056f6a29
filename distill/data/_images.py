"""What every set of images shares, whether it lives in memory or in files."""

from hashlib import blake2b

import pytorch_lightning as pl
from torch import Tensor

from distill.batch import Batch
from distill.data._loading import Batches, BatchIndices, EveryView, Loader, Source
from distill.data._split import shuffled
from distill.data.info import DataInfo
from distill.errors import RecipeError


class ImageData(pl.LightningDataModule):
    """A training set, the part of it held out for validation, and a test set.

    Args:
        seed: decides shuffling and augmentation; never the split.
        train: the training set, augmented.
        plain: the same samples, not augmented.
        val, test: read in fixed order, not augmented.
        info: what the data set says about itself.
        batch_size: samples in a batch, over all processes.
        workers: processes that read ahead; 0 reads in this one.
    """

    views: int | None = None
    """How many epochs look different before they repeat; None: no two look the same."""

    def __init__(
        self,
        seed: int,
        train: Source,
        plain: Source,
        val: Source,
        test: Source,
        *,
        info: DataInfo,
        batch_size: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise RecipeError(f"data.batch_size={batch_size} must be at least 1 and data.workers={workers} at least 0")
        self.seed = seed
        self.train, self.plain, self.val, self.test = train, plain, val, test
        self.info = info
        self.batch_size = batch_size
        self.workers = workers

    @property
    def samples(self) -> int:
        """Training samples."""
        return len(self.train)

    def train_dataloader(self) -> Loader:
        return Loader(self.train, Batches(self.samples, self.batch_size, self.seed, self.views), self.workers)

    def val_dataloader(self) -> Loader:
        return self._in_order(self.val)

    def test_dataloader(self) -> Loader:
        return self._in_order(self.test)

    def every_view(self) -> Loader:
        """Each of the ``views`` of each training sample once."""
        batches = EveryView(Batches(self.samples, self.batch_size), self.views or 1)
        return Loader(self.train, batches, self.workers)

    def train_labels(self) -> Tensor | None:
        """Class of each training sample, in the order of ``Batch.sample``; None where a sample has no single class."""
        return self.train.classes

    def calibration(self, samples: int) -> list[Batch]:
        """That many training samples, not augmented, the same in every run; every class in proportion, if any."""
        chosen = shuffled(self.samples, self.train.classes)[:samples]
        return [self.plain[BatchIndices(0, batch)] for batch in chosen.split(self.batch_size)]

    def fingerprint(self) -> str:
        """Changes when unaugmented inputs or labels do: of training, validation or test."""
        parts = [source.fingerprint() for source in (self.train, self.val, self.test)]
        form = repr((self.info.image_size, self.info.mean, self.info.std, dict(self.info.preprocessing))).encode()
        return blake2b(b"".join([form, *parts]), digest_size=16).hexdigest()

    def _in_order(self, source: Source) -> Loader:
        return Loader(source, Batches(len(source), self.batch_size), self.workers)
