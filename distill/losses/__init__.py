"""Distillation losses: one file each, found by name.

A loss is called with what it names among `CALLED_WITH`, and built, if it is a class, with what it names among
`BUILT_WITH`. Two methods are optional:

* ``prepare(teacher_features)``: learns, before the stage begins, from batches of the teacher's features at the tap;
  every iteration over them is one epoch of the training set.
* ``deploy(student, path)``: changes the student that it is given (a copy) into what is kept of the stage, and answers
  it with the `Plan` that repeats the change on a fresh network.
"""

from distill.registry import Registry, supplied

CALLED_WITH = {"student", "teacher", "labels", "sample", "inputs"}
"""One that does not ask for ``teacher`` needs none."""
BUILT_WITH = {
    "student_shape",
    "teacher_shape",
    "student_shapes",
    "teacher_shapes",
    "student_model",
    "teacher_model",
    "teacher_path",
    "teacher_paths",
    "train_labels",
    "batch_size",
}
"""Shapes begin with the batch; ``batch_size`` counts the samples of all processes. ``student_model`` is the network
that is being trained: a loss keeps it out of its own parameters, in a tuple, and looks at it when it is called."""

loss = Registry("loss", package=__name__, offers=CALLED_WITH | BUILT_WITH)


def needs_teacher(name: str) -> bool:
    """Whether that loss compares the student with a teacher; some look at the student alone."""
    component = loss.find(name)
    return "teacher" in supplied(getattr(component, "forward", component))
