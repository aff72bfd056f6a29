"""Bengio, Leonard & Courville: Estimating or Propagating Gradients Through Stochastic Neurons. arXiv:1308.3432,
section 4: fine-tuning of a network whose weights are stored as codes.

Every forward pass computes with what the current weights would be stored as; their gradient passes as if they were not.
Pruned weights are left out of it: they are zero whatever the others learn.
Forms that share values are trained in these instead: the codes stay, and a value gets the gradients of all positions
that have it (Han, Mao & Dally: Deep Compression. arXiv:1510.00149, equation 3).
"""

from collections.abc import Hashable
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.artifact import Artifact, store
from distill.artifact.raw import to_raw
from distill.artifact.sparse import Sparse
from distill.artifact.storage import Shared, Stored, moved
from distill.errors import RecipeError
from distill.models.state import load_state


class Masked(nn.Module):
    """A weight with zeros where its stored form has them; they get no gradient."""

    same_everywhere = True
    mask: Tensor

    def __init__(self, form: Sparse) -> None:
        super().__init__()
        self.register_buffer("mask", form.mask(), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class StraightThrough(nn.Module):
    """A weight as its stored form has it."""

    def __init__(self, form: Stored) -> None:
        super().__init__()
        self.form = form

    def forward(self, weight: Tensor) -> Tensor:
        self.form = moved(self.form, weight.device)
        return self.form.requantize(weight.detach()).decode() + (weight - weight.detach())  # exactly the decoded value


class SharedValues(nn.Module):
    """A weight whose parameter is the values that its positions share, each times ``units``.

    A value of n positions gets the sum of n gradients: in units of sqrt(n) a step moves it by their mean, as far as the
    same step moves the weights of a dense network, and one learning rate suits both.
    """

    units: Tensor

    def __init__(self, form: Shared, units: Tensor) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("units", units.where(units > 0, 1.0), persistent=False)

    def forward(self, scaled: Tensor) -> Tensor:
        self.form = moved(self.form, scaled.device)
        return self.form.with_shared(self.values(scaled)).decode()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.form.shared().to(weight.device) * self.units

    def values(self, scaled: Tensor) -> Tensor:
        return scaled / self.units


def trainable(artifact: Artifact) -> nn.Module:
    """A copy of the model to train; stored parameters run through their form, which follows what is learned.

    Raises:
        RecipeError: the artifact is encoded.
    """
    if artifact.encoded:
        raise RecipeError("an encoded network cannot be fine-tuned: put 'finetune' under a hook before 'encode'")
    model = artifact.copy_model()
    parameters = dict(model.named_parameters())
    forms = {parameters[name]: form for name, form in artifact.stored.items()}
    uses: dict[Hashable, Tensor] = {}
    for form in forms.values():
        if isinstance(form, Shared):
            uses[_table(form)] = uses.get(_table(form), 0) + _uses(form)
    tables: dict[Hashable, nn.Parameter] = {}
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            kept = forms.get(parameter)
            if isinstance(kept, Shared):
                # Unsafe: of a parameter that two modules share, the second finds the values in place of the weight.
                values = SharedValues(kept, uses[_table(kept)].sqrt())
                parametrize.register_parametrization(module, name, values, unsafe=True)
                chain = attrgetter(f"parametrizations.{name}")(module)
                chain.original = tables.setdefault(_table(kept), chain.original)
            elif kept:
                through = Masked(kept) if isinstance(kept, Sparse) else StraightThrough(kept)
                parametrize.register_parametrization(module, name, through)
    return model


def finalize(artifact: Artifact, model: nn.Module) -> Artifact:
    """The artifact with what was learned by ``model``, which is `trainable` of it, after training.

    The network is plain again: same structure, same names, each stored form fitted to the new values.
    """
    plain = artifact.copy_model()
    with torch.no_grad():
        load_state(plain, {name: attrgetter(name)(model) for name in plain.state_dict()})
    forms: dict[str, Stored] = {}
    for name, form in artifact.stored.items():
        path, _, leaf = name.rpartition(".")
        chain = attrgetter(f"parametrizations.{leaf}")(model.get_submodule(path))
        learned = chain.original.detach()
        if isinstance(form, Shared):
            forms[name] = form.with_shared(chain[0].values(learned).cpu())
        else:
            forms[name] = form.requantize(learned.cpu().contiguous())
    return store(replace(artifact, model=plain), forms)


def _table(form: Shared) -> Hashable:
    """The same for forms that train their values together."""
    return to_raw(form.shared()).data if form.common else id(form)


def _uses(form: Shared) -> Tensor:
    """How often each value is used, times the square of what it is multiplied by: the diagonal of J^T J.

    Where a position adds up several values, the row sums of J^T J: no step is too long then either.
    """
    ones = torch.ones_like(form.shared()).requires_grad_()
    with torch.enable_grad():
        decoded = form.with_shared(ones).decode()
    return torch.autograd.grad(decoded, ones, decoded.detach())[0]
