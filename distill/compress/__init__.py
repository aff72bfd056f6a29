"""Compression hooks: one file each. A hook takes an artifact and returns a smaller one."""

from distill.registry import Registry

hook = Registry(
    "compression hook",
    package=__name__,
    offers={"artifact", "calibration", "evaluate", "example", "progress", "task_loss"},
)
"""``calibration`` is batches with labels, ``evaluate(model)`` the task's monitor on the validation split, ``example``
one batch, ``progress`` what part of its rounds a hook has done with this one, ``task_loss(output, labels)`` the task's.
"""
