"""Layers that a network does not only call: it also reads their weights, as in ``F.conv2d(x, self.conv.weight)``."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.copied import copied

WHY = "parameters read by the network itself"


def read_elsewhere(model: nn.Module, image: Tensor, paths: Iterable[str]) -> list[str]:
    """Those of the layers whose parameters are read while the layer itself does not run: no other module can take
    their place, and channels of theirs go where no call of a module shows it.

    Args:
        model: in eval mode; stays as it is.
        image: what to run it on.
        paths: of layers without others in them.
    """
    model = copied(model)
    layers = {path: model.get_submodule(path) for path in paths}
    for layer in layers.values():
        layer.__class__ = _watched(type(layer))
    with torch.no_grad():
        model(image)
    return [path for path, layer in layers.items() if "_read_outside" in vars(layer)]


def _watched(kind: type[nn.Module]) -> type[nn.Module]:
    """A layer of that kind which notes that a parameter is read while it does not run."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *inputs: Any, **named: Any) -> Any:
            self.__dict__["_running"] = True
            try:
                return super().__call__(*inputs, **named)
            finally:
                del self.__dict__["_running"]

        def __getattr__(self, name: str) -> Any:  # for what is no plain attribute
            if self.__dict__["_parameters"].get(name) is not None and "_running" not in self.__dict__:
                self.__dict__["_read_outside"] = True
            return super().__getattr__(name)

    Watched.__name__ = kind.__name__
    return Watched
