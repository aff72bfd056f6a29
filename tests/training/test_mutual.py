"""Two networks that teach each other: each has the other in its teacher's place."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from distill.data.digits import Digits
from distill.losses import loss as losses
from distill.recipe.schema import Loss, Stage
from distill.registry import schema
from distill.tasks.classification import Classification
from distill.training.loss_terms import with_taps
from distill.training.method import Setting
from distill.training.mutual import Mutual, mirror
from tests.nets import TEN_CLASSES, ConvNet

ME = "tests.training.test_mutual:Watching"


class Watching(nn.Module):
    """A loss that keeps the networks that it is given."""

    def __init__(self, student_model: nn.Module, teacher_model: nn.Module | None = None) -> None:
        super().__init__()
        self.networks = [(student_model, teacher_model)]  # in a list: they are no parts of the loss

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()


def mutual(student: nn.Module, peer: nn.Module) -> Mutual:
    spec = schema(losses.find(ME), Loss)(name=ME)
    example = Digits(0, limit=40, crop=1, batch_size=8).calibration(8)[0]
    setting = Setting(Classification(TEN_CLASSES), Stage(epochs=1), example)
    return Mutual(student, peer, {"watching": with_taps(spec, student, peer)}, setting)


def networks(terms: nn.ModuleDict) -> list[Any]:
    return list(cast(Watching, cast(Any, terms["watching"]).parts[0]).networks)


def test_losses_get_the_other_network_as_their_teacher() -> None:
    student, peer = ConvNet(), ConvNet(width=8)
    method = mutual(student, peer)
    assert networks(method.terms) == [(student, peer)]
    assert networks(method.peer_terms) == [(peer, student)]


def test_both_networks_learn_and_neither_through_the_other() -> None:
    torch.manual_seed(0)
    student, peer = ConvNet(), ConvNet(width=8)
    method = mutual(student, peer)
    batch = Digits(0, limit=40, crop=1, batch_size=8).calibration(8)[0]
    values = method.step(batch, 1.0, 0.0)
    assert set(values) == {"task", "watching", "peer_task", "peer_watching"}
    values["peer_watching"].backward()
    assert all(parameter.grad is None for parameter in student.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in peer.parameters())


def test_a_layout_stays_with_its_network() -> None:
    at = schema(losses.find("at"), Loss)(name="at", student=["s"], teacher=["t"], layout={"student": "tokens"})
    assert mirror(at) == replace(at, student=["t"], teacher=["s"], layout={"teacher": "tokens"})
    assert mirror(mirror(at)) == at


def test_a_loss_of_one_network_is_each_ones_own() -> None:
    student, peer = ConvNet(), ConvNet(width=8)
    spec = with_taps(schema(losses.find("tfkd"), Loss)(name="tfkd"), student, peer)
    example = Digits(0, limit=40, crop=1, batch_size=8).calibration(8)[0]
    setting = Setting(Classification(TEN_CLASSES), Stage(epochs=1), example)
    values = Mutual(student, peer, {"tfkd": spec}, setting).step(example, 1.0, 0.0)
    for name, network in (("tfkd", student), ("peer_tfkd", peer)):
        network.zero_grad()
        values[name].backward(retain_graph=True)
        assert network.head.weight.grad.any()
