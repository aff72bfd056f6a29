"""Pictures for the report."""

import base64
from io import BytesIO

import torch
from PIL import Image
from torchmetrics import MetricCollection

from distill.batch import Batch
from distill.data import DataInfo
from distill.pipeline.predictions import in_a_row, pictures
from distill.tasks import Prediction, Task

INFO = DataInfo(3, (120, 130), (0.0,) * 3, (1.0,) * 3)


class Painted(Task):
    """Draws a picture of the colour that a network says."""

    monitor = "none"

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        return MetricCollection({})

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        return Image.new("RGB", image.size, tuple(int(value) for value in prediction["output"]))


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_networks_are_drawn_from_left_to_right_behind_the_input() -> None:
    inputs = torch.ones(1, 3, 120, 130)
    colours = {"teacher": [255.0, 0, 0], "student": [0, 255.0, 0], "compressed": [0, 0, 255.0]}
    networks = {name: lambda _, colour=colour: torch.tensor([colour]) for name, colour in colours.items()}
    (row,) = map(opened, pictures([Batch(inputs, None, torch.arange(1))], networks, Painted(INFO)))
    assert row.width == 4 * 130
    assert [row.getpixel((65 + 130 * place, 60)) for place in range(4)] == [
        (255, 255, 255),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    ]
    (alone,) = map(
        opened, pictures([Batch(inputs, None, torch.arange(1))], {"student": networks["student"]}, Painted(INFO))
    )
    assert (alone.size, alone.getpixel((5, 5))) == ((130, 120), (0, 255, 0))


def test_a_row_is_as_high_as_its_highest_picture() -> None:
    row = in_a_row({"a": Image.new("RGB", (200, 150), "red"), "b": Image.new("RGB", (120, 300), "blue")})
    assert row.width == 320
    assert row.height > 300
    assert (row.getpixel((10, 10)), row.getpixel((210, 290))) == ((255, 0, 0), (0, 0, 255))
