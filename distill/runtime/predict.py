"""Predictions for pictures where PyTorch is not installed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill.data.info import DataInfo
from distill.data.picture_arrays import Picture, batched_arrays, expanded, named
from distill.errors import ArtifactError
from distill.runtime.network import Network
from distill.runtime.operators.activations import softmax
from distill.runtime.reading import load

SHOWN = 5
"""Classes of a prediction, the most probable first."""


def torch_is_missing() -> bool:
    """Whether predictions have to do without PyTorch."""
    try:
        return find_spec("torch") is None
    except ImportError:
        return True


@dataclass(frozen=True)
class Predictor:
    """A network with what it says about itself."""

    network: Network
    info: DataInfo

    @classmethod
    def open(cls, path: Path | str, allow: Collection[str] = ()) -> "Predictor":
        """From a file that `python -m distill export FILE --to runtime` wrote.

        Args:
            path: the file.
            allow: not needed: a graph holds no code.

        Raises:
            ArtifactError: the file is damaged, holds no graph, or its task needs PyTorch.
        """
        if Path(path).suffix in (".onnx", ".xml", ".xz"):
            raise ArtifactError(f"{path} needs PyTorch, which is not installed: pip install torch")
        network = load(path)
        if missing := {"task", "info"} - network.about.keys():
            raise ArtifactError(f"{path} does not say its {' and '.join(sorted(missing))}: it was not made by a recipe")
        task = network.about["task"]
        name = task["name"] if isinstance(task, dict) else task
        if name != "classification":
            raise ArtifactError(
                f"{path} was trained for '{name}', but only classes are predicted without PyTorch: "
                "pip install torch, or read the output of distill.runtime.load(path)"
            )
        return cls(network, DataInfo.from_json(network.about["info"]))

    def predict(self, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
        """``{"class": "cat", "probability": 0.9, "top": [...]}`` for each picture, batch by batch.

        Raises:
            DataError: a file is no readable picture.
        """
        for inputs in batched_arrays(pictures, self.info):
            yield from map(self._classes, softmax(self.network(inputs), 1))

    def _classes(self, probabilities: np.ndarray) -> dict[str, Any]:
        best = np.argsort(-probabilities, kind="stable")[:SHOWN]
        top = [{"class": self.info.class_names[place], "probability": float(probabilities[place])} for place in best]
        return {**top[0], "top": top}

    def draw(self, pictures: Sequence[Picture], prediction: dict[str, Any]) -> Image.Image:
        """Pictures are drawn by tasks, which need PyTorch.

        Raises:
            ArtifactError: always.
        """
        raise ArtifactError("--draw needs PyTorch: pip install torch, or leave it out")


def predict(
    model: Predictor | Path | str, images: Picture | Sequence[Picture], *, allow: Collection[str] = ()
) -> list[dict[str, Any]]:
    """What `distill.predict` is without PyTorch.

    Args:
        model: the path of a file with a graph, or an open one.
        images: pictures, files, folders or globs.
        allow: not needed.

    Raises:
        ArtifactError: the model is damaged, or holds no graph.
        DataError: there is no picture, or one is damaged.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.open(model, allow)
    pictures = expanded([images] if isinstance(images, str | Path | Image.Image) else images)
    return named(pictures, predictor.info, predictor.predict(pictures))
