"""How long a module's forward passes take, added up."""

import time
from typing import Any

import torch
from torch import nn


class Stopwatch:
    """Times every forward pass of ``module`` by hooks, until `remove`; None takes no time.

    On a GPU, events in its stream are timed: nothing waits for a pass to end before `seconds` is asked for.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self.module = module
        self._hooks = (
            [module.register_forward_pre_hook(self._start), module.register_forward_hook(self._stop)] if module else []
        )
        self.restart()

    def restart(self) -> None:
        """Begin at 0."""
        self._passes: list[tuple[Any, Any]] = []

    def seconds(self) -> float:
        """Time in the passes since `restart`."""
        if any(isinstance(start, torch.cuda.Event) for start, _ in self._passes):
            torch.cuda.synchronize()
        return sum(_between(start, stop) for start, stop in self._passes)

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        self._started = _now()

    def _stop(self, *_: Any) -> None:
        self._passes.append((self._started, _now()))


def _now() -> Any:
    if not torch.cuda.is_initialized():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, stop: Any) -> float:
    return start.elapsed_time(stop) / 1000 if isinstance(start, torch.cuda.Event) else stop - start
