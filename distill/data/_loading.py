"""Whole batches by index: a sampler that knows its epoch and its process, and a loader that collates nothing."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from distill.batch import Batch
from distill.errors import DataError, RecipeError


class BatchIndices(NamedTuple):
    """Which samples to load; the epoch travels with the indices, so that workers in other processes know it too."""

    epoch: int
    samples: Int64[Tensor, " batch"]
    view: int | None = None
    """Becomes `Batch.view`."""


@runtime_checkable
class Source(Protocol):
    """Images that are read a batch at a time, with labels of any kind or without."""

    @property
    def classes(self) -> Tensor | None:
        """(samples,) class of each sample; None where a sample has no single class."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: BatchIndices, /) -> Batch: ...

    def fingerprint(self) -> bytes:
        """Changes when an unaugmented input or a label does."""


class Batches(Sampler[BatchIndices]):
    """Which samples make up each batch of the current epoch; under DDP each process gets its share of every batch.

    With a seed (training) samples are shuffled anew every epoch; without (evaluation) order is fixed and all are there.
    ``batch_size`` counts samples over all processes: adding processes changes neither batches nor learning rates.
    With ``views`` that many epochs look different and then repeat, in new batches.
    """

    def __init__(self, samples: int, batch_size: int, seed: int | None = None, views: int | None = None) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.views = views
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch, also by the first one after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchIndices]:
        rank, processes = _process()
        epoch = self.epoch % self.views if self.views else self.epoch
        for batch in self._batches(processes):
            if len(batch) > rank:
                yield BatchIndices(epoch, batch[rank::processes], None if self.seed is None else epoch)

    def __len__(self) -> int:
        rank, processes = _process()
        return sum(len(batch) > rank for batch in self._batches(processes))

    def _batches(self, processes: int) -> list[Tensor]:
        if self.seed is None:
            return list(torch.arange(self.samples).split(self.batch_size))
        # A last, tiny batch has useless batch statistics (none at all for one sample), so it is dropped; the shuffle
        # leaves out others in the next epoch. A set smaller than one batch is one batch.
        size = min(self.samples, self.batch_size)
        if size < processes:
            raise RecipeError(f"a batch of {size} samples cannot feed {processes} processes: raise data.batch_size")
        order = torch.randperm(self.samples, generator=stream(self.seed, self.epoch))
        return [batch for batch in order.split(size) if len(batch) == size]


class EveryView(Sampler[BatchIndices]):
    """All batches of each view after the other; each process gets its share of them."""

    def __init__(self, batches: Batches, views: int) -> None:
        self.batches, self.views = batches, views

    def __iter__(self) -> Iterator[BatchIndices]:
        for view in range(self.views):
            for indices in self.batches:
                yield BatchIndices(view, indices.samples, view)

    def __len__(self) -> int:
        return self.views * len(self.batches)


class Loader(DataLoader[Any]):
    """Batches of a source, read here or by worker processes.

    Iterating is a generator, hence lazy: Lightning makes the first iterator before it calls ``set_epoch``, and workers
    would already be busy with epoch 0 where training resumes in another one.

    Raises:
        DataError: a file is damaged; the message is the same whether a worker read it or this process.
    """

    def __init__(self, source: Source, sampler: Sampler[BatchIndices], workers: int = 0) -> None:
        super().__init__(
            BatchDataset(source),
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises a class of its own
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                # Raising `batch` itself would tie a knot, frame -> error -> frame, for the garbage collector to find;
                # a loader that it finds no longer reaches its workers, and waits 5 s for each.
                raise DataError(str(batch))
            yield batch


class BatchDataset(Dataset[Any]):
    """Writes on each batch which view it shows.

    A DataError leaves a worker as a value: a raised one would arrive wrapped in the worker's traceback.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, indices: BatchIndices) -> Batch | DataError:
        try:
            return self.source[indices]._replace(view=indices.view)
        except DataError as error:
            return error


def mix(*key: int) -> int:
    """One 64-bit seed for a key such as (seed, epoch, sample): neighbouring keys get unrelated seeds."""
    return int(np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1, np.uint64)[0])


def stream(*key: int) -> torch.Generator:
    """A random stream of its own for every key."""
    return torch.Generator().manual_seed(mix(*key))


def _process() -> tuple[int, int]:
    """This process's rank, and the number of processes that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
