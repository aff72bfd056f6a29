"""A regression task of somebody else's: where a bright spot is in an image, in pixels. Written as a package of files,
outside the repository, with a network that returns a dict and has an auxiliary head."""

from pathlib import Path

FILES = {
    "__init__.py": "",
    "data.py": '''
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from distill.batch import Batch
from distill.data import DataInfo


def spots(samples, seed):
    """Images of one bright spot on noise, and its place as (x, y) in pixels."""
    random = torch.Generator().manual_seed(seed)
    place = 3 + 10 * torch.rand(samples, 2, generator=random)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    distance = (columns - place[:, 0, None, None]) ** 2 + (rows - place[:, 1, None, None]) ** 2
    noise = 0.1 * torch.rand(samples, 16, 16, generator=random)
    return ((0.9 * torch.exp(-distance / 4) + noise)[:, None] - 0.2) / 0.25, place


class Spots(pl.LightningDataModule):
    info = DataInfo(channels=1, image_size=(16, 16), mean=(0.2,), std=(0.25,))
    batch_size = 32

    def __init__(self, seed, *, samples: int = 192) -> None:
        super().__init__()
        self.seed, self.samples = seed, samples
        self.parts = {"train": spots(samples, 1), "val": spots(64, 2), "test": spots(96, 3)}

    def batch(self, part, chosen):
        images, places = self.parts[part]
        return Batch(images[chosen], {"place": places[chosen]}, torch.as_tensor(chosen))

    def loader(self, part, shuffle=False):
        count = len(self.parts[part][0])
        random = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            range(count), self.batch_size, shuffle, generator=random, collate_fn=lambda chosen: self.batch(part, chosen)
        )

    def train_dataloader(self):
        return self.loader("train", shuffle=True)

    def val_dataloader(self):
        return self.loader("val")

    def test_dataloader(self):
        return self.loader("test")

    def train_labels(self):
        return None

    def calibration(self, samples):
        count = min(samples, self.samples)
        return [self.batch("train", list(range(start, min(start + 32, count)))) for start in range(0, count, 32)]

    def fingerprint(self):
        return f"spots-{self.samples}"
''',
    "task.py": """
import torch.nn.functional as F
from torchmetrics import MeanMetric, MetricCollection

from distill.tasks import Task


class Distance(MeanMetric):
    def update(self, output, labels):
        super().update((output - labels["place"]).square().sum(1).sqrt())


class Close(MeanMetric):
    def update(self, output, labels):
        super().update(((output - labels["place"]).square().sum(1).sqrt() < 1).float())


class Place(Task):
    monitor, mode = "distance", "min"
    units = {"distance": "px", "close": "%"}
    output_name = "place"

    def network_arguments(self):
        return {"outputs": 2}

    def loss(self, output, batch):
        place = batch.labels["place"]
        return {"x": F.smooth_l1_loss(output[:, 0], place[:, 0]), "y": F.smooth_l1_loss(output[:, 1], place[:, 1])}

    def metrics(self):
        return MetricCollection({"distance": Distance(), "close": Close()})

    def parts(self, output):
        return {"x": output[:, :1], "y": output[:, 1:]}

    def predict(self, output):
        return [{"x": x, "y": y} for x, y in output.tolist()]

    def truth(self, labels):
        return self.predict(labels["place"])
""",
    "network.py": """
from torch import nn


def block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class Regressor(nn.Module):
    def __init__(self, *, outputs: int, channels: int = 3, width: int = 8):
        super().__init__()
        self.first, self.second = block(channels, width), block(width, 2 * width)
        self.early = nn.Sequential(nn.Flatten(), nn.Linear(width * 64, outputs))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * 16, 64), nn.ReLU())
        self.last = nn.Linear(64, outputs)

    def forward(self, images):
        first = self.first(images)
        second = self.second(first)
        return {"place": self.last(self.hidden(second)), "early": self.early(first)}
""",
    "losses.py": """
def distance(student, teacher, *, power: float = 1.0):
    return (student - teacher).abs().pow(power).mean()
""",
}

RECIPE = """\
seed: 1
task: {{name: '{package}.task:Place'}}
data: {{name: '{package}.data:Spots'}}
teacher:
  name: {package}.network:Regressor
  arguments: {{width: 16}}
  output: place
  auxiliary: {{early: 0.3}}
  epochs: 6
student: {{name: '{package}.network:Regressor', output: place, auxiliary: {{early: 0.3}}}}
optimizer: {{name: adamw, lr: 0.01, weight_decay: 0.0}}
stages:
  hint:
    epochs: 1
    losses:
      fitnet: {{weight: 0.1, student: [second], teacher: [second]}}
  distill:
    epochs: 6
    keep: best
    losses:
      at: {{student: [first, second], teacher: [first, second]}}
      distance: {{name: '{package}.losses:distance', student: [':x', ':y'], teacher: [':x', ':y']}}
compress:
  svd: {{max_drop: 0.1, layers: [hidden.1], finetune: {{epochs: 1}}}}
  quantize: {{bits: 8}}
  encode: {{}}
export:
  onnx: {{}}
tracking: {{mode: disabled}}
output: {output}
"""


def write(folder: Path, package: str) -> Path:
    """The package and its recipe; returns the recipe's file."""
    (folder / package).mkdir()
    for name, text in FILES.items():
        (folder / package / name).write_text(text.lstrip())
    recipe = folder / "places.yaml"
    recipe.write_text(RECIPE.format(package=package, output=folder / "runs"))
    return recipe
