"""The section ``blocks`` of a stage: where student and teacher are cut, and what each block of the student reads."""

from dataclasses import dataclass, field
from typing import Literal

from distill.errors import RecipeError
from distill.registry.ranges import Positive, Probability


@dataclass
class Cuts:
    """Cuts of both networks at matching depths; between two of them lies a block that learns on its own."""

    student: list[str] = field(default_factory=list)
    """Module paths whose outputs end the student's blocks, early to late."""
    teacher: list[str] = field(default_factory=list)
    """As many of the teacher: the student's blocks learn to output what these output."""
    input: Literal["teacher", "student", "mixed"] = "teacher"
    """What a block reads: the teacher's map at the cut before it, the student's own map there, or for
    each sample one of them at random."""
    start: Probability = 1.0
    """For ``mixed``: the probability that a sample reads the teacher's map as the stage (or the block's turn) begins"""
    end: Probability = 0.0
    """The same as it ends; between the two it moves evenly."""
    order: Literal["parallel", "progressive"] = "parallel"
    """``parallel``: all blocks learn in one pass. ``progressive``: each in its turn, an equal share of the epochs; on
    several devices this needs ``trainer.strategy=ddp_find_unused_parameters_true``."""
    weight: Positive = 1.0
    """Of every block's error, a fraction of the variance of the teacher's map: the same does for all depths."""

    def __post_init__(self) -> None:
        if not self.student or len(self.student) != len(self.teacher):
            raise RecipeError(
                f"blocks: the student is cut at {self.student}, the teacher at {self.teacher}; "
                "give as many module paths of each, at least one"
            )
        for path in (*self.student, *self.teacher):
            if not path:
                raise RecipeError("blocks: '' is the network's output, where nothing is left to cut; use a loss there")
        if self.input != "mixed" and (self.start, self.end) != (1.0, 0.0):
            raise RecipeError(f"blocks: start and end belong to input: mixed, not to input: {self.input}")
