"""Images per second of our distillation step against a bare PyTorch loop that does the same work.

    python -m benchmarks.training_speed [--rounds 5] [--steps 30]

ResNet-20 teaches ShuffleNetV2 x0.5 on Fashion-MNIST, batch 128, kd + at on two stages, channels_last, SGD. Four ways:

* memory  - the bare loop, one batch that is already in memory: nothing but the arithmetic
* ours    - `distill`'s stage on Lightning's Trainer, fed by its in-memory loader with crop and flip
* fed     - the bare loop, fed by the same loader
* loader  - the bare loop, fed as most training scripts are: per-image transforms and a DataLoader with 2 workers

Rounds interleave the four, and ratios are taken within a round, because a shared machine is never equally fast twice.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from distill.batch import Batch
from distill.data.fashion_mnist import FashionMNIST
from distill.distiller import Distiller
from distill.losses.at import attention_transfer
from distill.losses.kd import soft_targets
from distill.recipe import load
from distill.tasks.classification import Classification
from distill.terminal import quiet_libraries
from distill.training import fit
from students import resnet20, shufflenet_v2

RECIPE = "fashion_mnist/resnet20_shufflenet"
PAIRS = {"stage2": "layer2", "stage3": "layer3"}
"""The taps: the student's stage and the teacher's."""


def networks() -> tuple[nn.Module, nn.Module]:
    """Student and teacher, freshly made."""
    torch.manual_seed(0)
    student = shufflenet_v2(num_classes=10, width=0.5, small_images=True, channels=1)
    return student, resnet20(num_classes=10, channels=1)


def bare_loop(batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
    """Seconds for ``steps`` steps of plain PyTorch."""
    student, teacher = (net.to(memory_format=torch.channels_last) for net in networks())
    teacher.eval().requires_grad_(False)
    caught: dict[str, Tensor] = {}
    for net, paths in ((student, PAIRS), (teacher, PAIRS.values())):
        for path in paths:
            net.get_submodule(path).register_forward_hook(lambda m, i, o, path=path: caught.__setitem__(path, o))
    optimizer = torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    start = time.perf_counter()
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            targets = teacher(images)
        logits = student(images)
        hints = sum(attention_transfer(caught[s], caught[t]) for s, t in PAIRS.items())
        value = F.cross_entropy(logits, labels) + 0.9 * soft_targets(logits, targets) + 100 * hints
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return time.perf_counter() - start


def ours(data: FashionMNIST, steps: int) -> float:
    """Seconds for ``steps`` steps of a stage, the Trainer's start not counted."""
    recipe = load(RECIPE, ["compress={}", "export={}"])
    student, teacher = networks()
    stage = recipe.stages["distill"]
    stage.epochs = 1
    module = Distiller(
        student,
        teacher,
        Classification(10),
        stage,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        example=data.calibration(8)[0],
        offered={},
        channels_last=True,
    )
    clock = Clock()
    module.on_train_batch_start = clock.start  # type: ignore[method-assign]
    module.on_train_batch_end = clock.stop  # type: ignore[method-assign]
    settings = {"limit_train_batches": steps + 1, "limit_val_batches": 0, "accelerator": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        fit(module, data, Path(folder), title="ours", settings=settings)
    return clock.seconds


class Clock:
    """From the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.first, self.last = 0.0, 0.0

    def start(self, *_: object) -> None: ...

    def stop(self, *_: object) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last

    @property
    def seconds(self) -> float:
        return self.last - self.first


class Images(Dataset[tuple[Tensor, Tensor]]):
    """One image at a time through torchvision's transforms."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        steps = [v2.RandomCrop(28, padding=2), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*steps, v2.Normalize([0.2860], [0.3530])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(2)
    data = FashionMNIST(0, crop=2, flip=True, batch_size=128)
    first: Batch = next(iter(data.train_dataloader()))
    uint8, labels = (first.inputs * 80).to(torch.uint8).repeat(100, 1, 1, 1), first.labels.repeat(100)
    loader = DataLoader(Images(uint8, labels), 128, shuffle=True, num_workers=2, drop_last=True)

    def memory() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield first.inputs, first.labels

    ways: dict[str, Callable[[], float]] = {
        "memory": lambda: bare_loop(memory(), options.steps),
        "ours": lambda: ours(data, options.steps),
        "fed": lambda: bare_loop(((b.inputs, b.labels) for b in data.train_dataloader()), options.steps),
        "loader": lambda: bare_loop(iter(loader), options.steps),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, work in ways.items():
            rate = 128 * options.steps / work()
            if number:  # the first round warms up
                rates[name].append(rate)
    for name, values in rates.items():
        ratios = [ours / value for ours, value in zip(rates["ours"], values, strict=True)]
        rate, ratio = statistics.median(values), statistics.median(ratios)
        print(f"{name:8} {rate:6.0f} images/s   ours / this {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
