"""Distillation steps in four ways: ours, ours with a cache, a bare PyTorch loop, torchdistill.

All train the same networks by the same losses; seconds are those from the end of the first step to that of the last.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks._work import InOurMemory, OneByOne, Workload, shapes
from distill.losses import loss as losses
from distill.losses.at import attention_transfer
from distill.losses.kd import soft_targets
from distill.losses.reviewkd import KnowledgeReview
from distill.recipe.schema import Cache, Loss, Optimizer, Schedule, Stage
from distill.registry import schema
from distill.tasks.classification import Classification
from distill.training.cache import CachedTeacher
from distill.training.cache._store import Store
from distill.training.distiller import Distiller
from distill.training.fit import fit
from distill.training.teacher import Teacher

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
WEIGHTS = {"kd": 0.9, "at": 1000.0, "reviewkd": 1.0}
TEMPERATURE = 4.0


class Run(NamedTuple):
    """One way, run once."""

    seconds: float
    startup: float
    """Seconds until the end of the first step."""
    loss: float
    """Of the last step in a bare loop; ours tells the mean over all."""


def ours(work: Workload, cache: Callable[[Teacher], nn.Module] = lambda teacher: teacher) -> Run:
    """A stage of ours on Lightning's Trainer, as a recipe runs it."""
    data, started = InOurMemory(work), time.perf_counter()
    student, teacher = work.networks()
    module = Distiller(
        student,
        teacher,
        Classification(data.info),
        Stage(epochs=1, losses=_terms(work)),
        optimizer=Optimizer(**SGD),
        schedule=Schedule("constant"),
        example=data.calibration(8)[0],
        injectable={},
        cached=cache,
        channels_last=work.channels_last,
        compiled=work.compiled,
    )
    ends: list[float] = []
    module.on_train_batch_end = lambda *_: ends.append(time.perf_counter())  # type: ignore[method-assign]
    settings = {"accelerator": "cpu", "precision": work.precision}
    with tempfile.TemporaryDirectory() as folder:
        curve = fit(module, data, Path(folder), title="ours", settings=settings)[-1]
    return Run(ends[-1] - ends[0], ends[0] - started, curve[-1]["train/loss"])


class Cached:
    """Ours, with answers from disk: the first run of a work fills the cache, the next ones read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stores: dict[Workload, Store] = {}

    def __call__(self, work: Workload) -> Run:
        return ours(work, lambda teacher: CachedTeacher(teacher, self._store(work, teacher)))

    def _store(self, work: Workload, teacher: Teacher) -> Store:
        if work not in self.stores:
            folder = self.folder / str(len(self.stores))
            folder.mkdir()
            self.stores[work] = Store(folder, teacher.paths, work.samples, Cache(views=1))
        return self.stores[work]


def bare(work: Workload) -> Run:
    """Plain PyTorch, with our losses; loads one image at a time in two other processes."""
    started = time.perf_counter()
    student, teacher = (net.to(memory_format=work.layout) for net in work.networks())
    review = _review(work, student, teacher)
    seen, theirs = _watched(student, work.paths[0]), _watched(teacher, work.paths[1])
    parameters = [*student.parameters(), *(review.parameters() if review else [])]
    optimizer = torch.optim.SGD(parameters, **SGD)
    ends = []
    for images, labels in work.batches(_loader(work)):
        images = images.contiguous(memory_format=work.layout)
        with torch.no_grad():
            targets = teacher(images)
        logits = student(images)
        value = F.cross_entropy(logits, labels)
        if review:
            value = value + WEIGHTS["reviewkd"] * review(list(seen.values()), list(theirs.values()))
        else:
            maps = sum(attention_transfer(seen[s], theirs[t]) for s, t in work.taps)
            value = value + WEIGHTS["kd"] * soft_targets(logits, targets, temperature=TEMPERATURE)
            value = value + WEIGHTS["at"] * maps
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return Run(ends[-1] - ends[0], ends[0] - started, value.item())


def torchdistill(work: Workload) -> Run:
    """torchdistill in the loop and the layout of its examples; its teacher is in evaluation mode, as ours."""
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    from benchmarks._torchdistill import distillation_box

    started = time.perf_counter()
    box = distillation_box(work, OneByOne(work), SGD, WEIGHTS, TEMPERATURE)
    box.pre_epoch_process(epoch=0)
    log, ends = MetricLogger(), []
    log.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    for images, labels, extra in log.log_every(work.batches(box.train_data_loader), 1000):
        loss = box.forward_process(images, labels, extra)
        box.post_forward_process(loss=loss)
        log.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        ends.append(time.perf_counter())
    return Run(ends[-1] - ends[0], ends[0] - started, loss.item())


def _terms(work: Workload) -> dict[str, Loss]:
    """The losses as a recipe has them."""
    taps = dict(zip(("student", "teacher"), work.paths, strict=True))
    names = work.loss.split(" + ")
    own = {"kd": {"temperature": TEMPERATURE}, "at": taps, "reviewkd": taps}
    return {name: schema(losses.find(name), Loss)(name=name, weight=WEIGHTS[name], **own[name]) for name in names}


def _watched(network: nn.Module, paths: list[str]) -> dict[str, Tensor]:
    """Where hooks put what a network's modules return."""
    seen: dict[str, Tensor] = {}
    for path in paths:
        network.get_submodule(path).register_forward_hook(lambda _, __, out, path=path: seen.__setitem__(path, out))
    return seen


def _review(work: Workload, student: nn.Module, teacher: nn.Module) -> KnowledgeReview | None:
    if work.loss != "reviewkd":
        return None
    ours, theirs = work.paths
    return KnowledgeReview(shapes(student, ours), shapes(teacher, theirs)).to(memory_format=work.layout)


def _loader(work: Workload) -> DataLoader:
    return DataLoader(OneByOne(work), work.batch, shuffle=True, num_workers=2 * work.loads, drop_last=True)
