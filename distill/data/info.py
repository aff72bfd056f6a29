"""What a data set says about itself: enough to build networks and a task for it, also where the data set is absent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distill.errors import RecipeError


def chosen_classes(classes: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the setting ``classes`` of a data set names; all that are known without it.

    Raises:
        RecipeError: it names none.
    """
    if classes == []:
        raise RecipeError(f"data.classes is [], but must name a class: leave it out for all {len(known)}")
    return tuple(classes or known)


@dataclass(frozen=True)
class DataInfo:
    """Plain data: artifacts and exported files carry it, so that prediction needs no data set."""

    channels: int
    """Of one image."""
    image_size: tuple[int, int]
    """(height, width) in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """What inputs are normalised with, per channel, for pixels from 0 to 1."""
    class_names: tuple[str, ...] = ()
    """Empty where there are no classes."""
    images: int = 1
    """Input images of one sample: 2 for optical flow, stacked along the channels."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """From a picture file to pixels of ``image_size``, as plain data."""

    @property
    def num_classes(self) -> int:
        """0 where there are no classes."""
        return len(self.class_names)

    def unresized(self) -> "DataInfo":
        """The same for a network that reads pictures of any size, which keep theirs."""
        return replace(self, preprocessing={"mode": self.preprocessing.get("mode", "RGB")})

    def resized(self) -> "DataInfo":
        """The same for a network or a file that reads pictures of ``image_size`` alone, whatever size they have."""
        if self.preprocessing.get("crop") or isinstance(self.preprocessing.get("resize"), list):
            return self
        return replace(self, preprocessing={**self.preprocessing, "resize": list(self.image_size)})

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, section: Mapping[str, Any]) -> "DataInfo":
        """The inverse of `to_json`; lists become tuples."""
        known: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in section.items()}
        return cls(**known)
