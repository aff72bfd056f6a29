"""Batches: which samples, in which epoch, on which process."""

import pickle

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data._loading import Batches, BatchIndices, Loader, mix
from distill.errors import DataError, RecipeError

QUIET = {
    "accelerator": "cpu",
    "use_distributed_sampler": False,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Echo:
    """A source whose inputs say which epoch and sample was asked for."""

    classes = torch.arange(10)

    def __len__(self) -> int:
        return 10

    def __getitem__(self, indices: BatchIndices) -> Batch:
        inputs = torch.stack([torch.full_like(indices.samples, indices.epoch), indices.samples], dim=1)
        return Batch(inputs.float(), self.classes[indices.samples], indices.samples)

    def fingerprint(self) -> bytes:
        return b"echo"


class Broken(Echo):
    def __getitem__(self, indices: BatchIndices) -> Batch:
        raise DataError("x.jpg is no readable picture; replace or remove it")


def drawn(batches: Batches) -> list[list[int]]:
    return [indices.samples.tolist() for indices in batches]


@pytest.fixture
def process(monkeypatch):
    """Pretends to be one of several processes that train together."""

    def pretend(rank: int, processes: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes)

    return pretend


def test_evaluation_reads_everything_in_order():
    batches = Batches(10, 4)
    assert drawn(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


def test_training_shuffles_and_drops_what_fills_no_batch():
    batches = Batches(10, 4, seed=0)
    first = drawn(batches)
    assert [len(batch) for batch in first] == [4, 4]
    assert len(batches) == 2
    assert len({sample for batch in first for sample in batch}) == 8
    left_out = set()
    for epoch in range(20):
        batches.set_epoch(epoch)
        left_out |= set(range(10)) - {sample for batch in drawn(batches) for sample in batch}
    assert left_out == set(range(10))


def test_a_set_smaller_than_a_batch_is_one_batch():
    batches = Batches(3, 8, seed=0)
    assert sorted(drawn(batches)[0]) == [0, 1, 2]
    assert len(batches) == 1


def test_no_samples_no_batches():
    assert drawn(Batches(0, 8)) == []
    assert len(Batches(0, 8)) == 0


def test_an_epoch_is_the_same_whether_reached_or_resumed():
    trained, resumed = Batches(100, 8, seed=5), Batches(100, 8, seed=5)
    for epoch in range(4):
        trained.set_epoch(epoch)
        reached = drawn(trained)
    resumed.set_epoch(3)
    assert drawn(resumed) == reached
    resumed.set_epoch(2)
    assert drawn(resumed) != reached
    assert drawn(Batches(100, 8, seed=6)) != drawn(Batches(100, 8, seed=5))


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("seed", [None, 0])
def test_processes_share_every_batch_of_one_process(process, seed, processes):
    alone = [set(batch) for batch in drawn(Batches(26, 8, seed))]
    shares = []
    for rank in range(processes):
        process(rank, processes)
        shares.append(drawn(Batches(26, 8, seed)))
        assert len(Batches(26, 8, seed)) == len(shares[-1])
    assert sum(len(batch) for share in shares for batch in share) == sum(map(len, alone))  # no duplicates
    for number, batch in enumerate(alone):
        assert batch == {sample for share in shares if number < len(share) for sample in share[number]}


def test_every_process_trains_the_same_number_of_steps(process):
    steps = []
    for rank in range(3):
        process(rank, 3)
        steps.append(len(drawn(Batches(26, 8, seed=0))))
    assert steps == [3, 3, 3]


def test_a_batch_too_small_for_its_processes_is_refused(process):
    process(0, 4)
    with pytest.raises(RecipeError, match=r"batch of 2 samples cannot feed 4 processes: raise data\.batch_size"):
        len(Batches(100, 2, seed=0))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_set_after_the_iterator_is_made_counts(workers):
    loader = Loader(Echo(), Batches(10, 4, seed=0), workers)
    iterator = iter(loader)  # so Lightning does, when it resumes
    loader.sampler.set_epoch(7)
    batches = list(iterator)
    assert {value for batch in batches for value in batch.inputs[:, 0].tolist()} == {7}
    loader.sampler.set_epoch(8)
    assert {value for batch in loader for value in batch.inputs[:, 0].tolist()} == {8}
    assert all(isinstance(batch, Batch) for batch in batches)


class Diary(pl.LightningModule):
    """Writes down which epoch each batch came from, by Lightning's count and by the batch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = []
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.pages.append((self.current_epoch, *batch.inputs[:, 0].unique().tolist(), batch.sample.tolist()))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_sets_the_epoch_also_when_it_resumes(tmp_path, workers):
    def trained(epochs: int, checkpoint: str | None = None) -> Diary:
        diary, loader = Diary(), Loader(Echo(), Batches(10, 4, seed=0), workers)
        trainer = pl.Trainer(max_epochs=epochs, default_root_dir=tmp_path, **QUIET)
        trainer.fit(diary, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return diary

    whole, half = trained(4).pages, trained(2).pages
    assert half + trained(4, str(tmp_path / "2.ckpt")).pages == whole
    assert [page[:2] for page in whole] == [(epoch, epoch) for epoch in range(4) for _ in range(2)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_line_wherever_it_is_met(workers):
    with pytest.raises(DataError, match=r"\Ax.jpg is no readable picture; replace or remove it\Z"):
        list(Loader(Broken(), Batches(10, 4), workers))


def test_workers_started_afresh_can_be_given_the_source():
    copy = pickle.loads(pickle.dumps(Loader(Echo(), Batches(10, 4)).dataset))
    assert copy[BatchIndices(0, torch.tensor([3]))].labels.tolist() == [3]


def test_keys_mix_to_unrelated_seeds():
    keys = [(a, b, c) for a in range(4) for b in range(4) for c in range(4)] + [(-1, 0), (2**63, 1)]
    assert len({mix(*key) for key in keys}) == len(keys)
