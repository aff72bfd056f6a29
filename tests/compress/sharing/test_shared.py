"""Values that positions share: what training moves, and where it leaves them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact
from distill.artifact.straight_through import finalize, trainable
from distill.compress.encode import encode
from distill.compress.sharing.cartesian_quantize import cartesian_quantize
from distill.compress.sharing.cluster import cluster
from distill.compress.sharing.hash_weights import hash_weights, hashed
from distill.compress.sharing.product_quantize import product_quantize
from tests.compress import nets

Hook = Callable[[Artifact], Artifact]
HOOKS: dict[str, Hook] = {
    "cluster": lambda artifact: cluster(artifact, bits=3),
    "common": lambda artifact: cluster(artifact, bits=3, shared=True),
    "product": lambda artifact: product_quantize(artifact, residual=1),
    "cartesian": lambda artifact: cartesian_quantize(artifact),
    "hashed": lambda artifact: hash_weights(artifact),
}
every_hook = pytest.mark.parametrize("apply", HOOKS.values(), ids=HOOKS)


def gradients(artifact: Artifact) -> tuple[Tensor, Tensor]:
    """Of the shared values, by autograd; and of the dense weight."""
    model, plain = trainable(artifact), artifact.copy_model()
    rows = torch.randn(7, 24, generator=torch.Generator().manual_seed(3))
    for network in (model, plain):
        network(rows).square().sum().backward()
    chain = model.parametrizations.weight
    return chain.original.grad * chain[0].units, plain.weight.grad


def linear() -> Artifact:
    torch.manual_seed(2)
    return Artifact(nn.Linear(24, 16))


def test_a_value_of_a_table_gets_the_sum_of_its_positions_gradients() -> None:
    done = cluster(linear(), bits=3)
    form = done.stored["weight"]
    ours, dense = gradients(done)
    expected = [float(dense[form.codes == code].sum()) for code in range(8)]  # equation 3
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=2**-7, atol=1e-3)


def test_an_entry_of_a_codebook_gets_the_sum_of_its_blocks_gradients() -> None:
    done = product_quantize(linear(), codebook_size=5)
    form = done.stored["weight"]
    ours, dense = gradients(done)
    blocks = dense.reshape(-1, 4)
    expected = torch.stack([blocks[form.codes[0] == code].sum(0) for code in range(5)])
    torch.testing.assert_close(ours[0], expected, rtol=2**-7, atol=1e-3)


def test_an_entry_for_rotated_vectors_gets_the_sum_of_their_rotated_gradients() -> None:
    done = cartesian_quantize(linear(), codebook_size=5)
    form = done.stored["weight"]
    ours, dense = gradients(done)
    blocks = (dense.reshape(-1, 8) @ form.rotation.float()).chunk(2, 1)
    expected = torch.stack([blocks[1][form.codes[1] == code].sum(0) for code in range(5)])
    torch.testing.assert_close(ours[1], expected, rtol=2**-7, atol=1e-3)


def test_a_hashed_value_gets_the_sum_of_its_positions_signed_gradients() -> None:
    done = hash_weights(linear())
    form = done.stored["weight"]
    ours, dense = gradients(done)
    places, signs = hashed(24 * 16, len(form.values), form.seed, torch.device("cpu"))
    expected = torch.zeros(len(form.values))
    for position, gradient in enumerate(dense.flatten().tolist()):
        expected[places[position]] += signs[position] * gradient
    torch.testing.assert_close(ours, expected, rtol=2**-7, atol=1e-3)


@every_hook
def test_a_step_moves_values_as_far_as_it_moves_dense_weights(apply: Hook) -> None:
    done = apply(linear())
    form = done.stored["weight"]
    model, plain = trainable(done), done.copy_model()
    rows = torch.randn(7, 24, generator=torch.Generator().manual_seed(3))
    for network in (model, plain):
        network(rows).square().sum().backward()
        torch.optim.SGD(network.parameters(), lr=0.01).step()
    moved = model.weight.detach() - form.decode()
    dense = plain.weight.detach() - form.decode()
    # What the codes leave of the dense step: its projection onto the weights that they can express.
    basis = torch.autograd.functional.jacobian(lambda v: form.with_shared(v).decode().flatten(), form.shared())
    expected = torch.linalg.lstsq(basis.reshape(dense.numel(), -1), dense.flatten()[:, None], driver="gelsd").solution
    projected = (basis.reshape(dense.numel(), -1) @ expected).view_as(dense)
    assert moved.norm() <= projected.norm() * 1.05
    if len(getattr(form, "codes", [0])) != 2:  # two stages share what one has to itself
        torch.testing.assert_close(moved, projected, rtol=0.05, atol=0.02 * float(form.decode().abs().max()))


@every_hook
def test_it_computes_what_the_artifact_does_before_and_after(apply: Hook) -> None:
    artifact = apply(nets.artifact())
    model = trainable(artifact)
    assert torch.equal(model(nets.images()), artifact.model(nets.images()))
    nets.train(model, steps=5)
    done = finalize(artifact, model)
    assert torch.equal(done.model(nets.images()), model(nets.images()))
    assert nets.loss(done.model) < nets.loss(artifact.model)


@every_hook
def test_training_moves_values_and_leaves_codes(apply: Hook) -> None:
    artifact = apply(nets.artifact())
    done = finalize(artifact, nets.train(trainable(artifact), steps=10))
    moved = [not torch.equal(done.stored[name].shared(), form.shared()) for name, form in artifact.stored.items()]
    assert sum(moved) > len(moved) // 2
    for name, before in artifact.stored.items():
        after = done.stored[name]
        assert torch.equal(getattr(after, "codes", torch.zeros(0)), getattr(before, "codes", torch.zeros(0)))
        assert after.nbytes() == before.nbytes()


@every_hook
def test_shared_weights_stay_shared(apply: Hook) -> None:
    artifact = apply(nets.artifact())
    model = nets.train(trainable(artifact))
    assert torch.equal(model.tied.weight, model.tied_too.weight)
    done = finalize(artifact, model)
    assert done.model.tied.weight is done.model.tied_too.weight


@every_hook
def test_only_values_are_trained(apply: Hook) -> None:
    artifact = apply(nets.artifact())
    model = trainable(artifact)
    trained = sum(p.numel() for p in model.parameters())
    others = sum(p.numel() for name, p in artifact.model.named_parameters() if name not in artifact.stored)
    forms = list(artifact.stored.values())
    values = [form.shared().numel() for form in (forms[:1] if forms[0].common else forms)]
    assert trained == others + sum(values)


@every_hook
def test_training_goes_on_from_a_file(apply: Hook, tmp_path: pytest.TempPathFactory) -> None:
    artifact = apply(nets.artifact())
    artifact.save(tmp_path / "student.safetensors")
    loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
    first, second = (finalize(a, nets.train(trainable(a))) for a in (artifact, loaded))
    assert first.to_bytes() == second.to_bytes()


def test_one_table_stays_one_table() -> None:
    artifact = cluster(nets.artifact(), bits=4, shared=True)
    done = finalize(artifact, nets.train(trainable(artifact)))
    tables = [form.values for form in done.stored.values()]
    assert all(torch.equal(table, tables[0]) for table in tables)
    assert not torch.equal(tables[0], artifact.stored["head.weight"].values)
    separate = encode(cluster(nets.artifact(), bits=4))
    assert encode(artifact).nbytes() < separate.nbytes()
