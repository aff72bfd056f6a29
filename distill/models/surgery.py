"""Changes of a network's modules: one module in place of another, and the plain network that ships."""

from torch import nn

from distill.models.copied import copied


def exchange(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` wherever the model uses the module at ``path``."""
    old = model.get_submodule(path)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                setattr(module, name, new)


def deployable(model: nn.Module) -> nn.Module:
    """A copy in plain operators: layers that are trained in another form have ``deploy()``, their plain form."""
    done: dict[nn.Module, nn.Module] = {}

    def deployed(module: nn.Module) -> nn.Module:
        if module not in done:
            deploy = getattr(module, "deploy", None)
            done[module] = deploy() if callable(deploy) else module
            for name, child in done[module]._modules.items():
                if child is not None:
                    setattr(done[module], name, deployed(child))
        return done[module]

    return deployed(copied(model)).eval()
