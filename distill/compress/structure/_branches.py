"""Li, Wang & Kong: DeepRebirth: Accelerating Deep Neural Network Execution on Mobile Devices. arXiv:1708.04728, branch
slimming: of the branches that an Inception module joins, the cheap ones go, and convolutions beside them make their
channels too.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.compress._layers import Layer
from distill.compress._places import JOINS
from distill.models.channels.narrow import resized, sizes_of
from distill.models.surgery import exchange
from distill.models.tracing import Op, Trace

ACTIVATIONS = frozenset(["relu", "relu6", "hardtanh", "hardswish", "silu", "leaky_relu", "gelu", "elu", "dropout"])
POOLS = frozenset(["max_pool2d", "avg_pool2d", "local_response_norm"])


class Parallel(nn.Module):
    """What is left of a module that joins branches.

    Args:
        module: it; what the branches need of it keeps its name.
        branches: for each branch the names of its parts, in order.
    """

    def __init__(self, module: nn.Module, branches: list[list[str]]) -> None:
        super().__init__()
        self.branches = branches
        for name in (name for names in branches for name in names):
            self.add_module(name, module.get_submodule(name))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([reduce(lambda y, name: self.get_submodule(name)(y), names, x) for names in self.branches], 1)


class Branch(NamedTuple):
    """What leads from a value, which others read too, to one of those that are joined."""

    source: int
    result: int
    ops: list[Op]
    """First to last; each is the only reader of the output of the one before it."""

    def end(self) -> Op | None:
        """The convolution that makes its channels, if no more than normalisation and activations follow it."""
        for op in reversed(self.ops):
            if op.name not in ACTIVATIONS | {"batch_norm"}:
                return op if op.name == "conv2d" else None
        return None


def joined(flow: Trace) -> list[tuple[Op, list[Branch]]]:
    """Every call that joins the channels of maps, with its branches."""
    readers = flow.readers()
    makers = {value: op for op in flow.ops for value in op.outputs if len(op.inputs) == len(op.outputs) == 1}
    found = []
    for op in flow.ops:
        shapes = [flow.shapes[value] for value in (*op.outputs, *op.inputs)]
        maps = all(len(shape) == 4 for shape in shapes)
        if op.name in JOINS and maps and shapes[0][1] == sum(shape[1] for shape in shapes[1:]):
            found.append((op, [_branch(value, readers, makers) for value in op.inputs]))
    return found


def _branch(value: int, readers: Mapping[int, list[Op]], makers: Mapping[int, Op]) -> Branch:
    ops: list[Op] = []
    source = value
    while source in makers and len(readers[source]) == 1:
        ops.insert(0, makers[source])
        source = makers[source].inputs[0]
    return Branch(source, value, ops)


def slimming(model: nn.Module, flow: Trace, layers: Mapping[str, Layer]) -> dict[str, dict[str, Any]]:
    """Which modules are to lose cheap branches, and which layers are to make these branches' channels, for `rebuilt`.

    A branch is cheap if it has 1x1 convolutions alone, with or without a pool. Its channels are given to the nearest
    branch with a larger convolution that reads the same value, and stay where they were among those that are joined.

    Args:
        model: what is to be slimmed.
        flow: it.
        layers: those that may grow or go.
    """
    plan: dict[str, dict[str, Any]] = {}
    once = {path for path, times in flow.times.items() if times == 1}
    for join, branches in joined(flow):
        cheap = [_is_cheap(flow, branch, layers) for branch in branches]
        grows = [_grows(model, branch, layers, once) for branch in branches]
        heirs = [_heir(branches, number, cheap, grows) for number in range(len(branches))]
        stay = [_parts(flow, join, branch) for branch, heir in zip(branches, heirs, strict=True) if heir is None]
        if len(stay) == len(branches) or join.module not in once or None in stay:
            continue
        plan[join.module] = {"branches": stay}
        channels = [flow.shapes[branch.result][1] for branch in branches]
        for heir, branch in enumerate(branches):
            if (end := branch.end()) and heir in heirs:
                given = {number: channels[number] for number, other in enumerate(heirs) if other == heir}
                before = sum(count for number, count in given.items() if number < heir)
                spec = {"outputs": channels[heir] + sum(given.values()), "before": before}
                behind = [op for op in branch.ops[branch.ops.index(end) :] if op.name not in ACTIVATIONS]
                plan |= {op.module: dict(spec) for op in behind}
    return plan


def _is_cheap(flow: Trace, branch: Branch, layers: Mapping[str, Layer]) -> bool:
    """Whether a branch has 1x1 convolutions, and beside them no more than what has no weights."""
    kernels = [getattr(layers.get(op.module), "kernel_size", None) for op in branch.ops if op.name == "conv2d"]
    others = {op.name for op in branch.ops} <= ACTIVATIONS | POOLS | {"conv2d", "batch_norm"}
    same_size = flow.shapes[branch.source][2:] == flow.shapes[branch.result][2:]
    return others and same_size and set(kernels) == {(1, 1)}


def _grows(model: nn.Module, branch: Branch, layers: Mapping[str, Layer], once: set[str]) -> bool:
    """Whether a branch looks around a pixel, and more filters can simply be added to its last convolution."""
    end = branch.end()
    if end is None or end.module not in layers or getattr(layers[end.module], "groups", 1) > 1:
        return False
    behind = [op.module for op in branch.ops[branch.ops.index(end) :] if op.name not in ACTIVATIONS]
    plain = all(type(model.get_submodule(path)) in (nn.Conv2d, nn.BatchNorm2d) for path in behind)
    kernels = [getattr(model.get_submodule(op.module), "kernel_size", 1) for op in branch.ops if op.name == "conv2d"]
    return plain and once.issuperset(behind) and any(kernel != (1, 1) for kernel in kernels)


def _heir(branches: Sequence[Branch], number: int, cheap: Sequence[bool], grows: Sequence[bool]) -> int | None:
    """The nearest branch that grows, with cheap ones between them at most; of two, the later one."""
    near = []
    for step in (1, -1) if cheap[number] else ():
        at = number + step
        while 0 <= at < len(branches) and branches[at].source == branches[number].source:
            if not cheap[at]:
                near += [at] if grows[at] else []
                break
            at += step
    return min(near, key=lambda at: abs(at - number), default=None)


def _parts(flow: Trace, join: Op, branch: Branch) -> list[str] | None:
    """Names of the modules that make up a branch, if all that the module around them does is to run and join them."""
    around = [call for call in flow.calls if call.path == join.module != ""]
    if [(call.input, call.output) for call in around] != [(branch.source, join.outputs[0])]:
        return None
    inside = {
        call.output: call
        for call in flow.calls
        if call.path.rpartition(".")[0] == join.module and call.input != call.output
    }
    names: list[str] = []
    value = branch.result
    while value != branch.source:
        if value not in inside:
            return None
        names.insert(0, inside[value].path.rpartition(".")[2])
        value = inside[value].input
    return names


def rebuilt(model: nn.Module, plan: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Give layers more channels, and leave modules with some of their branches."""
    for path, spec in plan.items():
        module = model.get_submodule(path)
        if "branches" in spec:
            exchange(model, path, Parallel(module, spec["branches"]))
        elif "outputs" in spec:
            inputs = sizes_of(module)[0] if isinstance(module, nn.Conv2d) else spec["outputs"]
            exchange(model, path, resized(module, inputs, spec["outputs"]))
    return model


@torch.no_grad()
def fill(grown: nn.Module, old: nn.Module, before: int) -> None:
    """Give a layer its own values back, ``before`` channels further; the new ones begin anew.

    Filters begin as in He et al.: Delving Deep into Rectifiers. arXiv:1502.01852, equation 10, and batch norms as ones
    that do nothing.
    """
    if isinstance(grown, nn.Conv2d):
        nn.init.kaiming_normal_(grown.weight, nonlinearity="relu")
        if grown.bias is not None:
            grown.bias.zero_()
    elif isinstance(grown, nn.BatchNorm2d):
        grown.reset_parameters()
    state = grown.state_dict()
    for name, value in old.state_dict().items():
        if value.dim():
            state[name][before : before + len(value)] = value
