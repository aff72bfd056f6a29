"""State dicts of plain tensors, loaded into networks whose state dicts have a version."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """``model.load_state_dict(state)``, where ``state`` may be a plain mapping.

    A state dict carries the version of every module's layout as ``_metadata``, which copies into plain mappings, and
    files of tensors alone, lose; networks such as MNASNet refuse to load without. A state that has lost it is taken to
    be of the model's own version.

    Raises:
        RuntimeError: names or shapes differ, and ``strict`` is set.
    """
    if getattr(state, "_metadata", None) is None:
        own = getattr(model.state_dict(), "_metadata")  # noqa: B009 - typed as a plain dict
        state = OrderedDict(state)
        setattr(state, "_metadata", own)  # noqa: B010
    model.load_state_dict(state, strict=strict)
