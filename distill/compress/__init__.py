"""Compression hooks: one file each. A hook takes an artifact and returns a smaller one."""

from distill.registry import Registry

hook = Registry(
    "compression hook", package=__name__, offers={"artifact", "calibration", "evaluate", "example", "task_loss"}
)
