"""Every layer against OpenCV's reader of Caffe's files, which shares no code with ours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.models.caffe import read
from tests.models.caffe.writer import Written, random, write

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")

SHAPE = (2, 6, 9, 11)
CONV = "convolution_param"
PRIORS = (
    "prior_box_param { min_size: 3 max_size: 5 aspect_ratio: 2 variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4"
)


def conv(name: str, channels: int, **options: object) -> Written:
    return Written(
        name,
        "Convolution",
        f"{CONV} {{ num_output: {channels} kernel_size: 1 }}",
        [random(channels, 6, 1, 1), random(channels)],
        **options,
    )


LAYERS: dict[str, list[Written]] = {
    "convolution": [
        Written(
            "c",
            "Convolution",
            f"{CONV} {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 }}",
            [random(4, 6, 3, 3), random(4)],
        ),
    ],
    "convolution, groups, dilation, no bias": [
        Written(
            "c",
            "Convolution",
            f"{CONV} {{ num_output: 4 kernel_size: 3 dilation: 2 group: 2 bias_term: false }}",
            [random(4, 3, 3, 3)],
        ),
    ],
    "convolution, not square": [
        Written(
            "c",
            "Convolution",
            f"{CONV} {{ num_output: 4 kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 stride_h: 2 stride_w: 1 }}",
            [random(4, 6, 1, 3), random(4)],
        ),
    ],
    "depthwise": [
        Written(
            "c",
            "Convolution",
            f"{CONV} {{ num_output: 6 kernel_size: 3 group: 6 }}",
            [random(6, 1, 3, 3), random(6)],
        ),
    ],
    "deconvolution": [
        Written(
            "c",
            "Deconvolution",
            f"{CONV} {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 }}",
            [random(6, 4, 3, 3), random(4)],
        ),
    ],
    "deconvolution, groups": [
        Written(
            "c",
            "Deconvolution",
            f"{CONV} {{ num_output: 6 kernel_size: 4 stride: 2 group: 3 }}",
            [random(6, 2, 4, 4), random(6)],
        ),
    ],
    "batch norm": [Written("b", "BatchNorm", "", [random(6), random(6) ** 2, np.array([2.0])])],
    "batch norm and scale": [
        Written("b", "BatchNorm", "batch_norm_param { eps: 0.001 }", [random(6), random(6) ** 2, np.array([2.0])]),
        Written("s", "Scale", "scale_param { bias_term: true }", [random(6), random(6, seed=1)]),
    ],
    "batch norm and scale without bias": [
        Written("b", "BatchNorm", "", [random(6), random(6) ** 2, np.array([2.0])]),
        Written("s", "Scale", "", [random(6)]),
    ],
    "a batch norm that is read twice": [
        Written("b", "BatchNorm", "", [random(6), random(6) ** 2, np.array([2.0])]),
        Written("s", "Scale", "", [random(6)]),
        Written("e", "Eltwise", bottoms=["b", "s"]),
    ],
    "scale": [Written("s", "Scale", "scale_param { bias_term: true }", [random(6), random(6, seed=1)])],
    "scale by a map": [
        conv("a", 6, bottoms=["data"]),
        Written("s", "Scale", "scale_param { axis: 0 }", bottoms=["data", "a"]),
    ],
    "inner product": [
        Written("i", "InnerProduct", "inner_product_param { num_output: 5 }", [random(5, 594), random(5)]),
    ],
    "inner products and batch norm": [
        Written("i", "InnerProduct", "inner_product_param { num_output: 5 bias_term: false }", [random(5, 594)]),
        Written("b", "BatchNorm", "", [random(5), random(5) ** 2, np.array([2.0])]),
        Written("j", "InnerProduct", "inner_product_param { num_output: 3 }", [random(3, 5), random(3)]),
    ],
    "max pooling": [Written("p", "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")],
    "max pooling, size rounded up": [Written("p", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")],
    "max pooling, padded": [Written("p", "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }")],
    "max pooling, size rounded down": [
        Written("p", "Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }"),
    ],
    "average pooling, size rounded up": [
        Written("p", "Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"),
    ],
    "average pooling, padded": [Written("p", "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")],
    "average pooling, not square": [
        Written("p", "Pooling", "pooling_param { pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2 }"),
    ],
    "global average pooling": [Written("p", "Pooling", "pooling_param { pool: AVE global_pooling: true }")],
    "global max pooling": [Written("p", "Pooling", "pooling_param { pool: MAX global_pooling: true }")],
    "relu": [Written("r", "ReLU")],
    "relu in place": [conv("c", 4), Written("r", "ReLU", tops=["c"]), Written("t", "TanH", bottoms=["c"])],
    "leaky relu": [Written("r", "ReLU", "relu_param { negative_slope: 0.05 }")],
    "prelu": [Written("r", "PReLU", "", [random(6)])],
    "elu": [Written("r", "ELU", "elu_param { alpha: 0.7 }")],
    "sigmoid": [Written("r", "Sigmoid")],
    "tanh": [Written("r", "TanH")],
    "absolute": [Written("r", "AbsVal")],
    "bnll": [Written("r", "BNLL")],
    "power": [Written("r", "Power", "power_param { power: 2 scale: 0.5 shift: 1 }")],
    "power 1": [Written("r", "Power", "power_param { scale: -2 shift: 3 }")],
    "lrn across channels": [Written("l", "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }")],
    "lrn within channels": [
        Written("l", "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }"),
    ],
    "sum": [conv("c", 6), Written("e", "Eltwise", bottoms=["data", "c"])],
    "weighted sum": [
        conv("c", 6),
        Written("e", "Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }", bottoms=["data", "c"]),
    ],
    "product": [conv("c", 6), Written("e", "Eltwise", "eltwise_param { operation: PROD }", bottoms=["data", "c"])],
    "maximum": [
        conv("c", 6),
        conv("d", 6, bottoms=["data"]),
        Written("e", "Eltwise", "eltwise_param { operation: MAX }", bottoms=["data", "c", "d"]),
    ],
    "concat": [conv("c", 4), Written("e", "Concat", bottoms=["data", "c"])],
    "concat, another axis": [conv("c", 6), Written("e", "Concat", "concat_param { axis: -2 }", bottoms=["data", "c"])],
    "slice at points": [
        Written("s", "Slice", "slice_param { slice_point: 1 slice_point: 3 }", tops=["x", "y", "z"]),
        Written("e", "Concat", bottoms=["z", "x", "y"]),
    ],
    "slice in equal parts": [
        Written("s", "Slice", tops=["x", "y", "z"]),
        Written("e", "Concat", bottoms=["z", "x", "y"]),
    ],
    "split": [Written("s", "Split", tops=["x", "y"]), Written("e", "Eltwise", bottoms=["x", "y"])],
    "crop": [
        Written("p", "Pooling", "pooling_param { kernel_size: 3 stride: 2 }"),
        Written("c", "Crop", "crop_param { axis: 2 offset: 3 offset: 1 }", bottoms=["data", "p"]),
    ],
    "flatten": [Written("f", "Flatten")],
    "flatten some axes": [Written("f", "Flatten", "flatten_param { axis: 2 end_axis: 3 }")],
    "reshape": [Written("r", "Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }")],
    "reshape some axes": [Written("r", "Reshape", "reshape_param { shape { dim: 2 dim: 3 } axis: 1 num_axes: 1 }")],
    "permute": [Written("p", "Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }")],
    "softmax": [Written("s", "Softmax")],
    "softmax, another axis": [Written("s", "Softmax", "softmax_param { axis: -1 }")],
    "normalize": [Written("n", "Normalize", "norm_param { across_spatial: false channel_shared: false }", [random(6)])],
    "normalize, all positions": [Written("n", "Normalize", "", [random(1)])],
    "prior boxes": [
        Written("p", "Pooling", "pooling_param { kernel_size: 3 stride: 2 }"),
        Written("b", "PriorBox", f"{PRIORS} flip: true clip: false }}", bottoms=["p", "data"]),
    ],
    "prior boxes, clipped, of given steps": [
        Written("b", "PriorBox", f"{PRIORS} flip: false clip: true step: 2 offset: 0.25 }}", bottoms=["data", "data"])
    ],
}


def outputs(folder: Path, layers: list[Written], shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Of the last layer, by OpenCV and here."""
    first = Written(
        "first",
        "Convolution",
        f"{CONV} {{ num_output: 6 kernel_size: 1 }}",
        [random(6, 6, 1, 1), random(6)],
        tops=["data"],
    )
    files = write(folder, [first, *layers], shape)
    images = random(*shape, seed=5)
    reference = cv2.dnn.readNetFromCaffe(str(files.prototxt), str(files.caffemodel))
    reference.setInput(images)
    expected = reference.forward(layers[-1].name)
    with torch.no_grad():
        return expected, read(*files)(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("layers", LAYERS.values(), ids=list(LAYERS))
def test_a_layer_computes_what_opencv_does(tmp_path: Path, layers: list[Written]) -> None:
    expected, ours = outputs(tmp_path, layers)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
