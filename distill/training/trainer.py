"""Lightning's Trainer with the settings of a recipe, checked against this machine."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CPUAccelerator

from distill.errors import RecipeError

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # our samplers know their rank
    "log_every_n_steps": 1_000_000,  # everything is logged once per epoch
}
HANDLED = ("sync_batchnorm", "plugins")


def build_trainer(settings: Mapping[str, Any], *, plugins: Sequence[Any] = (), **fixed: Any) -> pl.Trainer:
    """A Trainer that is quiet unless ``settings`` say otherwise.

    Args:
        settings: the recipe's ``trainer`` section.
        plugins: Lightning plugins, beside those of ``settings``.
        fixed: arguments that ``settings`` cannot change.

    Raises:
        RecipeError: an accelerator, precision, strategy or number of devices that this machine does not have.
    """
    chosen = {name: value for name, value in settings.items() if name not in HANDLED}
    named = settings.get("plugins") or []
    every = [*plugins, *([named] if isinstance(named, str) else named)]
    try:
        trainer = pl.Trainer(**{**QUIET, **chosen, **fixed}, plugins=every or None)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(f"at trainer: {' '.join(str(error).split())}") from error
    if isinstance(trainer.accelerator, CPUAccelerator):
        _check_cpu(trainer, str(settings.get("precision")))
    return trainer


def run_trainer(trainer: pl.Trainer, module: pl.LightningModule, **arguments: Any) -> None:
    """``trainer.fit``, after which the weights are float32 again: precisions as ``bf16-true`` change their type.

    Args:
        trainer: as `build_trainer` makes it.
        module: trained in place.
        arguments: of ``Trainer.fit``.

    Raises:
        RecipeError: a setting of the Trainer does not fit the data.
    """
    try:
        trainer.fit(module, **arguments)
    except SystemExit:  # Lightning raises it after Ctrl-C
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        raise RecipeError(f"at trainer: {' '.join(str(error).split())}") from error
    finally:
        if trainer.precision.endswith("-true"):
            module.float()


def require_trainer(settings: Mapping[str, Any]) -> None:
    """Check a recipe's ``trainer`` section before anything is trained.

    Raises:
        RecipeError: see `build_trainer`.
    """
    build_trainer(settings, logger=False, enable_checkpointing=False)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
