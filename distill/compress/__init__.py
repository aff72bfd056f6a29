"""Compression hooks: one file each. A hook takes an artifact and returns a smaller one.

A hook may ask for, by parameter name: ``artifact``; ``calibration``, batches with labels; ``evaluate(model)``, the
task's monitor on the validation split; ``example``, one batch; ``progress``, the part of its rounds that is done with
this one; ``task_loss(output, batch)``, the task's loss.
"""

from distill.registry import hook

__all__ = ["hook"]
