"""Distillation losses: one file each, found by name.

A loss asks by parameter name for what it is called with, ``student`` and ``teacher`` features, ``labels``, ``sample``
(the samples' positions in the training set) and ``inputs``; a loss without ``teacher`` needs no teacher. A class asks
in the same way for what it is built with: ``student_shape(s)`` and ``teacher_shape(s)``, which begin with the batch;
``teacher_model`` and ``teacher_path(s)``; ``train_labels``; ``batch_size``, samples over all processes; and
``student_model``, the network in training, which a loss keeps out of its own parameters, in a tuple.

Two methods are optional:

* ``prepare(teacher_features)``: learns, before the stage begins, from batches of the teacher's features at the tap;
  every iteration over them is one epoch of the training set.
* ``deploy(student, path)``: changes the given student, a copy, into the network to keep after the stage, and returns
  it with the `Plan` that repeats the change on a fresh network.
"""

from distill.registry import loss

__all__ = ["loss"]
