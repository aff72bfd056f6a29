"""Where each pixel of an image moves to in the next image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from distill.batch import Batch
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.tasks import Prediction, Task, task
from distill.tasks._captions import NEUTRAL, captioned
from distill.tasks._flow_colours import flow_colours
from distill.tasks._flow_file import write_flo

Vectors = Float[Tensor, "batch 2 height width"]
Known = Bool[Tensor, "batch height width"]
OUTLIER, SHARE = 3.0, 0.05
"""An outlier is off by more pixels than the one, and by more than the other as a part of the true length: Menze and
Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015, section 5."""
CLOSE = 1.0
"""Pixels up to which two vectors agree."""


@task("optical_flow")
class OpticalFlow(Task):
    """End-point error in pixels: Dosovitskiy et al., FlowNet, arXiv:1504.06852, section 5.1.

    A network reads two images, stacked along the channels, and outputs flow (batch, 2, height, width) in pixels of the
    images, to the right and down, at their size or at a part of it. An output of a quarter of the size is compared
    with the mean of the true flow over 4 x 4 pixels in training, and enlarged bilinearly for the metrics. Coarser flow
    that a network names in ``auxiliary`` is trained by the same loss, with its weights. Pixels without known flow are
    left out.

    Metrics: ``epe``, the mean end-point error in pixels, and ``fl_all``, the part of the pixels that are off by more
    than 3 pixels and by more than 5 % of the true length.

    Raises:
        RecipeError: the data has no pairs of images.
    """

    monitor = "epe"
    mode = "min"
    units = {"epe": "px", "fl_all": "%"}
    output_name = "flow"
    agreement_name = "vectors within 1 px"
    input_images = 2
    label_kind = "flow"
    class_scores = ()
    any_size = True

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        if info.images != self.input_images:
            raise RecipeError(
                f"optical_flow needs pairs of images, but the data has {info.images} to a sample: "
                "use flying_cutouts, flying_chairs, sintel or kitti_flow"
            )

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        height, width = batch.inputs.shape[2:]
        shape = tuple(output.shape[1:])
        if len(shape) != 3 or shape[0] != 2:
            raise RecipeError(f"outputs {shape}, but flow is (2, height, width): to the right and down")
        if shape[1] > height or shape[2] > width or abs(shape[1] * width - shape[2] * height) >= max(height, width):
            raise RecipeError(
                f"outputs flow of {shape[1]}x{shape[2]} for images of {height}x{width}: "
                "their size, or the same part of both sides"
            )

    def loss(self, output: Vectors, batch: Batch) -> Float[Tensor, ""]:
        flow, known = reduced(batch.labels["flow"], batch.labels["valid"], (output.shape[2], output.shape[3]))
        errors = torch.linalg.vector_norm(output.float() - flow, dim=1)[known]
        return errors.mean() if len(errors) else output.sum() * 0

    def metrics(self) -> MetricCollection:
        return MetricCollection({"epe": EPE(), "fl_all": FlAll()})

    def agreement(self, output: Vectors, reference: Vectors) -> float:
        """The part of the vectors that are within a pixel of each other."""
        return float((torch.linalg.vector_norm(output - reference, dim=1) <= CLOSE).float().mean())

    def constant(self, labels: Any) -> Float[Tensor, "2 height width"]:
        """Nothing moves."""
        return torch.zeros(2, *self.info.image_size)

    def predict(self, output: Vectors) -> list[Prediction]:
        """``{"mean": 3.1, "longest": 9.4, "right": -2.0, "down": 0.3, "flow": [[...], [...]]}``: lengths and the mean
        vector in pixels, and the flow at the network's resolution, each number to a hundredth of a pixel.
        """
        return [_described(flow) for flow in output.detach().float().cpu()]

    def truth(self, labels: Mapping[str, Tensor]) -> list[Prediction]:
        """As `predict`, at full resolution; None in place of numbers where the flow is not known."""
        unknown = ~labels["valid"][:, None].expand_as(labels["flow"])
        return [_described(flow) for flow in labels["flow"].masked_fill(unknown, torch.nan)]

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """The images beside the flow in colours, and the true flow in the same ones; white does not move."""
        flows = [_array(one) for one in (prediction, truth) if one]
        longest = max(one["longest"] for one in (prediction, truth) if one)
        size = (image.width // self.info.images, image.height)
        page = Image.new("RGB", (image.width + size[0] * len(flows), image.height), "white")
        page.paste(image)
        for place, flow in enumerate(flows):
            picture = Image.fromarray(flow_colours(flow, longest)).resize(size, Image.Resampling.BILINEAR)
            page.paste(picture, (image.width + size[0] * place, 0))
        moved = f"flow of {prediction['mean']:.1f} px, at most {prediction['longest']:.1f}"
        if truth is None:
            return captioned(page, (moved, NEUTRAL))
        error = _enlarged(torch.from_numpy(flows[0])[None], flows[1].shape[1:])[0] - torch.from_numpy(flows[1])
        off = torch.linalg.vector_norm(error, dim=0).nanmean()
        return captioned(page, (f"{moved}; true: right, {truth['mean']:.1f} px; off by {off:.2f} px", NEUTRAL))

    def write(self, image: Image.Image, prediction: Prediction, path: Path) -> Path | None:
        """A ``.flo`` file of the images' size."""
        size = (image.height, image.width // self.info.images)
        flow = _enlarged(torch.from_numpy(_array(prediction))[None], size)[0]
        return write_flo(path.with_name(f"{path.name}.flo"), flow.numpy())


class EPE(Metric):
    """Mean length of the difference of two vectors, in pixels, over all pixels with known flow."""

    higher_is_better = False
    full_state_update = False
    total: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Vectors, labels: Mapping[str, Tensor]) -> None:
        """Count a batch."""
        known, flow = labels["valid"], labels["flow"]
        difference = _enlarged(output.float(), flow.shape[2:]) - flow
        self.total += self.counted(torch.linalg.vector_norm(difference, dim=1)[known], flow, known).sum()
        self.pixels += known.sum()

    def counted(self, errors: Float[Tensor, " pixels"], flow: Vectors, known: Known) -> Float[Tensor, " pixels"]:
        """What is averaged of each pixel."""
        return errors

    def compute(self) -> Tensor:
        return (self.total / self.pixels).float()


