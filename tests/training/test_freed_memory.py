"""Memory that steps free, counted by the page faults of a process of its own."""

import os
import subprocess
import sys

import pytest

from distill.training.freed_memory import VARIABLES

MB = 2**20
STEPS = f"""
import resource, torch
from contextlib import nullcontext
from distill.training.freed_memory import freed_memory_kept

def faults(size={40 * MB}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

faults()
found = [faults()]
with freed_memory_kept():
    for _ in range(5):
        faults()
    found.append(faults())
    kept = resident()
found.append((kept - resident()) // {MB})
found.append(faults({10 * 40 * MB}))  # larger than what smaller blocks have left of the heap
print(*found)
"""


def steps(**environment: str) -> list[int]:
    """Page faults before and within the block; MB that its end gave back; page faults of larger tensors after it."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return [int(one) for one in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="not glibc")
def test_pages_are_asked_for_once_within_the_block_and_given_back_behind_it() -> None:
    pages = 4 * 40 * MB // os.sysconf("SC_PAGESIZE")
    before, within, given_back, after = steps()
    assert before > 0.9 * pages
    assert within < 0.01 * pages
    assert given_back >= 39
    assert after > 0.9 * 10 * pages


@pytest.mark.skipif(sys.platform != "linux", reason="not glibc")
def test_the_users_own_setting_of_the_allocator_stays() -> None:
    before, within, *_ = steps(MALLOC_MMAP_THRESHOLD_=str(MB), MALLOC_TRIM_THRESHOLD_=str(MB))
    assert within == pytest.approx(before, rel=0.01)
