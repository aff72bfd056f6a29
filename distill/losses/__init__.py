"""Distillation losses: one file each, found by name."""

from distill.registry import Registry

CALLED_WITH = {"student", "teacher", "labels", "sample", "inputs"}
BUILT_WITH = {
    "student_shape",
    "teacher_shape",
    "student_shapes",
    "teacher_shapes",
    "teacher_model",
    "teacher_path",
    "teacher_paths",
    "train_labels",
}

loss = Registry("loss", package=__name__, offers=CALLED_WITH | BUILT_WITH)
