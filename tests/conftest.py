"""Every test computes on one thread: the networks are tiny, and threads that wait for each other cost more."""

import os

os.environ.setdefault("WANDB_MODE", "offline")

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# How fast examples are made and run says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
