"""The section ``mix``: training images are blended with each other."""

from dataclasses import dataclass

from distill.errors import RecipeError
from distill.registry.ranges import Positive


@dataclass
class Mix:
    """Mixup, CutMix, or one of both at random for each batch; the teacher sees the same mixed images."""

    mixup: Positive | None = None
    """The parameter alpha of the beta distribution that weights are drawn from: Zhang et al., arXiv:1710.09412."""
    cutmix: Positive | None = None
    """As for mixup, of the area of the rectangle taken from another image: Yun et al., arXiv:1905.04899."""

    def __post_init__(self) -> None:
        if self.mixup is None and self.cutmix is None:
            raise RecipeError("mix names neither mixup nor cutmix, for example {mixup: 0.2, cutmix: 1.0}")
