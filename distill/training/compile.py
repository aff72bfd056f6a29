"""Networks as compiled code, for `torch.compile`'s speed: a switch of the recipe, because it costs a start-up."""

import time
from collections.abc import Iterable
from functools import cache
from itertools import chain

import torch
from torch import nn

from distill.errors import RecipeError
from distill.models.taps import Taps


def compile_networks(modules: Iterable[nn.Module]) -> None:
    """Let every tapped network in ``modules`` run as compiled code; the networks themselves stay as they are.

    Raises:
        RecipeError: this machine cannot compile.
    """
    require_compiler()
    torch.compiler.reset()  # code of earlier stages is never run again, yet counts towards a limit of eight
    for part in chain.from_iterable(module.modules() for module in modules):
        if isinstance(part, Taps):
            part.compile(dynamic=False)  # every batch has the same shape: training drops an incomplete last one


@cache
def require_compiler() -> None:
    """See that something small compiles, before anything is trained.

    Raises:
        RecipeError: it does not, for lack of a compiler, as a rule.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    number = time.time_ns()  # code that was never compiled before, or it would be read from a cache
    try:
        torch.compile(lambda x: x + number)(torch.zeros(1, device=device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"'compile' needs a C++ compiler and Python's header files on the machine that trains ({reason}); "
            "install them (Debian: apt install g++ python3-dev) or set compile=false"
        ) from error
