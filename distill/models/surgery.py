"""Changes of a network's modules: one module in place of another, and the plain network that ships."""

import copy

from torch import nn


def exchange(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` wherever the model uses the module at ``path``."""
    old = model.get_submodule(path)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                setattr(module, name, new)


def deployable(model: nn.Module) -> nn.Module:
    """A copy in plain operators: layers that keep other factors than they compute with answer ``deploy()``."""
    seen: dict[nn.Module, nn.Module] = {}

    def deployed(module: nn.Module) -> nn.Module:
        if module not in seen:
            deploy = getattr(module, "deploy", None)
            seen[module] = deploy() if callable(deploy) else module
            for name, child in seen[module]._modules.items():
                if child is not None:
                    setattr(seen[module], name, deployed(child))
        return seen[module]

    return deployed(copy.deepcopy(model)).eval()
