"""State dicts of plain tensors, loaded into networks whose state dicts have a version."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """``model.load_state_dict(state)``, where ``state`` may be a plain mapping.

    A state dict carries the version of every module's layout as ``_metadata``, which copies into plain mappings, and
    files of tensors alone, lose; networks such as MNASNet refuse to load without. A state that has lost it is taken to
    be of the model's own version. What such a file may lack is filled in: batch norms' counters of batches, which older
    ones have not, by the model's; a tensor that the model knows by two names by that of the other name.

    Raises:
        RuntimeError: names or shapes differ, and ``strict`` is set.
    """
    if getattr(state, "_metadata", None) is None:
        own = model.state_dict()
        counters = {name: value for name, value in own.items() if name.rpartition(".")[2] == "num_batches_tracked"}
        held = {_place(value): state[name] for name, value in own.items() if name in state}
        tied = {name: held[_place(value)] for name, value in own.items() if value.data_ptr() and _place(value) in held}
        state = OrderedDict(counters | tied | dict(state))
        setattr(state, "_metadata", getattr(own, "_metadata"))  # noqa: B009, B010 - typed as a plain dict
    model.load_state_dict(state, strict=strict)


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape
