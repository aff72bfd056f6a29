"""Segmentation: loss, metrics and pictures against plain NumPy, and the whole line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torch import Tensor

import distill
from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.pipeline.run import run
from distill.tasks._masks import colour_of, mask_from_runs, mask_runs
from distill.tasks.segmentation import Segmentation

INFO = DataInfo(3, (6, 8), (0.5,) * 3, (0.5,) * 3, ("background", "cat", "dog", "never"))
TASK = Segmentation(INFO)


def batch(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, *labels.shape[1:]), labels, torch.arange(len(labels)))


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 6, 8), generator=generator)
    labels[:, :, -2:] = 255
    return torch.randn(2, 4, 6, 8, generator=generator), labels


def test_the_loss_is_the_mean_over_pixels_that_have_a_class() -> None:
    output, labels = example()
    pixels = [
        -output[i, :, y, x].log_softmax(0)[labels[i, y, x]] for i, y, x in np.ndindex(2, 6, 8) if labels[i, y, x] != 255
    ]
    torch.testing.assert_close(TASK.loss(output, batch(labels)), torch.stack(pixels).mean())
    assert TASK.loss(output, batch(torch.full_like(labels, 255))) == 0


def test_metrics_by_hand() -> None:
    output, labels = example()
    metrics = TASK.metrics()
    for one in (0, 1):  # batch by batch: intersections and unions are added, not their quotients
        TASK.update(metrics, output[one : one + 1], batch(labels[one : one + 1]))
    known, found = labels != 255, output.argmax(1)
    ious = [
        float(((found == c) & (labels == c))[known].sum() / ((found == c) | (labels == c))[known].sum())
        for c in range(4)
    ]
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {"mean_iou": np.mean(ious), "pixel_accuracy": float((found == labels)[known].float().mean())}
    )


def test_classes_that_are_nowhere_are_left_out_of_the_mean() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    metrics = TASK.metrics()
    TASK.update(metrics, torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float(), batch(labels))
    assert metrics.compute()["mean_iou"] == 1


def test_smaller_outputs_are_enlarged_to_the_labels() -> None:
    labels = torch.zeros(1, 6, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    small = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]], [[-99.0, -99.0]], [[-99.0, -99.0]]]])
    metrics = TASK.metrics()
    TASK.update(metrics, small, batch(labels))
    assert metrics.compute()["pixel_accuracy"] == 1
    assert TASK.loss(small, batch(labels)) < 0.3


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 4), "needs .classes, height, width."),
        (torch.zeros(2, 3, 6, 8), "outputs 3 classes .* has 4"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(output: Tensor, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TASK.check(output, batch(torch.zeros(2, 6, 8).long()))


@pytest.mark.parametrize("labels", [torch.zeros(2).long(), [{}, {}], None])
def test_labels_that_are_no_masks_are_refused(labels: object) -> None:
    with pytest.raises(RecipeError, match="needs masks, but the labels of this data are"):
        TASK.check_labels(Batch(torch.zeros(2, 3, 6, 8), labels, torch.arange(2)))


def test_data_without_classes_is_refused() -> None:
    with pytest.raises(RecipeError, match="class_names"):
        Segmentation(DataInfo(3, (6, 8), (0,) * 3, (1,) * 3))


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255])))
def test_runs_are_the_mask(mask: np.ndarray) -> None:
    described = json.loads(json.dumps(mask_runs(mask)))
    np.testing.assert_array_equal(mask_from_runs(described), mask)
    assert sum(pixels for _, pixels in described["runs"]) == mask.size


def test_a_prediction_says_what_part_of_the_picture_each_class_has() -> None:
    labels = torch.tensor([[[1, 1, 1, 0], [1, 2, 255, 255]]])
    (truth,) = TASK.truth(labels)
    assert truth["areas"] == {"cat": 0.5, "background": 0.125, "dog": 0.125}
    logits = torch.nn.functional.one_hot(labels.clamp(max=3), 4).movedim(-1, 1).float()
    (prediction,) = TASK.predict(logits)
    assert mask_from_runs(prediction).tolist() == [[1, 1, 1, 0], [1, 2, 3, 3]]


def test_colours_are_those_of_voc() -> None:
    assert [colour_of(number) for number in (0, 1, 2, 15)] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128)]


def test_the_mask_is_drawn_where_it_is_and_the_background_is_left_alone() -> None:
    labels = torch.zeros(1, 6, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    (truth,) = TASK.truth(labels)
    image = Image.new("L", (160, 120), 100)
    alone, compared = TASK.draw(image, truth), TASK.draw(image, truth, truth)
    assert alone.getpixel((20, 60)) == (100, 100, 100)
    assert alone.getpixel((140, 60)) == ((128 + 100) // 2, 50, 50)
    assert (compared.width, compared.height) == (320, alone.height)
    assert compared.getpixel((300, 60)) == alone.getpixel((140, 60))


def test_the_whole_line(tmp_path: Path) -> None:
    result = run(distill.load_recipe("segmentation/smoke", [f"output={tmp_path}", "tracking.mode=disabled"]))
    report = json.loads((result.folder / "report.json").read_text())
    assert report["monitor"] == "mean_iou"
    assert {"train/kd", "train/cwd", "train/cirkd", "train/task"} <= set(report["curves"]["student/distill"][0])
    picture = tmp_path / "any.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(picture)
    files = (result.folder / "student.safetensors", result.folder / "export" / "student.onnx")
    artifact, exported = (distill.predict(file, [picture])[0] for file in files)
    assert artifact["size"] == [32, 32]
    assert (mask_from_runs(artifact) == mask_from_runs(exported)).mean() > 0.99
