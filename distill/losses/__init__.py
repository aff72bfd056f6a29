"""Distillation losses: one file each, found by name.

The names of its positional parameters say what a loss is called with: ``student`` and ``teacher`` features, channels
first; ``labels``; ``sample``, the samples' positions in the training set; and ``inputs``. A loss without ``teacher``
needs no teacher. What a class is built with is injected in the same way: ``student_shape(s)`` and ``teacher_shape(s)``,
which begin with the batch;
``teacher_model`` and ``teacher_path(s)``; ``train_labels``; ``num_classes`` of the data set; ``batch_size``, samples
over all processes; and ``student_model``, the network in training, which a loss keeps out of its own parameters, in a
tuple.

Two methods are optional:

* ``prepare(teacher_features)``: learns, before the stage begins, from batches of the teacher's features at the tap;
  every iteration over them is one epoch of the training set.
* ``deploy(student, path)``: changes the given student, a copy, into the network to keep after the stage, and returns
  it with the `Plan` that repeats the change on a fresh network.
"""

from distill.registry import loss

__all__ = ["loss"]
