"""Everything that can go wrong, in one small tree.

DistillError            exit code 1: something failed
├── TrainingError       a weight or a loss is no longer a number
├── ExportError         a network cannot be exported, or its export computes something else
└── UserError           exit code 2: what was asked for cannot be done
    ├── RecipeError     an unknown name or key, a wrong type, parts that do not fit
    │   └── TapError    a feature map that does not exist or cannot be caught
    ├── DataError       a data set that is missing, empty or damaged
    └── ArtifactError   an artifact that is truncated, altered or newer than this program
"""


class DistillError(Exception):
    """Base of all errors that the command line shows as one line, without a traceback."""

    exit_code = 1


class TrainingError(DistillError):
    """A weight or a loss is no longer a number."""


class ExportError(DistillError):
    """A network cannot be exported, or its export computes something else."""


class UserError(DistillError):
    """What was asked for cannot be done; the message says what can."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe names something that does not exist, has a wrong type, or joins parts that do not fit."""


class TapError(RecipeError):
    """A feature map that does not exist or cannot be caught."""


class DataError(UserError):
    """A data set that is missing, empty or damaged."""


class ArtifactError(UserError):
    """An artifact that is truncated, altered or newer than this program."""
