"""Several processes: each draws random numbers of its own, and all leave out the same blocks."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing import spawn

import students
from distill.recipe.schema import Mix, Stage
from distill.training.fit import fit
from tests.training.test_distiller import KilledError, digits, distiller

PROCESSES, EPOCHS = 2, 2
SETTINGS = {"accelerator": "cpu", "devices": PROCESSES, "strategy": "ddp"}


def started(rank: int, epoch: int = 3, **options: Any) -> Any:
    """A stage at the start of an epoch in one of several processes."""
    module = distiller(Stage(epochs=5, **options), student=students.resnet8(channels=1), seed=7)
    module.trainer = SimpleNamespace(global_rank=rank, world_size=8, current_epoch=epoch, global_step=0)
    module.on_train_epoch_start()
    return module


def drawn(rank: int, epoch: int = 3) -> tuple[float, ...]:
    started(rank, epoch)
    return tuple(torch.rand(4).tolist())


def test_every_process_and_epoch_has_numbers_of_its_own_and_repeats_them() -> None:
    seen = {(rank, epoch): drawn(rank, epoch) for rank in range(8) for epoch in range(4)}
    assert len(set(seen.values())) == len(seen)
    assert drawn(5, 2) == seen[5, 2]


def test_the_first_process_draws_what_a_single_one_does() -> None:
    expected = torch.rand(4, generator=torch.Generator().manual_seed(7 * 1_000_003 + 3))
    assert drawn(0) == tuple(expected.tolist())


def test_blocks_are_left_out_alike_whatever_else_a_process_draws() -> None:
    left_out = []
    for rank in range(3):
        depth = started(rank, stochastic_depth=0.5).method.depth
        torch.rand(rank)
        left_out.append([[block.path for block in depth.draw()] for _ in range(20)])
    assert left_out[0] == left_out[1] == left_out[2]
    assert len({tuple(paths) for paths in left_out[0]}) > 2


def trained(folder: Path, killed_in: int = 0) -> dict[str, Any]:
    """What a process draws for each batch and which blocks it leaves out, and the weights in the end."""
    torch.manual_seed(0)
    stage = Stage(epochs=EPOCHS, mix=Mix(mixup=1.0), stochastic_depth=0.5)
    module = distiller(stage, student=students.resnet8(channels=1))
    seen: dict[str, Any] = {"numbers": [], "blocks": []}
    step, draw = module.method.step, module.method.depth.draw

    def stepped(*args: Any) -> Any:
        seen["numbers"].append(torch.get_rng_state())
        return step(*args)

    def noted() -> Any:
        blocks = draw()
        seen["blocks"].append([block.path for block in blocks])
        return blocks

    def on_epoch(title: str, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == killed_in:
            raise KilledError

    module.method.step, module.method.depth.draw = stepped, noted
    student = fit(module, digits(), folder, title="student", settings=SETTINGS, on_epoch=on_epoch)[0]
    return seen | {"weights": dict(student.named_parameters())}


def process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    whole = trained(folder / "whole")
    with pytest.raises(KilledError):
        trained(folder / "cut", killed_in=EPOCHS)
    torch.save({"whole": whole, "resumed": trained(folder / "cut")}, folder / f"{rank}.pt")


def test_processes_that_train_draw_apart_and_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(process, (port, tmp_path), nprocs=PROCESSES)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES))
    states = [bytes(state.numpy()) for run in (one, other) for state in run["whole"]["numbers"]]
    assert len(states) == len(set(states)) == PROCESSES * EPOCHS * 4  # batches of 270 images
    assert one["whole"]["blocks"] == other["whole"]["blocks"]
    for run in (one, other):
        last = run["resumed"]["numbers"]
        assert all(map(torch.equal, run["whole"]["numbers"][-len(last) :], last))
        assert run["resumed"]["blocks"] == run["whole"]["blocks"][-len(last) :]
        for name, value in one["whole"]["weights"].items():
            assert torch.equal(run["resumed"]["weights"][name], value)
            assert torch.equal(run["whole"]["weights"][name], value)
