"""Every test computes on one thread: the networks are tiny, and threads that wait for each other cost more."""

import os
from collections.abc import Iterator

os.environ.setdefault("WANDB_MODE", "offline")

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# How fast examples are made and run says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="module")
def unchecked_shapes() -> Iterator[None]:
    """A batch of any size can be exported: annotations that are checked meanwhile would fix its size."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
