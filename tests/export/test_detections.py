"""A detector's boxes in its ONNX file, against the task's own decoding."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from distill.artifact import Artifact
from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import ExportError
from distill.export import exporter, onnx_detections, refuse_unfit
from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from students import ssd_miniature

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

INFO = DataInfo(3, (64, 64), (0.5,) * 3, (0.25,) * 3, ("cup", "hat", "bag"))


def detection(**settings: Any) -> Detection:
    return Detection(INFO, strides=[8, 16, 32], scales=[[0.2, 0.3], [0.4, 0.5], [0.6, 0.8]], **settings)


def sure_detector(bins: int) -> Artifact:
    """Untrained, but with scores that differ from anchor to anchor."""
    torch.manual_seed(0)
    network = ssd_miniature(num_classes=3, width=4, bins=bins).eval()
    for layer in network.head.layers:
        layer.weight.data *= 20
    return Artifact(network)


@pytest.mark.parametrize("bins", [0, 6])
def test_the_file_finds_what_the_task_finds(tmp_path: Path, bins: int) -> None:
    task, artifact = detection(bins=bins, threshold=0.4, detections=300), sure_detector(bins)
    images = torch.randn(5, 3, 64, 64)
    sample = Batch(images[:2], None, torch.arange(2))
    made = exporter.find("onnx")(artifact, tmp_path, [sample], task, nms=True)
    session = onnxruntime.InferenceSession(str(made.path))
    assert [output.name for output in session.get_outputs()] == ["anchors", "detections"]
    raw, rows = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        output = artifact.model(images)
    torch.testing.assert_close(torch.from_numpy(raw), output, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made.predict(images), torch.from_numpy(raw))
    for number, found in enumerate(task.detected(output, most=10_000)):
        own = rows[rows[:, 0] == number]
        assert 3 < len(own) == len(found.boxes)
        order = np.argsort(-own[:, 2], kind="stable")
        np.testing.assert_allclose(own[order, 2], found.scores, atol=1e-4)
        for label in range(3):
            mine, theirs = own[own[:, 1] == label], found.boxes[found.labels == label]
            distance = (torch.from_numpy(mine[:, None, 3:]) - theirs).abs().amax(2)
            assert (distance.amin(1) < 0.01).all()


def test_a_file_whose_detections_differ_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_detections.with_suppression
    other = detection(threshold=0.9)
    monkeypatch.setattr(onnx_detections, "with_suppression", lambda content, task: right(content, other))
    sample = Batch(torch.randn(2, 3, 64, 64), None, torch.arange(2))
    with pytest.raises(ExportError, match="finds .* PyTorch .*leave export.onnx.nms out"):
        exporter.find("onnx")(sure_detector(0), tmp_path, [sample], detection(threshold=0.4), nms=True)
    assert not list(tmp_path.iterdir())


def test_boxes_of_a_classifier_are_refused_before_training() -> None:
    with pytest.raises(ExportError, match="nms=true suppresses boxes, but the task is Classification"):
        refuse_unfit("onnx", Classification(INFO), {"nms": True})
    refuse_unfit("onnx", Classification(INFO), {"nms": False, "opset": None})
    refuse_unfit("onnx", detection(), {"nms": True})


def test_an_opset_that_cannot_be_written_is_refused_before_training() -> None:
    with pytest.raises(ExportError, match="opset 99 cannot be written"):
        refuse_unfit("onnx", Classification(INFO), {"opset": 99})
    refuse_unfit("onnx", Classification(INFO), {"opset": 21})
