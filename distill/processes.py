"""Several processes, one run: all compute, the first one writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.errors import TrainingError

Decision = TypeVar("Decision")
LOST = ("gloo", "nccl", "connection", "socket", "timed out", "store")
"""What the messages of PyTorch's communication backends mention when a process does not reply."""


@contextmanager
def naming_lost_processes(title: str) -> Iterator[None]:
    """
    Raises:
        TrainingError: another process of this run ended or does not reply.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        if _several() and any(word in reason.lower() for word in LOST):
            raise TrainingError(
                f"{title}: another process of this run ended or does not reply ({reason}); "
                "the same command goes on from the last checkpoint"
            ) from error
        raise


def is_first() -> bool:
    """Whether this is the process that writes."""
    from pytorch_lightning.utilities import rank_zero_only  # seconds to import: hooks ask for less

    return getattr(rank_zero_only, "rank", 0) == 0


@naming_lost_processes("between two steps")
def wait_for_all() -> None:
    """Wait until every process has reached this line; with one process, return at once."""
    if _several():
        dist.barrier()


@naming_lost_processes("between two steps")
def first_decides(decision: Decision) -> Decision:
    """The first process's ``decision`` in every process; before the processes know each other, each one's own."""
    if not _several():
        return decision
    decisions = [decision]
    dist.broadcast_object_list(decisions, src=0)
    return decisions[0]


def share(module: nn.Module) -> None:
    """Give every process the first one's values of the module's parameters and buffers."""
    if _several():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def gathered(*rows: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of the processes; with one process, the same tensors.

    Args:
        rows: tensors that each have as many rows; another process may have another number of them.
    """
    if not _several():
        return rows
    device = rows[0].device
    counts = [int(count) for count in _from_all(torch.tensor(len(rows[0]), device=device))]
    missing = max(counts) - len(rows[0])
    padded = [torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) for part in rows]
    return tuple(
        torch.cat([part[:count] for part, count in zip(_from_all(one), counts, strict=True)]) for one in padded
    )


def _from_all(tensor: Tensor) -> list[Tensor]:
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor.contiguous())
    return found


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()
