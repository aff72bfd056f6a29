"""The detection task against torchvision's SSD, by hand, and by properties."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from distill.batch import Batch
from distill.data import DataInfo
from distill.errors import RecipeError
from distill.tasks._anchors import bin_values, distribution_focal, encode, expected
from distill.tasks._matching import matched
from distill.tasks.detection import Detection

INFO = DataInfo(3, (96, 96), (0.5,) * 3, (0.25,) * 3, ("cup", "hat", "bag"))
STRIDES = [16, 32]


def detection(info: DataInfo = INFO, **given: Any) -> Detection:
    return Detection(info, **{"strides": STRIDES, "scales": [[0.2, 0.3], [0.4, 0.6]]} | given)


def label(boxes: list[list[float]], classes: list[int], crowds: list[int] | None = None) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(classes, dtype=torch.int64),
        "iscrowd": torch.tensor(crowds or [0] * len(classes), dtype=torch.int64),
    }


LABELS = [label([[8, 8, 30, 34], [40, 20, 90, 80]], [2, 0]), label([[50, 50, 70, 66]], [1])]


def batch(labels: list[dict[str, Tensor]] = LABELS, size: int = 96) -> Batch:
    return Batch(torch.zeros(len(labels), 3, size, size), labels, torch.arange(len(labels)))


def perfect(task: Detection, labels: list[dict[str, Tensor]] = LABELS) -> Tensor:
    """An output that says what the labels say, for every anchor that is matched."""
    outputs = []
    for one in labels:
        found = matched(one["boxes"], one["iscrowd"], task.anchors, 0.5)
        values = torch.zeros(len(found), 1 + task.info.num_classes + 4)
        values[:, 0] = 12.0
        for anchor in (found >= 0).nonzero()[:, 0].tolist():
            values[anchor, 0], values[anchor, 1 + one["labels"][found[anchor]]] = 0.0, 12.0
            values[anchor, -4:] = encode(one["boxes"][found[anchor]], task.anchors[anchor])
        outputs.append(values)
    return torch.stack(outputs)


def torchvision_loss(task: Detection, output: Tensor, labels: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """SSD's loss, computed by torchvision on the same tensors."""
    anchors = box_convert(task.anchors, "cxcywh", "xyxy")
    targets = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in labels]
    ssd: Any = SimpleNamespace(box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    heads = {"bbox_regression": output[..., -4:], "cls_logits": output[..., :-4]}
    found = [SSDMatcher(0.5)(box_iou(one["boxes"], anchors)) for one in targets]
    return SSD.compute_loss(ssd, targets, heads, [anchors] * len(labels), found)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_torchvisions(seed: int) -> None:
    torch.manual_seed(seed)
    task = detection()
    output = torch.randn(2, len(task.anchors), 8, requires_grad=True)
    ours, theirs = task.loss(output, batch()), torchvision_loss(task, output, LABELS)
    torch.testing.assert_close(ours["classes"], theirs["classification"])
    torch.testing.assert_close(ours["boxes"], theirs["bbox_regression"])
    (ours["classes"] + ours["boxes"]).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_a_perfect_output_has_little_loss_and_full_precision() -> None:
    task = detection()
    output = perfect(task)
    assert sum(task.loss(output, batch()).values()) < 1e-3
    metrics = task.metrics()
    task.update(metrics, output, batch())
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(
        {"map": 1.0, "ap50": 1.0, "ap75": 1.0}
    )


def test_images_without_objects_are_background() -> None:
    task, empty = detection(), [label([], []), label([], [])]
    output = torch.zeros(2, len(task.anchors), 8, requires_grad=True)
    terms = task.loss(output, batch(empty))
    assert float(terms["boxes"].detach()) == 0
    assert float(terms["classes"].detach()) == pytest.approx(2 * 3 * math.log(4))  # three anchors of each image
    sum(terms.values()).backward()
    assert (output.grad[..., 0] <= 0).all()  # more background
    metrics = task.metrics()
    task.update(metrics, output.detach(), batch(empty))
    assert metrics.compute()["map"] == 0


def test_a_crowd_is_neither_wanted_nor_wrong() -> None:
    crowd = [label([[8, 8, 30, 34], [40, 20, 90, 80]], [2, 0], [0, 1])]
    task = detection()
    output = perfect(task, [LABELS[0]])
    metrics = task.metrics()
    task.update(metrics, output, batch(crowd))
    assert float(metrics.compute()["map"]) == pytest.approx(1)


def test_average_precision_by_hand() -> None:
    """Found at 0.9, wrong at 0.8, found at 0.7, and one missed: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.

    Interpolated precision is 1 up to recall 1/3 and 2/3 up to 2/3; of COCO's 101 recalls 34 and 33.
    """
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]
    metrics = detection().metrics()
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [60, 60, 70, 70], [20, 20, 30, 30]]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "labels": torch.tensor([1, 1, 1]),
    }
    metrics.update([found], [label(boxes, [1, 1, 1])])
    assert float(metrics.compute()["ap50"]) == pytest.approx((34 + 33 * 2 / 3) / 101, abs=1e-6)


