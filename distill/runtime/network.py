"""A network that NumPy runs: its graph with the tensors of an artifact."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distill.errors import ArtifactError
from distill.runtime.decoding import Weight, plain
from distill.runtime.graph import INPUT, Graph, Node, names, resolved
from distill.runtime.lookups import Shared
from distill.runtime.operators import OPERATORS
from distill.runtime.operators.normalization import scale_and_shift

LAYERS = ("conv2d", "linear")
"""Those that can compute with shared values."""


class Network:
    """Called with inputs (batch, channels, height, width), float32, computes outputs as PyTorch does, to 1e-4.

    What depends on no input is computed once, when it is made, and batch normalisation is folded into the layer before
    it (Jacob et al. arXiv:1712.05877, section 3.2).

    Args:
        graph: what is computed.
        tensors: the value of a tensor by its name.
        about: what the file says about its data and its task.
        lookups: whether layers whose weights share values compute with these, as `distill.runtime.lookups` says.

    Raises:
        ArtifactError: the graph holds an operator that there is not, or does not fit its tensors.
    """

    def __init__(
        self, graph: Graph, tensors: Callable[[str], Weight], about: Mapping[str, Any], *, lookups: bool = False
    ) -> None:
        self.about = about
        if unknown := {node.operator for node in graph.nodes} - OPERATORS.keys():
            raise ArtifactError(f"the runtime has no operator {', '.join(sorted(unknown))}: run this network elsewhere")
        self.nodes = {f"%{number}": node for number, node in enumerate(graph.nodes, 1)}
        self.output, self.input = graph.output, graph.input
        self.values: dict[str, Any] = {}
        kept = _coded(graph) if lookups else set()
        for node in graph.nodes:
            for name in names(node.arguments):
                if not name.startswith("%") and name not in self.values:
                    raw = graph.constants.get(name)
                    value = tensors(name) if raw is None else raw.array()
                    self.values[name] = value if name in kept and _is_dense(node, value) else plain(value)
        self._compute_constants()
        self._fold_batch_norms()
        self.last = self._last_uses()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """The output for a batch of any size.

        Raises:
            ArtifactError: inputs are of a size that the graph is not for, or an operator does not fit what it reads.
        """
        if self.input is not None and np.shape(inputs)[1:] != self.input:
            size, found = ("x".join(map(str, shape)) for shape in (self.input, np.shape(inputs)[1:]))
            raise ArtifactError(f"the graph reads inputs of {size} (channels, height, width), not of {found}: resize")
        values = {**self.values, INPUT: np.ascontiguousarray(inputs, np.float32)}
        for name, node in self.nodes.items():
            values[name] = self._computed(name, node, values)
            for used in self.last.get(name, ()):
                del values[used]
        return np.ascontiguousarray(values[self.output])

    def _computed(self, name: str, node: Node, values: Mapping[str, Any]) -> Any:
        arguments = {key: resolved(value, values.__getitem__) for key, value in node.arguments.items()}
        try:
            with np.errstate(all="ignore"):
                return OPERATORS[node.operator](**arguments)
        except Exception as error:  # a graph is plain data that anybody may have written
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ArtifactError(f"node {name[1:]} ({node.operator}) of the graph cannot be computed: {why}") from error

    def _compute_constants(self) -> None:
        """Compute the nodes that depend on tensors of the file alone."""
        for name, node in list(self.nodes.items()):
            if all(used in self.values for used in names(node.arguments)) and name != self.output:
                self.values[name] = self._computed(name, node, self.values)
                del self.nodes[name]

    def _fold_batch_norms(self) -> None:
        """Batch normalisation of a layer's output becomes part of its weight and bias."""
        readers: dict[str, int] = {self.output: 1}
        for node in self.nodes.values():
            for name in names(node.arguments):
                readers[name] = readers.get(name, 0) + 1
        for name, node in list(self.nodes.items()):
            before = node.arguments.get("input")
            layer = self.nodes.get(before) if isinstance(before, str) else None
            if node.operator != "batch_norm" or layer is None or readers[str(before)] > 1:
                continue
            if layer.operator == "conv2d" and isinstance(self._of(layer, "weight"), np.ndarray):
                self.nodes[name] = self._folded(layer, node, name)
                del self.nodes[str(before)]

    def _folded(self, layer: Node, norm: Node, name: str) -> Node:
        keys = ("weight", "bias", "running_mean", "running_var")
        affine = {key.removeprefix("running_"): self._of(norm, key) for key in keys}
        scale, shift = scale_and_shift(**affine, eps=norm.arguments.get("eps", 1e-5))
        weight, bias = self._of(layer, "weight"), self._of(layer, "bias")
        self.values[f"{name}.weight"] = weight * scale[:, None, None, None]
        self.values[f"{name}.bias"] = shift if bias is None else shift + bias * scale
        return Node("conv2d", {**layer.arguments, "weight": f"{name}.weight", "bias": f"{name}.bias"})

    def _of(self, node: Node, argument: str) -> Any:
        """The value of an argument that is known without an input; None where there is none."""
        value = node.arguments.get(argument)
        return self.values.get(value) if isinstance(value, str) else None

    def _last_uses(self) -> dict[str, list[str]]:
        """After each node, the values that no later one reads."""
        last: dict[str, str] = {}
        for name, node in self.nodes.items():
            last.update({used: name for used in names(node.arguments) if used not in self.values})
        uses: dict[str, list[str]] = {}
        for used, name in last.items():
            if used != self.output:
                uses.setdefault(name, []).append(used)
        read = {used for node in self.nodes.values() for used in names(node.arguments)} | {self.output}
        self.values = {name: value for name, value in self.values.items() if name in read}
        return uses


def _coded(graph: Graph) -> set[str]:
    """Weights that nothing reads but layers."""
    weights = {n.arguments["weight"] for n in graph.nodes if n.operator in LAYERS and "weight" in n.arguments}
    others = {
        name
        for node in graph.nodes
        for key, value in node.arguments.items()
        for name in names(value)
        if node.operator not in LAYERS or key != "weight"
    }
    return {name for name in weights if isinstance(name, str)} - others


def _is_dense(node: Node, value: Weight) -> bool:
    """Whether the layer has no groups."""
    return isinstance(value, Shared) and node.arguments.get("groups", 1) == 1
