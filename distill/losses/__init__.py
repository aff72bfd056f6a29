"""Distillation losses: one file each, found by name.

A loss is called with what it names among `CALLED_WITH`, and built, if it is a class, with what it names among
`BUILT_WITH`. Two methods are optional:

* ``prepare(teacher_features)``: learns, before the stage begins, from batches of the teacher's features at the tap;
  every iteration over them is one epoch of the training set.
* ``deploy(student, path)``: changes the student that it is given (a copy) into what is kept of the stage, and answers
  it with the `Plan` that repeats the change on a fresh network.
"""

from distill.registry import Registry

CALLED_WITH = {"student", "teacher", "labels", "sample", "inputs"}
"""One that does not ask for ``teacher`` needs none."""
BUILT_WITH = {
    "student_shape",
    "teacher_shape",
    "student_shapes",
    "teacher_shapes",
    "teacher_model",
    "teacher_path",
    "teacher_paths",
    "train_labels",
    "batch_size",
}
"""Shapes begin with the batch; ``batch_size`` counts the samples of all processes."""

loss = Registry("loss", package=__name__, offers=CALLED_WITH | BUILT_WITH)
