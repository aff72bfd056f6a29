"""What becomes of the memory that a training step has freed."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIM, MMAP = -1, -3
"""What glibc's ``mallopt`` calls its thresholds, see malloc(3)."""
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""With which a user chooses them."""
KEPT = 2**30
LARGEST = 32 * 2**20
"""Bytes from which on a block is always given back: glibc's default once a program has freed large blocks."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within the block, glibc keeps up to 1 GiB of freed memory for the next step.

    Otherwise large blocks, as feature maps are, go back to the system when they are freed, and come back as pages that
    are zeroed one by one, on first touch: 5 to 30 % of a step on a CPU (``benchmarks/freed_memory.py``). The
    environment's settings of the allocator stay as they are; other C libraries than glibc are left alone.
    """
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(library, "mallopt") or any(name in os.environ for name in VARIABLES):
        yield
        return
    library.mallopt(MMAP, KEPT)
    library.mallopt(TRIM, KEPT)
    try:
        yield
    finally:
        library.mallopt(MMAP, LARGEST)
        library.mallopt(TRIM, 2 * LARGEST)
        library.malloc_trim(0)
