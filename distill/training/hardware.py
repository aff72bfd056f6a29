"""What a recipe's trainer section asks of this machine, checked in our words before Lightning sees it."""

import os
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import AcceleratorRegistry, CPUAccelerator
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import StrategyRegistry

from distill.errors import RecipeError
from distill.registry.nearest import did_you_mean

GPUS = ("cuda", "mps")
ON_GPUS = ("fsdp", "deepspeed")
"""How the names of strategies begin that Lightning has for GPUs alone."""


def check_names(settings: Mapping[str, Any]) -> None:
    """Check accelerator, strategy and devices before a Trainer is made.

    Raises:
        RecipeError: an unknown name, or an accelerator that this machine does not have.
    """
    accelerator, strategy = settings.get("accelerator", "auto"), settings.get("strategy", "auto")
    known = ["auto", *sorted({"gpu", *AcceleratorRegistry.available_accelerators()})]
    if accelerator not in known:
        raise RecipeError(f"at trainer.accelerator: unknown accelerator {did_you_mean(str(accelerator), known)}")
    found = [name for name, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()]
    gpus = [name for name in GPUS if name in found]
    usable = ["auto", *found, *(["gpu"] if gpus else [])]
    if accelerator not in usable:
        raise RecipeError(
            f"at trainer.accelerator: PyTorch {torch.__version__} finds no {accelerator} on this machine: choose one "
            f"of {', '.join(usable)}"
        )
    others = StrategyRegistry.available_strategies()
    if strategy not in ("auto", *others):
        hint = did_you_mean(str(strategy), ["auto", "ddp", "ddp_spawn", "fsdp", "deepspeed"], others)
        raise RecipeError(f"at trainer.strategy: unknown strategy {hint}")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and found == ["cpu"])
    if on_cpu and strategy.startswith(ON_GPUS):
        raise RecipeError(f"at trainer.strategy: {strategy} needs a GPU, and none is used: choose auto or ddp")
    if on_cpu and not _is_count(settings.get("devices", "auto")):
        raise RecipeError(
            f"at trainer.devices: devices={settings['devices']}, but on a CPU devices are processes: choose a number "
            "of at least 1, or auto"
        )


def check_machine(trainer: pl.Trainer, settings: Mapping[str, Any]) -> None:
    """Check what a Trainer would start: processes on CPU cores, and other machines.

    Raises:
        RecipeError: more processes than cores, a precision that CPUs do not compute with, or machines that no launcher
            has started.
    """
    if isinstance(trainer.accelerator, CPUAccelerator):
        _check_cpu(trainer, str(settings.get("precision")))
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise RecipeError(
            f"at trainer.num_nodes: num_nodes={trainer.num_nodes}, but nothing says where the other machines are: "
            "start the command on each of them with SLURM or torchrun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK"
        )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_count(devices: Any) -> bool:
    return devices == "auto" or (str(devices).isdecimal() and int(devices) > 0)


def _check_cpu(trainer: pl.Trainer, precision: str) -> None:
    """Lightning counts GPUs, but starts as many processes on the CPU as it is asked for, and changes a precision."""
    if precision in ("16", "16-mixed"):
        raise RecipeError(f"at trainer: CPUs do not compute with precision={precision}: choose bf16-mixed or 32-true")
    most = max(cores(), 2)  # two processes on one core are slow, but enough to try a recipe out
    if trainer.num_devices > most:
        raise RecipeError(
            f"at trainer: devices={trainer.num_devices} are that many processes, but this machine has {cores()} CPU "
            f"cores and no other accelerator is used: choose at most {most}"
        )
