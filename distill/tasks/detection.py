"""Boxes around objects, found from fixed anchors.

Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325, section 2.2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchvision.ops import clip_boxes_to_image

from distill.batch import Batch
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.registry.ranges import BelowOne, Count, Index, Positive, Probability
from distill.tasks import Prediction, Task, task
from distill.tasks._anchors import AnchorSettings, Centres, decode, distribution_focal, encode, expected
from distill.tasks._average_precision import NAMES, AveragePrecision, ByClass
from distill.tasks._boxes_drawn import drawn
from distill.tasks._detections import Detections, found_again, suppressed
from distill.tasks._matching import BACKGROUND, matched

BOX = 4
"""Values of a box: its centre (x, y), width and height, encoded as offsets from an anchor."""


@task("detection")
class Detection(Task):
    """SSD's loss and decoding, measured by COCO's average precision.

    A network outputs one tensor (batch, anchors, 1 + classes + 4): of each anchor the logits of the background and of
    the classes, then its box, encoded. Anchors are the task's, not the network's: a teacher and a student whose outputs
    are compared have the same ones. Maps have ceil(size / stride) cells a side.

    Args:
        info: of the data set, which has classes; labels are those of `coco`.
        strides: pixels from cell to cell in each of the network's maps, early to late.
        scales: for each map, or once for all, the sides of square anchors as parts of the image's shorter side. Without
            any, two a map from 0.2 to 0.9, equation 4.
        ratios: for each map, or once for all, width / height of more anchors of the map's first scale. Without any, 2
            and 1/2.
        ratios_of_all: such anchors of all scales of a map, as RetinaNet has them.
        centres: ``cells``: the maps' cells divide the image evenly, as in the paper; ``strides``: a cell is as wide as
            the stride, as in torchvision's SSD300; ``corners``: as ``strides``, from the cells' upper left corners, as
            in torchvision's RetinaNet and FCOS.
        bins: of a distribution over each of a box's four values, learned by the distribution focal loss of Generalized
            Focal Loss, arXiv:2006.04388; 0: the network outputs the values themselves.
        match: least intersection over union of an anchor and the box that it is to find.
        hard_negatives: the anchors without object that count, those of the largest loss, as a multiple of those with.
        threshold: least score of a detection that the metrics see.
        nms: of two overlapping detections of one class the less probable goes, from this intersection over union on.
        detections: most detections in an image.
        shown: least score of a detection that is predicted for people and drawn.

    Raises:
        RecipeError: the data has no classes, or anchors for another number of maps.
    """

    monitor = "map"
    units = {"map": "%", "ap50": "%", "ap75": "%", "ap_by_class": "%"}
    output_name = "anchors"
    agreement_name = "agreement of detections"
    label_kind = "boxes"
    class_scores = (":classes", ":bins")

    def __init__(
        self,
        info: DataInfo,
        *,
        strides: list[Count],
        scales: list[list[Positive]] = [],  # noqa: B006
        ratios: list[list[Positive]] = [],  # noqa: B006
        ratios_of_all: bool = False,
        centres: Centres = "cells",
        bins: Index = 0,
        match: Probability = 0.5,
        hard_negatives: Positive = 3.0,
        threshold: BelowOne = 0.01,
        nms: Probability = 0.45,
        detections: Count = 100,
        shown: Probability = 0.5,
    ) -> None:
        super().__init__(info)
        if not info.num_classes:
            raise RecipeError("detection needs a data set with class_names, but this one has none")
        self.settings = AnchorSettings(strides, scales, ratios, ratios_of_all, centres)
        self.anchors = self.settings.boxes(info.image_size)
        if bins == 1:
            raise RecipeError("task.bins is 1, but a distribution has at least 2; 0 is for boxes without")
        self.bins, self.box_values = bins, BOX * max(bins, 1)
        self.match, self.hard_negatives = match, hard_negatives
        self.threshold, self.nms, self.detections, self.shown = threshold, nms, detections, shown

    def network_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.info.num_classes, "anchors": tuple(self.settings.counts()), "bins": self.bins}

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        found, values = tuple(output.shape[1:]), 1 + self.info.num_classes + self.box_values
        if len(found) != 2 or found[1] != values:
            raise RecipeError(
                f"outputs {found} for each image, but a detector of {self.info.num_classes} classes outputs "
                f"(anchors, {values}): background, classes and {self.box_values} values of the box"
            )
        if found[0] != len(self.anchors):
            grid = zip(self.settings.grid(self.info.image_size), self.settings.counts(), strict=True)
            maps = ", ".join(f"{height}x{width} cells of {count}" for (height, width), count in grid)
            raise RecipeError(
                f"has {found[0]:,} anchors, but the task {len(self.anchors):,} ({maps}): set task.strides, task.scales "
                "and task.ratios to those of the network's maps"
            )

    def loss(self, output: Float[Tensor, "batch anchors values"], batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of classes with hard negatives, and smooth L1 of encoded boxes, both per matched anchor.

        An image without objects counts as if it had one: its ``hard_negatives`` worst anchors are to be background.
        """
        logits, offsets = self._split(output.float())
        anchors = self.anchors.to(output.device)
        found = torch.stack([matched(x["boxes"], x["iscrowd"], anchors, self.match) for x in batch.labels])
        positive = found >= 0
        classes, boxes = torch.zeros_like(found), torch.zeros_like(offsets)
        for image, label in enumerate(batch.labels):
            chosen = positive[image]
            classes[image, chosen] = label["labels"][found[image, chosen]] + 1
            boxes[image, chosen] = encode(label["boxes"][found[image, chosen]].float(), anchors[chosen])
        counted = positive.sum().clamp(min=1)
        each = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
        kept = positive | self._hard(each.detach(), found)
        wanted = F.smooth_l1_loss(offsets[positive], boxes[positive], reduction="sum") / counted
        losses = {"classes": each[kept].sum() / counted, "boxes": wanted}
        if self.bins:
            losses["bins"] = distribution_focal(self._bins(output.float())[positive], boxes[positive]) / counted
        return losses

    def _hard(self, losses: Float[Tensor, "batch anchors"], found: Int64[Tensor, "batch anchors"]) -> Tensor:
        """Which anchors without object have the largest loss of their image."""
        rank = losses.masked_fill(found != BACKGROUND, -torch.inf).argsort(1, descending=True).argsort(1)
        wanted = self.hard_negatives * (found >= 0).sum(1, keepdim=True).clamp(min=1)
        return (rank < wanted) & (found == BACKGROUND)

    def decoded(self, output: Float[Tensor, "batch anchors values"]) -> tuple[Tensor, Tensor]:
        """Boxes (batch, anchors, 4) in pixels, within the image, and scores (batch, anchors, classes)."""
        logits, offsets = self._split(output.float())
        boxes = decode(offsets, self.anchors.to(output.device))
        return clip_boxes_to_image(boxes, self.info.image_size), logits.softmax(-1)[..., 1:]

    def _split(self, output: Float[Tensor, "batch anchors values"]) -> tuple[Tensor, Tensor]:
        """Logits of background and classes, and encoded boxes."""
        boxes = expected(self._bins(output)) if self.bins else output[..., -BOX:]
        return output[..., : -self.box_values], boxes

    def _bins(self, output: Float[Tensor, "batch anchors values"]) -> Float[Tensor, "batch anchors 4 bins"]:
        return output[..., -self.box_values :].unflatten(-1, (BOX, self.bins))

    def detected(self, output: Float[Tensor, "batch anchors values"], most: int | None = None) -> list[Detections]:
        """What is found in each image: scores above the threshold, then non-maximum suppression class by class.

        Args:
            output: of a network.
            most: detections in an image, in place of the setting.
        """
        images, most = zip(*self.decoded(output), strict=True), most or self.detections
        return [suppressed(boxes, scores, self.threshold, self.nms, most) for boxes, scores in images]

    def metrics(self) -> MetricCollection:
        """Mean average precision over classes and overlaps of 0.5 to 0.95, and at 0.5 and 0.75, as COCO has them."""
        return MetricCollection({"coco": AveragePrecision()})

    def higher_is_better(self) -> dict[str, bool | None]:
        return dict.fromkeys(NAMES.values(), True)

    def update(self, metrics: MetricCollection | Metric, output: Tensor, batch: Batch) -> None:
        metrics.update([found._asdict() for found in self.detected(output)], batch.labels)

    def figures(self) -> dict[str, Metric]:
        """Average precision of each class; 0 where the split has no object of it."""
        return {"ap_by_class": ByClass(self.info.num_classes)}

    def parts(self, output: Float[Tensor, "batch anchors values"]) -> dict[str, Tensor]:
        """``:classes`` (batch, 1 + classes, anchors), logits; ``:boxes`` (batch, 4, anchors), encoded; and if there are
        any ``:bins`` (batch, bins, 4, anchors), logits.
        """
        classes, boxes = self._split(output)
        parts = {"classes": classes.movedim(-1, 1), "boxes": boxes.movedim(-1, 1)}
        return parts | ({"bins": self._bins(output).permute(0, 3, 2, 1)} if self.bins else {})

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """The part of the objects that are shown for one output and found for the other: class and place.

        There, half of the score is enough, so that an object just at the bound does not count as a difference.
        """
        pairs = list(zip(self.detected(output), self.detected(reference), strict=True))
        again = [
            found_again(one, other, one.scores >= self.shown, other.scores >= self.shown / 2)
            for pair in pairs
            for one, other in (pair, pair[::-1])
        ]
        every = torch.cat(again)
        return float(every.float().mean()) if len(every) else 1.0

    def predict(self, output: Float[Tensor, "batch anchors values"]) -> list[Prediction]:
        """``{"objects": [{"class": "bag", "score": 0.9, "box": [0.1, 0.2, 0.5, 0.6]}, ...]}``, the most probable first.

        Boxes are left, top, right, bottom as parts of the picture's width and height.
        """
        found = [
            Detections(*(part[one.scores >= self.shown] for part in one)) for one in self.detected(output.detach())
        ]
        return [
            {
                "objects": [
                    {**which, "score": score} for which, score in zip(self._named(*one[::2]), one.scores.tolist())
                ]
            }
            for one in found
        ]

    def truth(self, labels: list[dict[str, Tensor]]) -> list[Prediction]:
        """As `predict`, without scores; crowds are left out."""
        wanted = [(label["iscrowd"] == 0, label) for label in labels]
        return [{"objects": self._named(label["boxes"][one], label["labels"][one])} for one, label in wanted]

    def _named(self, boxes: Float[Tensor, "objects 4"], labels: Int64[Tensor, " objects"]) -> list[dict[str, Any]]:
        height, width = self.info.image_size
        parts = (boxes.cpu() / torch.tensor([width, height, width, height])).tolist()
        names = [self.info.class_names[label] for label in labels.tolist()]
        return [{"class": name, "box": box} for name, box in zip(names, parts, strict=True)]

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """Predicted boxes over the image; where the truth is known, wrong ones in red and missed ones dashed."""
        return drawn(image, prediction["objects"], None if truth is None else truth["objects"], self.match)
