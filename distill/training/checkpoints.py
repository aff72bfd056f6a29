"""Checkpoints of a stage: written beside their final name, checked before training goes on from one.

Lightning's own writer goes through the temporary folder; where that is on another file system, its last step is a copy
over the final name, and a process killed meanwhile leaves half a file there.
"""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import nn

from distill.files.atomic import replacing
from distill.processes import is_first, wait_for_all

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
WRITTEN_AS = "written_as"
"""Of a checkpoint: its file's name, so that another epoch's file in the best one's place is noticed."""
DAMAGED = ".damaged"
log = logging.getLogger(__name__)


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's plugin: a checkpoint appears whole or not at all, and ``last.ckpt`` keeps the one before it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """
        Raises:
            DistillError: the disk is full, read-only, ...
        """
        path = Path(path)
        previous = path.with_name(PREVIOUS) if path.name == LAST else None
        checkpoint = {**checkpoint, WRITTEN_AS: path.name}
        with replacing(path, previous=previous) as part, part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's writer raises its own after the file's
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def resume_point(folder: Path, module: nn.Module, *, needs_best: bool) -> Path | None:
    """The newest checkpoint in ``folder`` that is whole and fits ``module``, or None: start from the beginning.

    The others are set aside, each with one line.

    Args:
        folder: where the stage keeps its checkpoints.
        module: what is trained.
        needs_best: the best epoch is kept. Without its checkpoint training starts from the beginning, because later
            checkpoints do not hold that epoch's weights.
    """
    if is_first():
        usable = not needs_best or _usable(folder / BEST, module)
        for name in (LAST, PREVIOUS):
            if not usable:
                (folder / name).unlink(missing_ok=True)
            elif _usable(folder / name, module):
                break
    wait_for_all()
    return next((folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()), None)


def _usable(path: Path, module: nn.Module) -> bool:
    """Whether a checkpoint is there, whole, and of this network; one that is not is set aside."""
    reason = _damage(path, module) if path.is_file() else None
    if reason:
        aside = path.with_name(f"{path.name}{DAMAGED}")
        path.replace(aside)
        log.warning("%s is %s: set aside, training goes on from what is there before it", path, reason)
    return path.is_file()


def _damage(path: Path, module: nn.Module) -> str | None:
    """What is wrong with a checkpoint. Torch reads files without comparing their checksums; zipfile compares them."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                return "damaged"
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if checkpoint[WRITTEN_AS] != (BEST if path.name == BEST else LAST):
            return "another epoch's"
        state = checkpoint["state_dict"]
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        if any(name not in state or state[name].shape != value.shape for name, value in trained.items()):
            return "another network's"
    except Exception as error:  # whatever zipfile, pickle and torch raise on bytes that are no checkpoint
        return f"damaged ({type(error).__name__})"
    return None
