"""The section ``cache``: what is kept of the teacher's outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.registry.ranges import Count


@dataclass
class Cache:
    """The teacher's outputs, kept on disk and read instead of computed.

    In epoch e the training images of a stage with a teacher look as in epoch ``e % views``.
    """

    views: Count = 4
    """How many augmentations of each image to keep. Without augmentation 1 is enough."""
    dtype: Literal["float16", "float32"] = "float16"
    top_k: Count | None = None
    """Of the teacher's output keep only the largest logits; the other classes share what probability is left."""
    folder: Path | None = None
    """Without one, one under ``output`` that runs with the same teacher and data share."""

    @property
    def effects(self) -> list[Any]:
        """What of this changes a student: the images that it sees, and how exactly the teacher is remembered."""
        return [self.views, self.dtype, self.top_k]
