"""A network as the graph that `distill.runtime` runs.

Its operators are those of ``torch.export``; it names the artifact's tensors, so that weights stay as they are stored.
"""

import operator
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node as Call

from distill.artifact.raw import to_raw
from distill.errors import ExportError
from distill.models.surgery import deployable
from distill.runtime.graph import Graph, Node
from distill.runtime.operators import OPERATORS

SAME = {"alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh_copy"}
"""Operators that give their input back, in evaluation mode."""
PLACES = {"cudnn_enabled", "device", "layout", "memory_format", "momentum", "non_blocking", "pin_memory", "training"}
"""Arguments that say where values are, or matter while training."""


def graph_of(model: nn.Module, example: Tensor, stored: Mapping[str, Tensor]) -> Graph:
    """The graph of a network in evaluation mode, for batches of any size of inputs as large as the example.

    Layers are taken as they are trained, so that their weights are those of the file; where `torch.export` cannot
    follow one, or it computes what the runtime cannot, as `deployable` makes them. Tensors that the file lacks become
    constants of the graph.

    Args:
        model: the network.
        example: (batch, channels, height, width); only its shape beyond the batch matters.
        stored: the tensors that the file holds.

    Raises:
        ExportError: the network has an operator that the runtime has not, or control flow that depends on values.
    """
    pair = example[:1].cpu().repeat(2, *[1] * (example.dim() - 1))  # a batch of one would be taken for a constant
    try:
        program = _exported(model, pair)
    except Exception:  # torch.export raises errors of many kinds
        program = None
    graph = _Writer(program, stored).graph() if program else None
    if graph is None or _unknown(graph):
        graph = _Writer(_exported_or_refused(deployable(model), pair), stored).graph()
    if unknown := _unknown(graph):
        raise ExportError(
            f"{type(model).__name__} computes {', '.join(unknown)}, for which the runtime has no operator: "
            "export it to ONNX instead"
        )
    return replace(graph, input=tuple(example.shape[1:]))


def _unknown(graph: Graph) -> list[str]:
    return sorted({node.operator for node in graph.nodes} - OPERATORS.keys())


def _exported(model: nn.Module, pair: Tensor) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (pair,), dynamic_shapes=({0: Dim("batch")},))
        return program.run_decompositions({})  # without operators that write into their arguments


def _exported_or_refused(model: nn.Module, pair: Tensor) -> ExportedProgram:
    try:
        return _exported(model, pair)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ExportError(f"{type(model).__name__} has no graph: {reason}") from error


class _Writer:
    """Writes what one exported program computes."""

    def __init__(self, program: ExportedProgram, stored: Mapping[str, Tensor]) -> None:
        self.program, self.stored = program, stored
        self.nodes: list[Node] = []
        self.names: dict[Call, str] = {}
        self.constants: dict[str, Tensor] = {}

    def graph(self) -> Graph:
        tensors = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        (result,) = next(call for call in self.program.graph.nodes if call.op == "output").args[0]
        used = self._used(result)
        for call in self.program.graph.nodes:
            if call in used and call.op == "placeholder":
                spec = tensors[call.name]
                self.names[call] = "%0" if spec.kind is InputKind.USER_INPUT else self._tensor(str(spec.target))
            elif call in used:
                self.names[call] = self._written(call)
        constants = {name: to_raw(tensor) for name, tensor in self.constants.items()}
        return Graph(tuple(self.nodes), self.names[result], constants)

    def _used(self, result: Call) -> set[Call]:
        used, waiting = set(), [result]
        while waiting:
            if (call := waiting.pop()) not in used:
                used.add(call)
                waiting += call.all_input_nodes
        return used

    def _tensor(self, target: str) -> str:
        """The name of a parameter, buffer or constant in the file, or of a new constant of the graph."""
        value = self.program.state_dict.get(target)
        value = self.program.constants[target] if value is None else value
        for name in (target, *self.stored):  # of several names of one tensor, the file has the first
            kept = self.stored.get(name)
            if kept is not None and kept.shape == value.shape and torch.equal(kept, value):
                return name
        return self._constant(target, value)

    def _constant(self, name: str, value: Tensor) -> str:
        """Its name, which no tensor of the file has."""
        name = f"{name} " if name in self.stored else name
        self.constants[name] = value
        return name

    def _written(self, call: Call) -> str:
        name, arguments = _operator(call), dict(_arguments(call))
        first = call.args[0] if call.args else None
        if name in SAME and isinstance(first, Call):
            return self.names[first]
        if name == "_native_batch_norm_legit_no_training":
            name = "batch_norm"
        if name == "getitem" and isinstance(first, Call) and _operator(first).startswith("_native_batch_norm"):
            return self.names[first]
        if not call.all_input_nodes and name not in OPERATORS:
            target: Any = call.target
            return self._constant(call.name, target(*call.args, **call.kwargs))  # such as `eye`
        written = {key: value for key, one in arguments.items() if (value := self._value(one)) is not SKIPPED}
        self.nodes.append(Node(name, written))
        return f"%{len(self.nodes)}"

    def _value(self, value: Any) -> Any:
        match value:
            case Call():
                return self.names[value]
            case str():
                return {"text": value}
            case torch.dtype():
                return {"text": str(value).removeprefix("torch.")}
            case list() | tuple():
                return [self._value(one) for one in value]
            case bool() | int() | float() | None:
                return value
        return SKIPPED


SKIPPED = object()


def _operator(call: Call) -> str:
    """The name without namespace and overload."""
    target: Any = call.target
    return str(target._schema.name).rpartition("::")[2] if hasattr(target, "_schema") else str(target.__name__)


def _arguments(call: Call) -> Iterator[tuple[str, Any]]:
    """Arguments by their names; those that equal the operator's defaults are left out."""
    target: Any = call.target
    if not hasattr(target, "_schema"):
        names = ("input", "index") if target is operator.getitem else ("input", "other")
        yield from zip(names, call.args, strict=False)
        return
    for argument, value in zip(target._schema.arguments, call.args, strict=False):
        yield from _named(argument, value)
    for argument in target._schema.arguments:
        if argument.name in call.kwargs:
            yield from _named(argument, call.kwargs[argument.name])


def _named(argument: Any, value: Any) -> Iterator[tuple[str, Any]]:
    same = argument.has_default_value() and not isinstance(value, Call) and argument.default_value == value
    if argument.name not in PLACES and not same:
        yield {"self": "input"}.get(argument.name, argument.name), value
