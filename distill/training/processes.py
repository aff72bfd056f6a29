"""Several processes, one run: all compute, the first one writes."""

import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_only
from torch import nn


def is_first() -> bool:
    """Whether this is the process that writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def wait_for_all() -> None:
    """Go on when every process has come this far; alone, at once."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def share(module: nn.Module) -> None:
    """Give every process the first one's values of the module's parameters and buffers."""
    if dist.is_available() and dist.is_initialized():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)
