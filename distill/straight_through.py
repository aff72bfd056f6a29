"""Bengio, Leonard & Courville: Estimating or Propagating Gradients Through Stochastic Neurons. arXiv:1308.3432,
section 4: fine-tuning of a network whose weights are stored as codes.

Every forward pass computes with what the current weights would be stored as; their gradient passes as if they were not.
"""

import re
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.utils import parametrize

from distill.artifact import Artifact, store
from distill.errors import RecipeError
from distill.stored import Stored


class StraightThrough(nn.Module):
    """A weight as its stored form has it."""

    def __init__(self, form: Stored) -> None:
        super().__init__()
        self.form = form

    def forward(self, weight: Tensor) -> Tensor:
        return self.form.refit(weight.detach()).decode() + (weight - weight.detach())  # exactly the decoded value


def trainable(artifact: Artifact) -> nn.Module:
    """A copy of the model to train; stored parameters run through their form, which follows their new values.

    Raises:
        RecipeError: the artifact is encoded.
    """
    if artifact.encoded:
        raise RecipeError("an encoded network cannot be fine-tuned: put 'finetune' under a hook before 'encode'")
    model = artifact.copy_model()
    parameters = dict(model.named_parameters())
    forms = {parameters[name]: form for name, form in artifact.stored.items()}
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter in forms:
                parametrize.register_parametrization(module, name, StraightThrough(forms[parameter]))
    return model


def settle(artifact: Artifact, model: nn.Module) -> Artifact:
    """The artifact with what was learned by ``model``, which is `trainable` of it, after training.

    The network is plain again: same structure, same names, each stored form fitted to the new values.
    """
    names = re.compile(r"parametrizations\.(\w+)\.original")
    plain = artifact.copy_model()
    plain.load_state_dict({names.sub(r"\1", name): value for name, value in model.state_dict().items()})
    parameters = dict(plain.named_parameters())
    forms = {name: form.refit(parameters[name].detach()) for name, form in artifact.stored.items()}
    return store(replace(artifact, model=plain), forms)