def test_processes_that_saw_different_numbers_of_images_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    task = detection()
    generator = torch.Generator().manual_seed(0)
    boxes = [[10.0 + 9 * place, 8.0, 30.0 + 9 * place, 40.0] for place in range(3)]
    labels = [label([box], [place % 2]) for place, box in enumerate(boxes)]
    noisy = perfect(task, labels) + torch.randn(perfect(task, labels).shape, generator=generator)

    def measured(*images: int) -> Any:
        metric = task.metrics()
        for image in images:
            task.update(metric, noisy[image : image + 1], batch([labels[image]]))
        return metric

    first, second, alone = measured(0, 1), measured(2), measured(0, 1, 2)
    ours = next(iter(first.values()))
    states = {name: (getattr(ours, name), getattr(next(iter(second.values())), name)) for name in ours._reductions}
    gathered = iter(states.values())
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(
        dist, "all_gather_object", lambda parts, mine, group: parts.__setitem__(slice(2), next(gathered))
    )
    ours._sync_dist()
    assert first.compute() == alone.compute()


def test_precision_by_class_is_a_figure() -> None:
    task = detection()
    figure = task.figures()["ap_by_class"]
    task.update(figure, perfect(task, [LABELS[0]]), batch([LABELS[0]]))
    assert figure.compute().tolist() == pytest.approx([1, 0, 1])


@pytest.mark.parametrize("seed", range(3))
def test_detections_are_torchvisions(seed: int) -> None:
    torch.manual_seed(seed)
    task = detection(threshold=0.3, detections=20)
    output = torch.randn(1, len(task.anchors), 8) * 2
    ssd: Any = SimpleNamespace(
        box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)),
        score_thresh=0.3,
        topk_candidates=1000,
        nms_thresh=task.nms,
        detections_per_img=20,
    )
    heads = {"bbox_regression": output[..., -4:], "cls_logits": output[..., :-4]}
    anchors = box_convert(task.anchors, "cxcywh", "xyxy")
    theirs = SSD.postprocess_detections(ssd, heads, [anchors], [(96, 96)])[0]
    ours = task.detected(output)[0]
    assert len(ours.boxes) > 3
    torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.scores, theirs["scores"])
    assert torch.equal(ours.labels, theirs["labels"] - 1)


