"""Lightning's Trainer with the settings of a recipe, checked against this machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException

from distill.errors import RecipeError
from distill.training.hardware import check_machine, check_names

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
    check_names({**chosen, **fixed})
    try:
        trainer = pl.Trainer(**{**QUIET, **chosen, **fixed}, plugins=every or None)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(f"at trainer: {' '.join(str(error).split())}") from error
    check_machine(trainer, {**settings, **fixed})
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


def shares(settings: Mapping[str, Any]) -> int:
    """Into how many shares a batch is divided that batch norms see apart, see `distill.training.batch_norms`."""
    trainer = build_trainer(settings, logger=False, enable_checkpointing=False)
    together = trainer.strategy.root_device.type == "cuda" and settings.get("sync_batchnorm") is not False
    return 1 if together else int(trainer.world_size)
