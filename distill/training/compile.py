"""Networks compiled by `torch.compile`: a setting of the recipe, because compiling takes seconds to minutes."""

import time
from collections.abc import Iterable
from functools import cache
from itertools import chain

import torch
from torch import nn

from distill.errors import RecipeError
from distill.models.taps import Taps


def compile_networks(modules: Iterable[nn.Module]) -> None:
    """Compile every tapped network in ``modules``; the networks themselves are not changed.

    Raises:
        RecipeError: this machine cannot compile.
    """
    require_compiler()
    torch.compiler.reset()  # code of earlier stages never runs again, but counts towards PyTorch's limit of eight
    for part in chain.from_iterable(module.modules() for module in modules):
        if isinstance(part, Taps):
            part.compile(dynamic=False)  # every batch has the same shape: training drops an incomplete last one


@cache
def require_compiler() -> None:
    """Compile something small, before anything is trained.

    Raises:
        RecipeError: this machine cannot compile; most often it lacks a C++ compiler.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    number = time.time_ns()  # a constant that no cache of compiled code has
    try:
        torch.compile(lambda x: x + number)(torch.zeros(1, device=device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"'compile' needs a C++ compiler and Python's header files on the machine that trains ({reason}); "
            "install them (Debian: apt install g++ python3-dev) or set compile=false"
        ) from error
