"""No labels: a network is as good as it agrees with its teacher.

Hinton, Vinyals & Dean: Distilling the Knowledge in a Neural Network. arXiv:1503.02531, section 2: the transfer set may
be unlabelled. Agreement: Stanton et al., Does Knowledge Distillation Really Work?, arXiv:2106.05945, section 3.
"""

from hashlib import blake2b
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchvision.models import MobileNet_V2_Weights

from distill.batch import Batch, Predict
from distill.data.info import DataInfo
from distill.errors import RecipeError
from distill.tasks import Prediction, Task, task
from distill.tasks._captions import NEUTRAL, captioned
from distill.tasks._classes import Logits, most_probable, top1_agreement


@task("imitation")
class Imitation(Task):
    """Logits as those of the recipe's teacher, whose classes need not be the data's; labels are never read.

    The task's loss is the divergence of the teacher's class probabilities from the student's. It runs the teacher in
    every step: stages whose losses compare logits, from a cache perhaps, set ``task_weight: 0``.

    Args:
        info: of the data set.
        teacher: from inputs to logits; None where a finished network only predicts.
        class_names: of the teacher's classes: a list, or ``imagenet``. Without, predictions hold their numbers.

    Raises:
        RecipeError: the teacher cannot read the inputs, does not output logits, or has another number of classes than
            there are names.
    """

    monitor = "agreement"
    units = {"agreement": "%", "top5_agreement": "%", "kl": "nats"}
    output_name = "logits"
    agreement_name = "top-1 agreement"
    batch_sizes = (1, 32)
    side_by_side = True
    mixes = "images"
    label_kind = "none"
    baseline = False

    def __init__(
        self,
        info: DataInfo,
        teacher: Predict | None,
        *,
        class_names: Literal["imagenet"] | list[str] | None = None,
    ) -> None:
        super().__init__(info)
        self.class_names = imagenet_names() if class_names == "imagenet" else class_names
        self.teacher = teacher
        self.num_classes = self._classes_of(teacher) if teacher else 0
        if teacher and self.class_names and len(self.class_names) != self.num_classes:
            names = len(self.class_names)
            raise RecipeError(f"task.class_names has {names} names, but the teacher outputs {self.num_classes} classes")
        self._known: dict[bytes, Tensor] = {}

    def network_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def check(self, output: Any, batch: Batch) -> None:
        super().check(output, batch)
        if output.shape[1:] != (self.num_classes,):
            found = "x".join(map(str, output.shape[1:]))
            raise RecipeError(f"outputs {found} values, but its teacher outputs {self.num_classes} classes")

    def loss(self, output: Logits, batch: Batch) -> Float[Tensor, ""]:
        return _divergences(output, self._teacher()(batch.inputs)).mean()

    def metrics(self) -> MetricCollection:
        """Fractions of images whose most probable class is the teacher's, or whose five most probable classes hold
        that; and the mean divergence of the teacher's class probabilities from the network's, lower is better."""
        return MetricCollection({name: MeanMetric() for name in self.units}, compute_groups=False)

    def higher_is_better(self) -> dict[str, bool | None]:
        return {name: name != "kl" for name in self.units}

    def update(self, metrics: MetricCollection | Metric, output: Logits, batch: Batch) -> None:
        assert isinstance(metrics, MetricCollection)
        wanted = self._wanted(batch.inputs).to(output.device)
        best = wanted.argmax(1, keepdim=True)
        likely = output.topk(min(5, output.shape[1])).indices
        values = {
            "agreement": (likely[:, :1] == best).any(1).float(),
            "top5_agreement": (likely == best).any(1).float(),
            "kl": _divergences(output, wanted),
        }
        for name, metric in metrics.items(keep_base=True):
            metric.update(values[name])

    def agreement(self, output: Logits, reference: Logits) -> float:
        """The part of the images for which the most probable class is the same."""
        return top1_agreement(output, reference)

    def predict(self, output: Logits) -> list[Prediction]:
        """``{"class": "cat", "probability": 0.9, "top": [...]}``: the teacher's most probable class, and the next ones.

        Without ``class_names`` classes are their numbers, from 0.
        """
        return most_probable(output, self.class_names.__getitem__ if self.class_names else int)

    def draw(self, image: Image.Image, prediction: Prediction, truth: Prediction | None = None) -> Image.Image:
        """The image above its predicted class."""
        return captioned(image, (f"{prediction['class']} ({100 * prediction['probability']:.0f} %)", NEUTRAL))

    def _teacher(self) -> Predict:
        if self.teacher is None:
            raise RecipeError(
                "imitation compares with the teacher, which no artifact holds: for metrics, run its recipe"
            )
        return self.teacher

    @torch.no_grad()
    def _classes_of(self, teacher: Predict) -> int:
        channels = self.info.channels * self.info.images
        inputs = torch.zeros(1, channels, *self.info.image_size)
        try:
            output: Any = teacher(inputs)
        except RuntimeError as error:
            size = "x".join(map(str, inputs.shape[1:]))
            reason = str(error).strip().partition("\n")[0]
            raise RecipeError(f"the teacher cannot read inputs of {size}: {reason}") from error
        if not isinstance(output, Tensor) or output.dim() != 2:
            found = f"of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise RecipeError(f"imitation needs a teacher that outputs logits (batch, classes), not {found}")
        return output.shape[1]

    def _wanted(self, inputs: Tensor) -> Logits:
        """The teacher's logits on a batch that is evaluated: computed once, for every epoch and hook asks again."""
        key = blake2b(inputs.cpu().numpy().tobytes(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._teacher()(inputs).cpu()
        return self._known[key]


def imagenet_names() -> list[str]:
    """Of ImageNet's 1,000 classes, in the order of torchvision's and most other classifiers."""
    return list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def _divergences(output: Logits, wanted: Logits) -> Float[Tensor, " batch"]:
    """KL(teacher || network) of each image, in fp32."""
    with torch.autocast(output.device.type, enabled=False):
        logs = [F.log_softmax(logits.float(), 1) for logits in (output, wanted.to(output.device))]
        # A masked class has a logarithm of minus infinity, which times its probability of 0 would be NaN.
        found, target = (log.clamp(min=torch.finfo(log.dtype).min) for log in logs)
        return F.kl_div(found, target, reduction="none", log_target=True).sum(1)
