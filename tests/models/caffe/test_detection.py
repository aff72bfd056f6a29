"""Default boxes and detections of SSD, against OpenCV."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.models.caffe import CaffeNet, read
from tests.models.caffe.writer import Files, Written, random, write

CLASSES, BOXES = 3, 4
PRIORS = (
    "prior_box_param { min_size: 3 max_size: 5 aspect_ratio: 2 flip: true clip: false "
    "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }"
)
ONES = PRIORS.replace("0.1", "1").replace("0.2", "1")


def detector(folder: Path, settings: str, classes_of_a_box: int = 1, priors: str = PRIORS) -> Files:
    """Two heads on an image of 4 channels, and their detections."""
    for key, default in (("share_location", "true"), ("background_label_id", "0")):  # OpenCV wants both to be said
        settings += "" if key in settings else f" {key}: {default}"

    def head(name: str, channels: int) -> list[Written]:
        conv = f"convolution_param {{ num_output: {channels} kernel_size: 1 }}"
        weights = [random(channels, 4, 1, 1, seed=1), random(channels, seed=2)]
        return [
            Written(name, "Convolution", conv, weights, bottoms=["image"]),
            Written(f"{name}/order", "Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
            Written(f"{name}/flat", "Flatten"),
        ]

    layers = [
        *head("location", BOXES * 4 * classes_of_a_box),
        *head("class", BOXES * CLASSES),
        Written("class/boxes", "Reshape", f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {CLASSES} }} }}"),
        Written("class/softmax", "Softmax", "softmax_param { axis: 2 }"),
        Written("scores", "Flatten"),
        Written("priors", "PriorBox", priors, bottoms=["image", "image"]),
        Written(
            "detections",
            "DetectionOutput",
            f"detection_output_param {{ num_classes: {CLASSES} {settings} }}",
            bottoms=["location/flat", "scores", "priors"],
        ),
    ]
    return write(folder, layers, (1, 4, 8, 10))


SETTINGS = {
    "centers": "nms_param { nms_threshold: 0.45 top_k: 100 } code_type: CENTER_SIZE keep_top_k: 50",
    "corners": "nms_param { nms_threshold: 0.3 top_k: 40 } code_type: CORNER keep_top_k: 100 confidence_threshold: 0.5",
    "another background": "nms_param { nms_threshold: 0.45 top_k: 100 } code_type: CENTER_SIZE keep_top_k: 50 "
    "background_label_id: 2 confidence_threshold: 0.4",
}


def opencv(files: Files, images: np.ndarray) -> np.ndarray:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    net = cv2.dnn.readNetFromCaffe(str(files.prototxt), str(files.caffemodel))
    net.setInput(images)
    rows = net.forward("detections")[0, 0]
    rows = rows[rows[:, 2] > 0]  # the rest is room for more
    return rows[np.lexsort([-rows[:, 2], rows[:, 1]])]  # class by class, as Caffe has them


@torch.no_grad()
def ours(net: CaffeNet, images: np.ndarray) -> np.ndarray:
    return net(torch.from_numpy(images)).numpy()[0, 0]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_detections_are_opencvs(tmp_path: Path, settings: str) -> None:
    files, images = detector(tmp_path, settings), random(1, 4, 8, 10, seed=4)
    expected = opencv(files, images)
    assert len(expected) > 2
    np.testing.assert_allclose(ours(read(*files), images), expected, rtol=1e-5, atol=1e-4)


def test_boxes_of_each_class_are_opencvs(tmp_path: Path) -> None:
    settings = SETTINGS["centers"] + " share_location: false confidence_threshold: 0.3"
    files, images = detector(tmp_path, settings, CLASSES), random(1, 4, 8, 10, seed=4)
    np.testing.assert_allclose(ours(read(*files), images), opencv(files, images), rtol=1e-5, atol=1e-4)


def test_variances_that_are_encoded_in_the_target_count_no_more(tmp_path: Path) -> None:
    settings, images = SETTINGS["centers"] + " confidence_threshold: 0.3", random(1, 4, 8, 10, seed=4)
    expected = opencv(detector(tmp_path, settings, priors=ONES), images)
    files = detector(tmp_path, settings + " variance_encoded_in_target: true")
    np.testing.assert_allclose(ours(read(*files), images), expected, rtol=1e-5, atol=1e-4)


def test_images_of_a_batch_have_detections_of_their_own(tmp_path: Path) -> None:
    net = read(*detector(tmp_path, SETTINGS["corners"]))
    images = random(3, 4, 8, 10, seed=4)
    together = ours(net, images)
    alone = [ours(net, images[i : i + 1]) for i in range(3)]
    assert together[:, 0].tolist() == [float(i) for i, rows in enumerate(alone) for _ in rows]
    np.testing.assert_allclose(together[:, 1:], np.concatenate(alone)[:, 1:], atol=1e-5)


def test_nothing_found_is_no_row(tmp_path: Path) -> None:
    net = read(*detector(tmp_path, "code_type: CENTER_SIZE confidence_threshold: 1"))
    assert net(torch.zeros(1, 4, 8, 10)).shape == (1, 1, 0, 7)


def test_joined_it_gives_what_detections_are_made_from(tmp_path: Path) -> None:
    net, images = read(*detector(tmp_path, SETTINGS["centers"])), torch.from_numpy(random(2, 4, 8, 10))
    values: dict[str, torch.Tensor] = net.values(images)
    net.joined = True
    torch.testing.assert_close(net(images), torch.cat([values["location/flat"], values["scores"]], 1))
