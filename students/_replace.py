"""The body of one network with the layers of another: its convolutions make room for something else."""

from collections.abc import Callable

from torch import nn

from students._blocks import M


def replace_convolutions(network: M, build: Callable[[str, nn.Conv2d], nn.Module]) -> M:
    """The same network with ``build(path, layer)`` in place of each convolution."""
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            network.set_submodule(path, build(path, module))
    return network
