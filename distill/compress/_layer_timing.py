"""How long plain layers take in the runtime that will run them: asked of ONNX Runtime, once for every geometry."""

import itertools
import math
import os
import time
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import nn

from distill.export import onnx_file
from distill.processes import first_decides

COPIES = 8
"""Of the layer in one file: starting a run then costs little beside it, and weights come from memory as they will."""
BATCHES = (1, 32)
THREADS = sorted({1, min(2, os.cpu_count() or 1)})
"""Two layers in place of one wait for each other's threads twice: what is faster on one thread need not be on two."""
BUDGET = 0.02
"""Seconds for one geometry at one batch size on so many threads."""
Geometry = tuple[tuple[Any, ...], ...]


@runtime_checkable
class HasGeometry(Protocol):
    """A module that runs as other operators than its children; an empty one is not timed."""

    def geometry(self, shape: tuple[int, ...]) -> Geometry: ...


def seconds(module: nn.Module, shape: tuple[int, ...]) -> tuple[float, ...] | None:
    """Seconds for one image, on one thread and on two, at batches of 1 and of 32; None for layers that are not timed.

    Args:
        module: a convolution, a linear layer, or several in a row; only its geometry counts. One that runs as
            something else says so, see `HasGeometry`.
        shape: of its input, without the batch; where a linear layer reads tokens or maps with channels last, features
            are the last axis.
    """
    if isinstance(module, HasGeometry):
        geometry = module.geometry(shape)
    else:
        geometry = tuple(_geometry(layer) for layer in module.modules() if not list(layer.children()))
    if not all(geometry):
        return None
    rows = math.prod(shape[:-1]) if geometry[0][0] == "Gemm" else 1
    return _timed(geometry, shape[-1:] if geometry[0][0] == "Gemm" else shape, rows)


def _geometry(layer: nn.Module) -> tuple[Any, ...]:
    if isinstance(layer, nn.Linear):
        return ("Gemm", tuple(layer.weight.shape))
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        settings = (("strides", layer.stride), ("dilations", layer.dilation), ("pads", layer.padding * 2))
        return ("Conv", tuple(layer.weight.shape), *settings, ("group", layer.groups))
    return ()


@cache
def _timed(geometry: Geometry, shape: tuple[int, ...], rows: int) -> tuple[float, ...]:
    """Of one image, which is so many rows of a matrix product.

    The first process's times in every process: networks that are chosen by them have to be the same.
    """
    file = _file(geometry, shape)
    runtimes = [onnx_file.session(file, threads=threads) for threads in THREADS]
    images = {batch: np.random.default_rng(0).random((batch * rows, *shape), np.float32) for batch in BATCHES}
    return first_decides(
        tuple(
            _fastest(runtime, images[batch]) / COPIES / batch for runtime, batch in itertools.product(runtimes, BATCHES)
        )
    )


def _fastest(runtime: Any, images: np.ndarray) -> float:
    """Of many runs: what disturbs a run only makes it slower."""
    times: list[float] = []
    end = time.perf_counter() + BUDGET
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(None, {onnx_file.INPUT: images})
        times.append(time.perf_counter() - start)
    return min(times)


def _file(geometry: Geometry, shape: tuple[int, ...]) -> bytes:
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for copy in range(COPIES):
        name = onnx_file.INPUT
        for position, (operator, size, *settings) in enumerate(geometry):
            weight, output = f"weight{copy}.{position}", f"output{copy}.{position}"
            if operator == "Reshape":
                weights.append(helper.make_tensor(weight, TensorProto.INT64, (len(size),), size))
            else:
                values: Any = random.standard_normal(size, np.float32)
                weights.append(helper.make_tensor(weight, TensorProto.FLOAT, size, values.tobytes(), raw=True))
            attributes: dict[str, Any] = {"transB": 1} if operator == "Gemm" else dict(settings)
            nodes.append(helper.make_node(operator, [name, weight], [output], **attributes))
            name = output
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info(onnx_file.INPUT, TensorProto.FLOAT, ["batch", *shape])
    graph = helper.make_graph(nodes, "probe", [given], outputs, weights)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
