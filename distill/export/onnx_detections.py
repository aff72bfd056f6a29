"""Decoding and non-maximum suppression inside an ONNX file, behind a detector's raw output.

https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distill.errors import ExportError
from distill.export.onnx_file import INPUT
from distill.tasks._detections import Detections, found_again
from distill.tasks.detection import Detection

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OUTPUT = "detections"
"""Rows of image, class, score, left, top, right, bottom: positions in the batch and in the class names, pixels."""
BOXES, SCORES = "boxes", "scores"
SAME, ENOUGH = 0.9, 0.95
"""Least overlap of two detections that are the same, and the part of all that must be. Between boxes of almost equal
scores, rounding decides which one stays."""


class WithDecoding(nn.Module):
    """The raw output of a network, and boxes and scores of all anchors."""

    def __init__(self, network: nn.Module, task: Detection) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.network(images)
        boxes, scores = self.task.decoded(output)
        return output, boxes, scores.transpose(1, 2)


def with_suppression(content: bytes, task: Detection) -> bytes:
    """A file of `WithDecoding` whose outputs are the raw one and `OUTPUT`, sorted by image, class and score.

    ONNX limits the detections of each class, not of each image.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(content)
    graph = model.graph
    names = f"{OUTPUT}/"
    constants: list[tuple[str, int, list[float]]] = [
        ("most", TensorProto.INT64, [task.detections]),
        ("overlap", TensorProto.FLOAT, [task.nms]),
        ("threshold", TensorProto.FLOAT, [task.threshold]),
        ("columns", TensorProto.INT64, [0, 2]),
        ("axis", TensorProto.INT64, [1]),
    ]
    graph.initializer.extend(helper.make_tensor(f"{names}{n}", kind, [len(v)], v) for n, kind, v in constants)
    limits = [f"{names}{name}" for name in ("most", "overlap", "threshold")]
    graph.node.extend(
        [
            helper.make_node("NonMaxSuppression", [BOXES, SCORES, *limits], [f"{names}places"]),
            helper.make_node("GatherND", [SCORES, f"{names}places"], [f"{names}score"]),
            helper.make_node("Unsqueeze", [f"{names}score", f"{names}axis"], [f"{names}scores"]),
            helper.make_node("Gather", [f"{names}places", f"{names}columns"], [f"{names}anchors"], axis=1),
            helper.make_node("GatherND", [BOXES, f"{names}anchors"], [f"{names}boxes"]),
            helper.make_node("Cast", [f"{names}places"], [f"{names}numbers"], to=TensorProto.FLOAT),
            helper.make_node("Split", [f"{names}numbers"], [f"{names}{n}" for n in "ica"], axis=1, num_outputs=3),
            helper.make_node("Concat", [f"{names}{n}" for n in ("i", "c", "scores", "boxes")], [OUTPUT], axis=1),
        ]
    )
    del graph.output[1:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [OUTPUT, 7]))
    return model.SerializeToString()


def check_detections(session: "InferenceSession", images: Tensor, task: Detection) -> None:
    """Compare the file's detections with what the task finds in the file's raw output.

    Raises:
        ExportError: they differ.
    """
    raw, rows = (torch.from_numpy(values) for values in session.run(None, {INPUT: images.numpy()}))
    again, found, wanted = [], 0, 0
    for number, expected in enumerate(task.detected(raw, most=len(task.anchors) * task.info.num_classes)):
        own = rows[rows[:, 0] == number]
        given = Detections(own[:, 3:], own[:, 2], own[:, 1].long())
        again.append(found_again(given, expected, with_area(given), with_area(expected), SAME))
        found += len(own)
        wanted += int(expected.labels.bincount().clamp(max=task.detections).sum())
    part = float(torch.cat(again).float().mean()) if found else 1.0
    if part < ENOUGH or not ENOUGH * wanted <= found <= wanted / ENOUGH:
        raise ExportError(
            f"the file finds {found} objects, PyTorch {wanted}, and {100 * part:.0f} % of the file's are the same: "
            "leave export.onnx.nms out, and decode the raw output"
        )


def with_area(found: Detections) -> Tensor:
    """Which boxes are not empty: of those that lie outside the image nothing is left within it."""
    return (found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