class FlAll(EPE):
    """The part of the pixels that are off by more than 3 px and by more than 5 % of the true length: Fl-all."""

    def counted(self, errors: Float[Tensor, " pixels"], flow: Vectors, known: Known) -> Float[Tensor, " pixels"]:
        length = torch.linalg.vector_norm(flow, dim=1)[known]
        return ((errors > OUTLIER) & (errors > SHARE * length)).float()


def reduced(
    flow: Vectors, known: Known, size: tuple[int, int]
) -> tuple[Float[Tensor, "batch 2 rows columns"], Bool[Tensor, "batch rows columns"]]:
    """Flow at fewer places, still in pixels of the images: means over known pixels, known where half of them are."""
    if tuple(flow.shape[2:]) == size:
        return flow, known
    share = F.adaptive_avg_pool2d(known[:, None].to(flow.dtype), size)
    total = F.adaptive_avg_pool2d(flow * known[:, None], size)
    return total / share.clamp(min=1e-6), share[:, 0] >= 0.5


def _enlarged(flow: Vectors, size: Sequence[int]) -> Float[Tensor, "batch 2 rows columns"]:
    if tuple(flow.shape[2:]) == tuple(size):
        return flow
    return F.interpolate(flow, size=tuple(size), mode="bilinear", align_corners=False)


def _described(flow: Float[Tensor, "2 height width"]) -> Prediction:
    length = torch.linalg.vector_norm(flow, dim=0)
    known = length.isfinite()
    mean = flow[:, known].mean(1) if known.any() else torch.zeros(2)
    numbers = flow.round(decimals=2).nan_to_num(torch.inf).tolist()
    return {
        "mean": float(length[known].mean()) if known.any() else 0.0,
        "longest": float(length[known].max()) if known.any() else 0.0,
        "right": float(mean[0]),
        "down": float(mean[1]),
        "flow": [[[None if abs(x) == float("inf") else x for x in row] for row in rows] for rows in numbers],
    }


def _array(prediction: Prediction) -> Float[np.ndarray, "2 height width"]:
    """The flow in a prediction, NaN where it is not known."""
    return np.array(prediction["flow"], dtype=np.float32)
