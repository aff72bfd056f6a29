"""Fine-tuning of networks whose weights are stored as codes."""

import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.artifact.straight_through import finalize, trainable
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.pruning.prune import prune
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from tests.compress import nets


def test_it_computes_what_the_artifact_does() -> None:
    artifact = quantize(nets.artifact(), bits=3)
    assert torch.equal(trainable(artifact).eval()(nets.images()), artifact.model(nets.images()))


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    artifact = quantize(Artifact(nn.Linear(6, 4)), bits=2)
    model, plain = trainable(artifact), artifact.copy_model()
    rows = torch.randn(5, 6)
    model(rows).square().sum().backward()
    plain(rows).square().sum().backward()
    torch.testing.assert_close(model.parametrizations.weight.original.grad, plain.weight.grad)


def test_pruned_weights_compute_as_stored_and_get_no_gradient() -> None:
    artifact = prune(Artifact(nn.Linear(6, 4)), sparsity=0.5)
    model, plain = trainable(artifact), artifact.copy_model()
    rows = torch.randn(5, 6)
    assert torch.equal(model(rows), plain(rows))
    model(rows).square().sum().backward()
    plain(rows).square().sum().backward()
    expected = plain.weight.grad.masked_fill(plain.weight == 0, 0)
    torch.testing.assert_close(model.parametrizations.weight.original.grad, expected)
    assert 0 < (expected == 0).sum() < expected.numel()


def test_every_forward_follows_the_weights() -> None:
    model = trainable(quantize(Artifact(nn.Linear(6, 4, bias=False)), bits=8, symmetric=True))
    with torch.no_grad():
        model.parametrizations.weight.original.mul_(4)
    torch.testing.assert_close(model.weight.abs().amax(1), model.parametrizations.weight.original.abs().amax(1))


def test_settling_keeps_names_statistics_and_what_was_learned() -> None:
    artifact = quantize(svd(nets.artifact(), nets.anything, nets.calibration(), max_error=0.6), bits=4)
    model = nets.train(trainable(artifact))
    done = finalize(artifact, model)
    before, after = artifact.model.state_dict(), done.model.state_dict()
    assert list(after) == list(before)
    assert done.plans == artifact.plans
    assert done.stored.keys() == artifact.stored.keys()
    assert torch.equal(done.model(nets.images()), model(nets.images()))
    assert torch.equal(after["norm.running_mean"], model.norm.running_mean)
    assert not torch.equal(after["norm.running_mean"], before["norm.running_mean"])
    assert all(torch.equal(form.decode(), after[name]) for name, form in done.stored.items())


def test_training_moves_codes() -> None:
    artifact = quantize(nets.artifact(), bits=4)
    done = finalize(artifact, nets.train(trainable(artifact), steps=10))
    assert nets.loss(done.model) < nets.loss(artifact.model)
    assert any(not torch.equal(done.stored[name].codes, form.codes) for name, form in artifact.stored.items())


def test_shared_weights_stay_shared() -> None:
    artifact = quantize(nets.artifact(), bits=4)
    model = nets.train(trainable(artifact))
    assert torch.equal(model.tied.weight, model.tied_too.weight)
    done = finalize(artifact, model)
    assert done.model.tied.weight is done.model.tied_too.weight


def test_without_stored_forms_it_is_a_plain_copy() -> None:
    artifact = nets.artifact()
    content = artifact.to_bytes()
    model = trainable(artifact)
    assert list(model.state_dict()) == list(artifact.model.state_dict())
    done = finalize(artifact, nets.train(model))
    assert torch.equal(done.model(nets.images()), model(nets.images()))
    assert artifact.to_bytes() == content


def test_an_encoded_network_is_not_trained() -> None:
    with pytest.raises(RecipeError, match="put 'finetune' under a hook before 'encode'"):
        trainable(encode(quantize(nets.artifact())))
