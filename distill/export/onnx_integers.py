"""An ONNX graph with integer layers, in the form that ONNX Runtime has kernels for.

What only moves values (a split, a shuffle, channels joined on one grid) moves codes instead, a quarter of the bytes;
biases become int32 codes at the scale of a layer's sums (Jacob et al. arXiv:1712.05877, section 2.4, equation 11).
"""

from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

MOVERS = frozenset(["MaxPool", "Split", "Concat", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice"])
LARGEST = 2.0**30
"""A bias with larger codes stays as it is: int32 has to hold the sum that it is added to as well."""


class _Source(NamedTuple):
    """Codes that are turned into values."""

    codes: str
    scale: str
    zero: str
    grid: tuple[float, int]


def prefer_codes(graph: GraphProto) -> None:
    """Rewrite ``graph`` in place; it computes the same, but for the rounding of biases."""
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    sources: dict[str, _Source] = {}
    scales: dict[str, np.ndarray] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        before, after = [], []
        if node.op_type == "DequantizeLinear":
            if (scale := constants[node.input[1]]).ndim:
                scales[node.output[0]] = scale
            else:
                sources[node.output[0]] = _Source(
                    node.input[0], node.input[1], node.input[2], (float(scale), int(constants[node.input[2]]))
                )
        elif node.op_type in MOVERS:
            after = _move_codes(node, sources)
        elif node.op_type in ("Conv", "Gemm") and len(node.input) == 3:
            source, weight, bias = sources.get(node.input[0]), scales.get(node.input[1]), constants.get(node.input[2])
            if source and weight is not None and bias is not None:
                before = _round_bias(graph, node, bias, np.float32(source.grid[0]) * weight)
        nodes += [*before, node, *after]
    _keep(graph, nodes)


def _move_codes(node: NodeProto, sources: dict[str, _Source]) -> list[NodeProto]:
    """Let ``node`` read and output codes if it can; returns the nodes that turn them into values for others."""
    read = range(len(node.input) if node.op_type == "Concat" else 1)
    found = [source for position in read if (source := sources.get(node.input[position]))]
    if len(found) < len(read) or len({source.grid for source in found}) > 1:
        return []
    for position, source in enumerate(found):
        node.input[position] = source.codes
    _, scale, zero, grid = found[0]
    decoded = []
    for position, value in enumerate(node.output):
        node.output[position] = codes = f"{value}_codes"
        sources[value] = _Source(codes, scale, zero, grid)
        decoded.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [value]))
    return decoded


def _round_bias(graph: GraphProto, node: NodeProto, bias: np.ndarray, scale: np.ndarray) -> list[NodeProto]:
    codes = np.rint(bias / scale)
    if np.abs(codes).max() > LARGEST:
        return []
    names = [f"{node.output[0]}_bias_{part}" for part in ("codes", "scale")]
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for value, name in zip((codes.astype(np.int32), scale), names, strict=True)
    )
    node.input[2] = f"{node.output[0]}_bias"
    return [helper.make_node("DequantizeLinear", names, [node.input[2]], axis=0)]


def _keep(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Leave the graph with those of the nodes that its outputs need, and with their constants."""
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
