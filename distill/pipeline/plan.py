"""What a recipe would do, step by step, without doing it: nothing is written."""

from dataclasses import dataclass

from distill.recipe.schema import Recipe


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run that has not been made."""

    name: str
    """"teacher", "baseline", "student/distill", "compress/1-svd", "export/onnx"."""
    network: str
    """The name of the network that the step trains, compresses or exports."""
    kept: bool
    """A finished step of an earlier run is reused."""
    epochs: int
    """0 where nothing is trained."""
    params: int
    macs: int
    """Multiply-accumulates for one image."""
    seconds: float | None
    """Estimated from one timed training step; 0 for a kept step, None where nothing is known."""


def plan(recipe: Recipe) -> list[PlannedStep]:
    """The steps of a recipe in the order in which a run makes them.

    Raises:
        DistillError: the recipe cannot run; see `distill.pipeline.dry_run`.
    """
    raise NotImplementedError
