"""Lightning's Trainer with the settings of a recipe, checked against this machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry

from distill.errors import RecipeError
from distill.training.freed_memory import freed_memory_kept
from distill.training.hardware import check_machine, check_names

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # our samplers know their rank
    "log_every_n_steps": 1_000_000,  # everything is logged once per epoch
}
HANDLED = ("sync_batchnorm", "plugins")
BACKENDS = "cpu:gloo,cuda:nccl"
"""On GPUs, where Lightning opens NCCL alone: metrics and steps between stages lie on the CPU, and go around there."""


def build_trainer(
    settings: Mapping[str, Any], *, plugins: Sequence[Any] = (), partial: bool = False, **fixed: Any
) -> pl.Trainer:
    """A Trainer that is quiet unless ``settings`` say otherwise.

    Args:
        settings: the recipe's ``trainer`` section.
        plugins: Lightning plugins, beside those of ``settings``.
        partial: whether a step may leave parameters without gradients, for which DDP would wait.
        fixed: arguments that ``settings`` cannot change.

    Raises:
        RecipeError: an accelerator, precision, strategy or number of devices that this machine does not have.
    """
    chosen = {name: value for name, value in settings.items() if name not in HANDLED}
    named = settings.get("plugins") or []
    every = [*plugins, *([named] if isinstance(named, str) else named)]
    check_names({**chosen, **fixed})
    arguments = {**QUIET, **chosen, **fixed, "plugins": every or None}
    trainer = _trainer(arguments)
    check_machine(trainer, {**settings, **fixed})
    if isinstance(trainer.strategy, DDPStrategy):  # which "auto" is too where there are several devices
        trainer = _trainer(
            {**arguments, "strategy": _ddp(trainer.strategy, arguments.get("strategy", "auto"), partial)}
        )
    return trainer


def _trainer(arguments: Mapping[str, Any]) -> pl.Trainer:
    try:
        return pl.Trainer(**arguments)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(f"at trainer: {' '.join(str(error).split())}") from error


def _ddp(resolved: DDPStrategy, name: str, partial: bool) -> DDPStrategy:
    """The strategy of that name with what this package needs of it."""
    options = dict(StrategyRegistry["ddp" if name == "auto" else name]["init_params"])
    if resolved.root_device.type == "cuda":
        options["process_group_backend"] = BACKENDS
    if partial:
        options["find_unused_parameters"] = True
    return DDPStrategy(**options)


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
        with freed_memory_kept():
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


def shares(settings: Mapping[str, Any]) -> int:
    """Into how many shares a batch is divided that batch norms see apart, see `distill.training.batch_norms`."""
    trainer = build_trainer(settings, logger=False, enable_checkpointing=False)
    together = trainer.strategy.root_device.type == "cuda" and settings.get("sync_batchnorm") is not False
    return 1 if together else int(trainer.world_size)
