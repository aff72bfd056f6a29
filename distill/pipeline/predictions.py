"""A few images of a split with their predictions and what is true, as pictures for the report."""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from distill.batch import Batch, Predict
from distill.data import DataInfo
from distill.tasks import Task
from distill.tasks._captions import NEUTRAL, captioned

PICTURES = 10
LARGEST, MOST_COLUMNS = 224, 6
"""Pixels of a picture's longer side; what is as wide as several pictures may take the room of so many."""


class Kept:
    """Passes batches on, and keeps some samples, spread evenly over all of them.

    Args:
        batches: the split.
        count: how many batches it has.
        samples: how many samples to keep, or all if there are fewer.
    """

    def __init__(self, batches: Iterable[Batch], count: int, samples: int = PICTURES) -> None:
        self.batches, self.samples = batches, 0
        self.wanted = Counter(int(place) for place in np.linspace(0, max(count - 1, 0), samples).round())
        self.kept: list[Batch] = []
        """One sample each."""

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.batches):
            size = len(batch.inputs)
            self.samples += size
            places = np.linspace(0, size - 1, min(self.wanted[number], size)).round().astype(int)
            self.kept += [batch.take(int(place)) for place in places]
            yield batch


@torch.inference_mode()
def pictures(samples: Iterable[Batch], networks: Mapping[str, Predict], task: Task) -> list[str]:
    """Each sample's image with its prediction drawn by the task, as a PNG in a data URI.

    Of several networks, the input and what is drawn for each of them stand side by side, their names below.
    """
    drawn = []
    for sample in samples:
        truth = next(iter(task.truth(sample.labels)), None)
        image = picture_of(sample.inputs[0], task.info)
        found = {
            name: task.draw(image, task.predict(predict(sample.inputs).cpu())[0], truth)
            for name, predict in networks.items()
        }
        drawn.append(_data_uri(in_a_row({"input": image, **found}) if len(found) > 1 else next(iter(found.values()))))
    return drawn


def in_a_row(images: Mapping[str, Image.Image]) -> Image.Image:
    """Images side by side, each above its name."""
    titled = [captioned(image, (name, NEUTRAL)) for name, image in images.items()]
    page = Image.new("RGB", (sum(one.width for one in titled), max(one.height for one in titled)), "white")
    left = 0
    for one in titled:
        page.paste(one, (left, 0))
        left += one.width
    return page


def picture_of(inputs: Float[Tensor, "channels height width"], info: DataInfo) -> Image.Image:
    """Normalised inputs as the picture that they came from; of several images, all side by side."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    images = torch.cat([image.cpu() * std + mean for image in inputs.split(info.channels)], dim=2)
    values = (images.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0])


def _data_uri(image: Image.Image) -> str:
    image.thumbnail((LARGEST * min(MOST_COLUMNS, max(1, round(image.width / image.height))), LARGEST + 40))
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
