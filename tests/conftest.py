"""Every test computes on one thread: the networks are tiny, and threads that wait for each other cost more."""

import os

os.environ.setdefault("WANDB_MODE", "offline")

import torch

torch.set_num_threads(1)