def test_a_network_of_other_anchors_or_classes_is_refused() -> None:
    task = detection()
    with pytest.raises(RecipeError, match=r"has 10 anchors, but the task 180 \(6x6 cells of 4, 3x3 cells of 4\): set"):
        task.check(torch.zeros(2, 10, 8), batch())
    with pytest.raises(RecipeError, match=r"outputs \(180, 7\).* of 3 classes outputs \(anchors, 8\)"):
        task.check(torch.zeros(2, 180, 7), batch())
    with pytest.raises(RecipeError, match=r"outputs \(3,\) for each image"):
        task.check(torch.zeros(2, 3), batch())
    task.check(torch.zeros(2, 180, 8), batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": []}, "task.strides is empty"),
        ({"scales": [[0.2]] * 3}, "task.scales has 3 entries for 2 maps"),
        ({"ratios": [[2]] * 3}, "task.ratios has 3 entries for 2 maps"),
        ({"scales": [[0.2], []]}, "a map without a scale"),
        ({"bins": 1}, "task.bins is 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        detection(**settings)


def test_data_without_classes_is_refused() -> None:
    with pytest.raises(RecipeError, match="class_names"):
        detection(DataInfo(3, (96, 96), (0.5,) * 3, (0.25,) * 3))


def test_predictions_and_truth_are_parts_of_the_picture() -> None:
    task = detection()
    (first, second), truth = task.predict(perfect(task)), task.truth(LABELS)
    assert [thing["class"] for thing in second["objects"]] == ["hat"]
    assert second["objects"][0]["box"] == pytest.approx([50 / 96, 50 / 96, 70 / 96, 66 / 96], abs=1e-4)
    assert second["objects"][0]["score"] > 0.99
    assert {thing["class"] for thing in first["objects"]} == {"bag", "cup"}
    assert truth[1]["objects"] == [{"class": "hat", "box": pytest.approx([50 / 96, 50 / 96, 70 / 96, 66 / 96])}]
    assert task.truth([label([[0, 0, 9, 9]], [0], [1])])[0]["objects"] == []


def test_outputs_agree_with_themselves_and_not_with_others() -> None:
    task = detection()
    output, background = perfect(task), perfect(task, [label([], [])] * 2)
    assert task.agreement(output, output) == 1
    assert task.agreement(background, background) == 1
    assert task.agreement(output, background) == task.agreement(background, output) == 0
    assert task.agreement(output + 0.01 * torch.randn_like(output), output) == 1
    half = torch.stack([output[0], background[1]])
    assert task.agreement(half, output) == pytest.approx(4 / 5)  # two objects found twice, one missed


@pytest.mark.parametrize("size", [(96, 96), (640, 480), (20, 90)])
def test_a_drawn_picture_shows_hits_misses_and_errors(size: tuple[int, int]) -> None:
    task, image = detection(), Image.new("RGB", size, "white")
    box = [0.1, 0.2, 0.5, 0.6]
    prediction, none = {"objects": [{"class": "cup", "score": 0.9, "box": box}]}, {"objects": []}
    pictures = {
        name: task.draw(image, prediction if found else none, truth)
        for name, found, truth in [
            ("unknown", True, None),
            ("right", True, {"objects": [{"class": "cup", "box": box}]}),
            ("wrong", True, {"objects": [{"class": "hat", "box": box}]}),
            ("missed", False, {"objects": [{"class": "cup", "box": box}]}),
            ("nothing", False, none),
        ]
    }
    assert len({picture.tobytes() for picture in pictures.values()}) == 5
    factor = pictures["nothing"].width // size[0]
    assert all(picture.size == (size[0] * factor, size[1] * factor) for picture in pictures.values())
    right = pictures["right"].load()
    assert right is not None
    assert right[round(0.3 * size[0] * factor), round(0.6 * size[1] * factor)] == (4, 120, 87)


def test_parts_have_classes_first_and_anchors_last() -> None:
    task = detection()
    output = torch.randn(2, 180, 8)
    parts = task.parts(output)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {"classes": (2, 4, 180), "boxes": (2, 4, 180)}
    assert torch.equal(parts["boxes"][1, :, 7], output[1, 7, -4:])


def test_boxes_from_bins() -> None:
    task = detection(bins=9)
    values = bin_values(9)
    assert (values[0], values[4], values[-1]) == (-4, 0, 4)
    logits = torch.full((2, 180, 4, 9), -50.0)
    logits[..., 6] = 50.0
    torch.testing.assert_close(expected(logits), torch.full((2, 180, 4), 2.0))
    output = torch.cat([torch.zeros(2, 180, 4), logits.flatten(2)], dim=2)
    task.check(output, batch())
    parts = task.parts(output)
    assert parts["bins"].shape == (2, 9, 4, 180)
    torch.testing.assert_close(parts["boxes"], torch.full((2, 4, 180), 2.0))
    assert {"classes", "boxes", "bins"} == set(task.loss(output, batch()))


def test_the_distribution_focal_loss_is_cross_entropy_with_two_bins() -> None:
    logits, offsets = torch.randn(5, 9), torch.tensor([-4.0, -3.5, 0.2, 3.9, 77.0])
    total = 0.0
    for row, offset in zip(logits.softmax(-1), offsets.clamp(-4, 4).tolist(), strict=True):
        below = min(int(offset + 4), 7)
        total -= (below + 1 - (offset + 4)) * float(row[below].log())
        total -= (offset + 4 - below) * float(row[below + 1].log())
    assert float(distribution_focal(logits, offsets)) == pytest.approx(total, rel=1e-5)
