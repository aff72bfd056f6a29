"""Predictions for pictures, by an artifact or an exported file: what it says about itself is all that is needed."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from distill.artifact import Artifact, open_artifact
from distill.batch import Predict
from distill.data.image_inputs import batched_inputs
from distill.data.info import DataInfo
from distill.data.picture_arrays import BATCH_SIZE, Picture, expanded, named, opened
from distill.errors import ArtifactError, DataError
from distill.export import onnx_file
from distill.export.coded import SUFFIX, read_coded
from distill.measure.evaluation import to_accelerator
from distill.models.surgery import deployable
from distill.recipe.typed import built
from distill.registry import task
from distill.tasks import Task, injectable


@dataclass(frozen=True)
class Predictor:
    """A network with what it says about itself."""

    network: Predict
    """From inputs to outputs."""
    info: DataInfo
    task: Task

    @classmethod
    def open(cls, path: Path | str, allow: Collection[str] = ()) -> "Predictor":
        """From an artifact (``.safetensors``), an ONNX file (``.onnx``, ``.onnx.xz``) or OpenVINO's ``.xml``.

        Raises:
            ArtifactError: the file is damaged, or says nothing about its images and its task.
        """
        path = Path(path)
        match path.suffix:
            case ".onnx" | ".xz":
                session = onnx_file.session(read_coded(path) if path.suffix == SUFFIX else path, name=path)
                about = _parsed(session.get_modelmeta().custom_metadata_map, path)
                return cls.described(lambda inputs: onnx_file.answer(session, inputs), about, path)
            case ".xml":
                from distill.export import openvino

                network, metadata = openvino.read(path)
                return cls.described(network, _parsed(metadata, path), path)
        return cls.of(open_artifact(path, allow), path)

    @classmethod
    def of(cls, artifact: Artifact, name: object = "the artifact") -> "Predictor":
        """From an open artifact."""
        return cls.described(to_accelerator(deployable(artifact.model)), artifact.about, name)

    @classmethod
    def described(cls, network: Predict, about: Mapping[str, Any], name: object) -> "Predictor":
        """From a network and what is said about it: its "task" and the "info" of its data."""
        if missing := {"task", "info"} - about.keys():
            raise ArtifactError(f"{name} does not say its {' and '.join(sorted(missing))}: it was not made by a recipe")
        info = DataInfo.from_json(about["info"])
        return cls(network, info, built(about["task"], task, injectable(info)))

    @torch.inference_mode()
    def predict(self, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
        """One prediction per sample, as the task says it, batch by batch.

        Raises:
            DataError: a file is no readable picture, or one of a size that the network cannot compute on.
        """
        done = 0
        for inputs in batched_inputs(pictures, self.info, 1 if self.task.any_size else BATCH_SIZE):
            outputs = self._outputs(inputs, pictures[done * self.info.images])
            yield from self.task.predict(outputs.cpu())
            done += len(inputs)

    def _outputs(self, inputs: Tensor, first: Picture) -> Tensor:
        try:
            return self.network(inputs)
        except Exception as error:  # runtimes' errors have no common base
            if not self.task.any_size:
                raise
            name = "a picture" if isinstance(first, Image.Image) else first
            size, reason = "x".join(map(str, inputs.shape[:1:-1])), str(error).strip().partition("\n")[0]
            raise DataError(f"{name}: the network cannot read {size} pixels ({reason}): resize it") from error

    def draw(self, pictures: Sequence[Picture], prediction: Mapping[str, Any]) -> Image.Image:
        """The pictures of one sample with its prediction."""
        return self.task.draw(side_by_side(pictures), dict(prediction))

    def write(self, pictures: Sequence[Picture], prediction: Mapping[str, Any], path: Path) -> Path | None:
        """The prediction in a file format of its field, if there is one; ``path`` has no suffix."""
        return self.task.write(side_by_side(pictures), dict(prediction), path)


def side_by_side(pictures: Sequence[Picture]) -> Image.Image:
    """All in colours, from left to right, each as large as the first."""
    seen = [opened(picture) for picture in pictures]
    width, height = seen[0].size
    page = Image.new("RGB", (width * len(seen), height))
    for place, picture in enumerate(seen):
        page.paste(picture.convert("RGB").resize((width, height)), (place * width, 0))
    return page


def predict(
    model: Artifact | Predictor | Path | str,
    images: Picture | Sequence[Picture],
    *,
    allow: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Predict for pictures; they are resized and normalised as the model says.

    Args:
        model: an artifact, or the path of one, of an ONNX file or of OpenVINO's ``.xml``.
        images: pictures, files, folders or globs.
        allow: modules of networks from outside whose code may be imported.

    Returns:
        For each picture ``{"file": path, ...}`` with what its task predicts: class and probability, for example.

    Raises:
        ArtifactError: the model is damaged, or says nothing about its images.
        DataError: there is no picture, or one is damaged.
    """
    match model:
        case Predictor():
            predictor = model
        case Artifact():
            predictor = Predictor.of(model)
        case _:
            predictor = Predictor.open(model, allow)
    pictures = expanded([images] if isinstance(images, str | Path | Image.Image) else images)
    return named(pictures, predictor.info, predictor.predict(pictures))


def _parsed(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The JSON texts in an exported file's metadata."""
    try:
        return {key: json.loads(metadata[key]) for key in ("task", "info") if key in metadata}
    except ValueError:
        raise ArtifactError(f"{path}: its metadata is not JSON; export it again") from None
