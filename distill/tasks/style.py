"""Pictures repainted in the style of another one.

Johnson, Alahi & Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution. arXiv:1603.08155.
"""

import base64
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from distill.batch import Batch
from distill.data.decoding import open_picture, shown
from distill.data.info import DataInfo
from distill.data.preprocessing import Preprocessing, normalised
from distill.errors import DataError, RecipeError
from distill.recipe.schema.perceptual import Perceptual
from distill.registry.ranges import Count, NonNegative
from distill.tasks import Prediction, Task, task
from distill.tasks._perceptual import PerceptualMaps, gram

PAINTING = Path(__file__).with_name("painting.jpg")
"""Made by ``python -m benchmarks.painting``."""
SMALLEST, LONGEST = 16, 10
"""Of the picture in whose style to paint: pixels of its shorter side, and how many times the longer side is as long."""
Pictures = Float[Tensor, "batch 3 height width"]


@task("style")
class Style(Task):
    """Content and style of pictures as a frozen perceptual network sees them; smoothness of their pixels.

    Inputs and outputs are normalised pictures of any size; there are no labels. In place of the paper's sums, content
    and style errors are parts of what they are compared with, so that weights of about 1 go with any perceptual network
    and any layers: 0 is the same, 1 as far away as an empty map.

    Args:
        info: of the data set, whose pictures are in colours.
        picture: the file of the picture in whose style to paint; without, a painting of this project's own.
        picture_size: pixels of its shorter side, of which brush strokes are a part.
        content_weight: of the distance from the input's content.
        style_weight: of the distance from the picture's style.
        smooth_weight: of the total variation.
        perceptual: the perceptual network.

    Raises:
        RecipeError: pictures are not in colours, or the loss would be 0.
    """

    monitor = "total"
    mode = "min"
    units = {"psnr": "dB"}
    output_name = "picture"
    agreement_name = "agreement of pixels"
    label_kind = "none"
    class_scores = ()
    any_size = True
    weights_of_losses = ("content_weight", "style_weight", "smooth_weight")
    side_by_side = True

    def __init__(
        self,
        info: DataInfo,
        *,
        picture: Path | None = None,
        picture_size: Count = 256,
        content_weight: NonNegative = 1.0,
        style_weight: NonNegative = 2.0,
        smooth_weight: NonNegative = 0.5,
        perceptual: Perceptual | None = None,
    ) -> None:
        super().__init__(info)
        if (info.channels, info.images) != (3, 1):
            raise RecipeError("style repaints single pictures in colours")
        if not content_weight and not style_weight:
            raise RecipeError("task.content_weight and task.style_weight are both 0: there is nothing to learn")
        self.weights = {"content": content_weight, "style": style_weight, "smooth": smooth_weight}
        self.picture, self.picture_size = (picture or PAINTING).expanduser(), picture_size
        self.perceptual = perceptual or Perceptual()
        self._seen: tuple[Tensor, dict[str, Tensor]] | None = None

    @cached_property
    def maps(self) -> PerceptualMaps:
        """The perceptual network: loaded where a loss or a metric needs it, so not by who only predicts."""
        return PerceptualMaps(self.perceptual, self.info)

    @cached_property
    def targets(self) -> dict[str, Float[Tensor, "1 channels channels"]]:
        """Gram matrices of the picture in whose style to paint."""
        pixels = Preprocessing(resize=self.picture_size)(_painting(self.picture))
        with torch.inference_mode(False), torch.no_grad():
            maps = self.maps(normalised(pixels[None].numpy(), self.info.mean, self.info.std))
            return {path: gram(maps[path]) for path in self.maps.layers.style}

    def files(self) -> list[Path]:
        """The picture in whose style to paint, and the weights of the perceptual network."""
        weights = Path(self.perceptual.weights or "")
        return [self.picture, *([weights] if weights.is_file() else [])]

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        if output.shape != batch.inputs.shape:
            found, needed = ("x".join(map(str, tensor.shape[1:])) for tensor in (output, batch.inputs))
            raise RecipeError(f"outputs {found} for pictures of {needed}, but a repainted picture has the same size")

    def loss(self, output: Pictures, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return {name: self.weights[name] * error for name, error in self._errors(output, batch.inputs).items()}

    def metrics(self) -> MetricCollection:
        """Without their weights, and ``total``, with them; lower is better."""
        return MetricCollection({name: _Mean(name) for name in ("content", "style", "smooth", "total")})

    def update(self, metrics: MetricCollection | Metric, output: Pictures, batch: Batch) -> None:
        errors = self._errors(output, batch.inputs)
        total = sum(self.weights[name] * error for name, error in errors.items())
        metrics.update({**errors, "total": total}, len(output))

    def fidelity(self) -> MetricCollection:
        """Of pixels from 0 to 1: structural similarity and signal to noise; and the distance of perceptual maps."""
        return MetricCollection(
            {
                "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
                "psnr": PeakSignalNoiseRatio(data_range=1.0),
                "feature_distance": MeanMetric(),
            }
        )

    def compare(self, metrics: MetricCollection, output: Pictures, reference: Pictures) -> None:
        ours, other = self.maps(output), self.maps(reference)
        distance = torch.stack([_relative(ours[path], other[path]) for path in ours]).mean()
        for name, metric in metrics.items():
            if name == "feature_distance":
                metric.update(distance, len(output))
            else:
                metric.update(self._pixels(output), self._pixels(reference))

    def agreement(self, output: Pictures, reference: Pictures) -> float:
        """1 less the mean absolute error of pixels from 0 to 1."""
        return 1 - float((self._pixels(output) - self._pixels(reference)).abs().mean())

    def parts(self, output: Pictures) -> Mapping[str, Tensor]:
        """Perceptual maps of a picture by their paths: ``":blocks.4"``."""
        return self._maps_of(output)

    def predict(self, output: Pictures) -> list[Prediction]:
        """``{"width": 640, "height": 480, "picture": {"png": "..."}}``: a PNG file in base64."""
        pixels = (self._pixels(output.detach().cpu().float()) * 255).round().byte().movedim(1, -1).numpy()
        return [
            {"width": one.shape[1], "height": one.shape[0], "picture": {"png": _png(Image.fromarray(one))}}
            for one in pixels
        ]

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """The repainted picture."""
        return Image.open(BytesIO(base64.b64decode(prediction["picture"]["png"])))

    def _errors(self, output: Pictures, inputs: Pictures) -> dict[str, Float[Tensor, ""]]:
        """Content, style and smoothness of repainted pictures, means over the batch."""
        layers, painted = self.maps.layers, self._maps_of(output)
        with torch.no_grad():
            original = self.maps(inputs)
        targets = {path: target.to(output.device) for path, target in self.targets.items()}
        content = [_relative(painted[path], original[path]) for path in layers.content]
        style = [_relative(gram(painted[path]), targets[path].expand(len(output), -1, -1)) for path in layers.style]
        return {
            "content": torch.stack(content).mean() if content else output.new_zeros(()),
            "style": torch.stack(style).mean() if style else output.new_zeros(()),
            "smooth": total_variation(self._pixels(output, clamped=False)),
        }

    def _maps_of(self, output: Pictures) -> dict[str, Tensor]:
        """Of one output, computed once for the loss and for the parts that losses tap."""
        if self._seen is None or self._seen[0] is not output:
            self._seen = output, self.maps(output)
        return self._seen[1]

    def _pixels(self, pictures: Pictures, *, clamped: bool = True) -> Pictures:
        """From 0 to 1."""
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (self.info.mean, self.info.std))
        pixels = pictures * std + mean
        return pixels.clamp(0, 1) if clamped else pixels


class _Mean(MeanMetric):
    """Of one of several values."""

    higher_is_better = False  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def update(self, values: Mapping[str, Tensor], samples: int) -> None:  # type: ignore[override]
        super().update(values[self.name].detach(), samples)


def total_variation(pixels: Pictures) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbours, vertical ones and horizontal ones added.

    Rudin, Osher & Fatemi: Nonlinear total variation based noise removal algorithms. Physica D 60, 1992; anisotropic.
    """
    return pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()


def _painting(path: Path) -> Image.Image:
    picture = open_picture(path)
    short, long = sorted(picture.size)
    if short < SMALLEST or long > LONGEST * short:
        raise DataError(
            f"{shown(path)} (task.picture) is of {picture.width}x{picture.height} pixels: a style needs at least "
            f"{SMALLEST} a side, and a picture at most {LONGEST} times as long as wide"
        )
    return picture


def _relative(found: Float[Tensor, "*shape"], wanted: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The squared error as a part of what is wanted."""
    return F.mse_loss(found, wanted) / wanted.square().mean().clamp(min=torch.finfo(torch.float32).tiny)


def _png(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
