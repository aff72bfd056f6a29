"""What every set of labelled images offers, whether it lives in memory or in files."""

from hashlib import blake2b

import pytorch_lightning as pl
from torch import Tensor

from distill.batch import Batch
from distill.data._loading import Batches, BatchIndices, EveryView, Loader, Source
from distill.data._split import stratified
from distill.data.info import DataInfo
from distill.errors import RecipeError


class ImageData(pl.LightningDataModule):
    """A training set, the part of it held out for validation, and a test set.

    Args:
        seed: decides shuffling and augmentation; never the split.
        train: the training set, augmented.
        plain: the same samples as they are.
        val, test: read in fixed order, as they are.
        class_names: by label.
        image_size: height and width.
        batch_size: samples a batch, over all processes.
        workers: processes that read ahead; 0 reads in this one.
    """

    mean: tuple[float, ...]
    """Of each channel, for pixels from 0 to 1: what inputs are normalised with."""
    std: tuple[float, ...]
    views: int | None = None
    """How many epochs look different before they repeat; without, no two look the same."""

    def __init__(
        self,
        seed: int,
        train: Source,
        plain: Source,
        val: Source,
        test: Source,
        *,
        class_names: tuple[str, ...],
        image_size: tuple[int, int],
        batch_size: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise RecipeError(f"data.batch_size={batch_size}: a batch has at least one sample")
        self.seed = seed
        self.train, self.plain, self.val, self.test = train, plain, val, test
        self.class_names = class_names
        self.num_classes = len(class_names)
        self.channels = len(self.mean)
        self.image_size = image_size
        self.batch_size = batch_size
        self.workers = workers

    @property
    def info(self) -> DataInfo:
        """What the data set says about itself."""
        return DataInfo(self.channels, self.image_size, self.mean, self.std, self.class_names)

    @property
    def samples(self) -> int:
        """Training samples."""
        return len(self.train.labels)

    def train_dataloader(self) -> Loader:
        batches = Batches(len(self.train.labels), self.batch_size, self.seed, self.views)
        return Loader(self.train, batches, self.workers)

    def val_dataloader(self) -> Loader:
        return self._in_order(self.val)

    def test_dataloader(self) -> Loader:
        return self._in_order(self.test)

    def every_view(self) -> Loader:
        """Each of the ``views`` of each training sample once."""
        batches = EveryView(Batches(len(self.train.labels), self.batch_size), self.views or 1)
        return Loader(self.train, batches, self.workers)

    def train_labels(self) -> Tensor:
        """Label of each training sample, in the order of ``Batch.sample``."""
        return self.train.labels

    def calibration(self, samples: int) -> list[Batch]:
        """That many training samples as they are, every class in proportion, the same in every run."""
        chosen = stratified(self.train.labels)[:samples]
        return [self.plain[BatchIndices(0, batch)] for batch in chosen.split(self.batch_size)]

    def fingerprint(self) -> str:
        """Changes when unaugmented inputs or labels do: of training, validation or test."""
        parts = [source.fingerprint() for source in (self.train, self.val, self.test)]
        form = repr((self.image_size, self.mean, self.std)).encode()
        return blake2b(b"".join([form, *parts]), digest_size=16).hexdigest()

    def _in_order(self, source: Source) -> Loader:
        return Loader(source, Batches(len(source.labels), self.batch_size), self.workers)
