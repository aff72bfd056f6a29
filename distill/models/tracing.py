"""The dataflow of a network, recorded in one run: calls of its modules, and of the torch functions between them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from distill.models.called import first_input


class Op(NamedTuple):
    """One call of a torch function on values, which are numbered; the image is 0."""

    name: str
    """Without underscores: ``x + y`` and ``x += y`` are ``add``, ``relu_`` is ``relu``."""
    module: str
    """Path of the module whose ``forward`` called it."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Call(NamedTuple):
    """One call of a module that takes a tensor and returns one."""

    path: str
    input: int
    output: int


class Trace(NamedTuple):
    """All calls in order; a module's call is recorded when it ends, so inner ones come first."""

    ops: list[Op]
    calls: list[Call]
    result: int
    """The number of the value that the network returns."""
    shapes: list[torch.Size]
    """Of the values, by their number."""
    times: Counter[str]
    """How often each module runs, on values or on constants."""

    def readers(self) -> dict[int, list[Op]]:
        """Value -> the calls that read it."""
        readers: dict[int, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                readers.setdefault(value, []).append(op)
        return readers


@torch.no_grad()
def trace(model: nn.Module, image: Tensor) -> Trace:
    """Run ``model`` on ``image`` and record its calls: works for any Python in its forward, unlike symbolic tracing."""
    recorder = _Recorder()
    recorder.number(image)
    with recorder.on_modules(model), recorder:
        result = model(image)
    shapes = [tensor.shape for tensor in recorder.alive]
    return Trace(recorder.ops, recorder.calls, recorder.values[id(result)], shapes, recorder.times)


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.values: dict[int, int] = {}
        self.alive: list[Tensor] = []  # an id is a tensor's own only as long as the tensor lives
        self.running: list[tuple[str, int | None]] = []
        self.times: Counter[str] = Counter()

    def number(self, tensor: Tensor) -> int:
        """A new number: what is computed in place is another value in the same tensor."""
        self.values[id(tensor)] = len(self.alive)
        self.alive.append(tensor)
        return self.values[id(tensor)]

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = tuple(self.values[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self.values)
        result = func(*args, **kwargs)
        # x[0] = y returns nothing, and x is another value from then on.
        changed = args[0] if func is Tensor.__setitem__ else result
        made = [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]
        if inputs and made:
            outputs = tuple(map(self.number, made))
            self.ops.append(Op(func.__name__.strip("_"), self.running[-1][0], inputs, outputs))
        return result

    @contextmanager
    def on_modules(self, model: nn.Module) -> Iterator[None]:
        def begin(path: str, *given: Any) -> None:
            self.times[path] += 1
            self.running.append((path, self.values.get(id(first_input(*given)))))

        def end(result: Any) -> None:
            path, first = self.running.pop()
            if first is not None and id(result) in self.values:
                self.calls.append(Call(path, first, self.values[id(result)]))

        handles = []
        for path, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(lambda _, *given, path=path: begin(path, *given), with_kwargs=True)
            )
            handles.append(module.register_forward_hook(lambda _, arguments, result: end(result)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
