"""Processes that a run starts for its other devices end when the run does, even when it is killed."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

VARIABLE = "DISTILL_PARENT"
SECONDS = 0.5
"""Between two looks at the parent."""


@contextmanager
def followed_by_children() -> Iterator[None]:
    """Processes started meanwhile know this one as the process to end with."""
    end_with_parent()
    os.environ[VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


@cache
def end_with_parent() -> None:
    """From now on this process ends with the run that started it; a process that no run started goes on."""
    parent = int(os.environ.pop(VARIABLE, os.getpid()))
    if parent != os.getpid():
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os._exit(1)  # no cleaning up: it would wait for processes that are gone
