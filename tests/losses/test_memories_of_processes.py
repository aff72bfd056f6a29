"""With several processes, each one's memory holds what one process remembers of all their batches."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn

from distill.losses._class_memory import ClassMemory
from distill.losses.crd import Contrast

PROCESSES = 2
BATCH = 7
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])
State = Mapping[str, Tensor]
Part = Callable[[Tensor], Tensor]


def contrasted(memory: str, part: Part) -> State:
    torch.manual_seed(0)
    loss = Contrast((BATCH, 6), (BATCH, 5), LABELS, dimension=4, negatives=8, memory=memory)
    batches = [
        (torch.randn(BATCH, 6), torch.randn(BATCH, 5), torch.randperm(len(LABELS))[:BATCH]) for _ in range(3)
    ]  # before anything draws negatives: a process draws fewer than one that has the whole batch
    for batch in batches:
        loss(*map(part, batch))
    return state(loss.memory)


def ringed(part: Part) -> State:
    torch.manual_seed(0)
    memory = ClassMemory(num_classes=3, length=4, dimension=5)
    for _ in range(3):
        memory.remember(part(torch.randn(BATCH, 5)), part(torch.randint(3, (BATCH,))))
    return state(memory)


def state(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def remember(name: str, part: Part) -> State:
    return ringed(part) if name == "class_memory" else contrasted(name, part)


def process(rank: int, name: str, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES)
    torch.save(remember(name, lambda rows: rows.tensor_split([3])[rank]), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["bank", "queue", "class_memory"])
def test_processes_remember_what_one_does(tmp_path: Path, name: str) -> None:
    spawn(process, (name, tmp_path), nprocs=PROCESSES)
    expected = remember(name, lambda rows: rows)
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor)
