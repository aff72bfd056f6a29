"""Distillation steps in four ways: ours, ours with a cache, a bare PyTorch loop, torchdistill; and the least work that
any of them has.

All train the same networks by the same losses; seconds are those from the end of the warm-up to that of the last step.
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
    """Seconds until the end of the warm-up, compiling included."""
    loss: float
    """Of the last step in a bare loop; ours tells the mean over all."""


class Clock:
    """Counts steps. A GPU is waited for at the end of the warm-up and of the last step, and at no other."""

    def __init__(self, work: Workload) -> None:
        self.work, self.steps, self.started = work, 0, time.perf_counter()

    def step(self) -> None:
        """A step has ended, or at least been sent to the GPU."""
        self.steps += 1
        if self.steps == self.work.warmup:
            self.ready = self._now()
        if self.steps == self.work.warmup + self.work.steps:
            self.ended = self._now()

    def run(self, loss: float) -> Run:
        """What was measured."""
        return Run(self.ended - self.ready, self.ready - self.started, loss)

    def _now(self) -> float:
        if self.work.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def ours(work: Workload, cache: Callable[[Teacher], nn.Module] = lambda teacher: teacher) -> Run:
    """A stage of ours on Lightning's Trainer, as a recipe runs it."""
    data = InOurMemory(work)
    clock = Clock(work)
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
    module.on_train_batch_end = lambda *_: clock.step()  # type: ignore[method-assign]
    settings = {"accelerator": work.device, "devices": 1, "precision": work.precision}
    with tempfile.TemporaryDirectory() as folder:
        curve = fit(module, data, Path(folder), title="ours", settings=settings)[-1]
    return clock.run(curve[-1]["train/loss"])


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
    loader, clock = _loader(work), Clock(work)
    student, teacher = _placed(work)
    review = _review(work)
    seen, taught = (_watched(net, paths) for net, paths in zip((student, teacher), work.paths, strict=True))
    optimizer = torch.optim.SGD([*student.parameters(), *(review.parameters() if review else [])], **SGD)
    run, target = (torch.compile(net) if work.compiled else net for net in (student, teacher))
    for images, labels in work.batches(loader):
        images = images.to(work.device, non_blocking=True).contiguous(memory_format=work.layout)
        labels = labels.to(work.device, non_blocking=True)
        with work.computing:
            with torch.no_grad():
                soft = target(images)
            logits = run(images)
            value = F.cross_entropy(logits, labels)
            if review:
                value = value + WEIGHTS["reviewkd"] * review(list(seen.values()), list(taught.values()))
            else:
                value = value + WEIGHTS["kd"] * soft_targets(logits, soft, temperature=TEMPERATURE)
                value = value + sum(WEIGHTS["at"] * attention_transfer(seen[s], taught[t]) for s, t in work.taps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        clock.step()
    return clock.run(value.item())


def limit(work: Workload) -> Run:
    """The teacher's forward pass, the student's forward and backward pass, on a batch that lies on the device: no
    losses, no optimizer, nothing copied."""
    images, _ = next(iter(_loader(work)))
    images = images.to(work.device).contiguous(memory_format=work.layout)
    clock = Clock(work)
    student, teacher = (torch.compile(net) if work.compiled else net for net in _placed(work))
    for _ in range(work.steps + work.warmup):
        with work.computing:
            with torch.no_grad():
                teacher(images)
            value = student(images).mean()
        student.zero_grad()
        value.backward()
        clock.step()
    return clock.run(value.item())


def torchdistill(work: Workload) -> Run:
    """torchdistill in the loop and the layout of its examples; its teacher is in evaluation mode, as ours."""
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    from benchmarks._torchdistill import distillation_box

    data, clock = OneByOne(work), Clock(work)
    box = distillation_box(work, data, SGD, WEIGHTS, TEMPERATURE)
    box.pre_epoch_process(epoch=0)
    log = MetricLogger()
    log.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    for images, labels, extra in log.log_every(work.batches(box.train_data_loader), 1000):
        images, labels = images.to(work.device), labels.to(work.device)
        with work.computing:
            loss = box.forward_process(images, labels, extra)
        box.post_forward_process(loss=loss)
        log.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        clock.step()
    return clock.run(loss.item())


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


def _placed(work: Workload) -> list[nn.Module]:
    """Student and teacher on the device, in the layout."""
    return [net.to(work.device, memory_format=work.layout) for net in work.networks()]


def _review(work: Workload) -> KnowledgeReview | None:
    if work.loss != "reviewkd":
        return None
    ours, theirs = (shapes(net, paths, work.side) for net, paths in zip(work.networks(), work.paths, strict=True))
    return KnowledgeReview(ours, theirs).to(work.device, memory_format=work.layout)


def _loader(work: Workload) -> DataLoader:
    pin = work.device == "cuda"
    workers = 2 * work.loads
    return DataLoader(OneByOne(work), work.batch, shuffle=True, num_workers=workers, drop_last=True, pin_memory=pin)
