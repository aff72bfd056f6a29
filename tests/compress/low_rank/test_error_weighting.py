"""What images tell about a layer, against loops over positions and the change that the output really shows."""

import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.compress.low_rank._error_weighting import DAMPING, ErrorWeights, Root, error_weights, trace_layers
from distill.compress.low_rank._matrices import Cut
from tests.compress import nets


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 1)]
    return nn.Sequential(*layers).eval()


def batch(*shape: int) -> Batch:
    return Batch(torch.randn(*shape), torch.zeros(len(range(shape[0]))), torch.arange(shape[0]))


def test_patches_and_slopes_are_those_of_loops_over_positions() -> None:
    model, images = small(), batch(2, 2, 6, 3)
    found = error_weights(model, {"0": model[0]}, [images], "outputs")["0"]
    padded = nn.functional.pad(images.inputs, (1, 1, 1, 1))
    patches = [
        padded[n, :, 2 * y : 2 * y + 3, x : x + 2].flatten() for n in range(2) for y in range(3) for x in range(4)
    ]
    expected = sum(torch.outer(p, p) for p in patches) / len(patches)
    torch.testing.assert_close(found.inputs, expected.double(), rtol=1e-5, atol=1e-6)
    before = model[0](images.inputs).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model[1:](before.clone()).sum(), before)
    slopes = [slope[n, :, y, x] for n in range(2) for y in range(3) for x in range(4)]
    expected = sum(torch.outer(s, s) for s in slopes) / 2
    torch.testing.assert_close(found.outputs, expected.double(), rtol=1e-5, atol=1e-7)


def test_the_predicted_loss_is_the_change_of_the_networks_output() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 1)).eval()
    images = batch(256, 12)
    (traced,) = trace_layers(model, {"0": model[0]}, images.inputs).values()
    cut = Cut(traced, error_weights(model, {"0": model[0]}, [images], "outputs")["0"], "channel")
    change = torch.randn(12, 8).double() * 0.1
    predicted = (cut.rows.root @ change @ cut.columns.root).square().sum()
    changed = (images.inputs.double() @ change @ model[1].weight.double().T).square().mean()
    torch.testing.assert_close(predicted, changed, rtol=20 * DAMPING, atol=0)


@pytest.mark.parametrize(
    "geometry",
    [{}, {"padding": "same", "dilation": 2}, {"padding": 2, "padding_mode": "reflect"}, {"stride": 2, "padding": 1}],
    ids=str,
)
def test_the_error_of_a_layers_output_is_what_its_images_show(geometry: dict[str, object]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, bias=False, **geometry)
    images = batch(16, 3, 9, 8)
    (traced,) = trace_layers(conv, {"": conv}, images.inputs).values()
    cut = Cut(traced, error_weights(conv, {"": conv}, [images], "inputs")[""], "channel")
    change = torch.randn_like(conv.weight)
    predicted = (cut.rows.root @ change.flatten(1).T.double()).square().sum()
    with torch.no_grad():
        conv.weight.copy_(change)
    torch.testing.assert_close(predicted, conv(images.inputs).square().sum(1).mean().double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("kept", [(True, True), (True, False), (False, False)])
def test_parts_of_a_patch(kept: tuple[bool, bool]) -> None:
    model = small()
    (traced,) = trace_layers(model, {"0": model[0]}, torch.randn(1, 2, 6, 3)).values()
    patches = torch.randn(40, 2, 3, 2).double()
    moments = ErrorWeights(torch.einsum("nchw,nCHW->chwCHW", patches, patches).reshape(12, 12))
    root = moments.rows(traced, kept).root
    parts = {(True, True): "nchw->nchw", (True, False): "nchw->nwch", (False, False): "nchw->nhwc"}
    rows = torch.einsum(parts[kept], patches).reshape(-1, len(root))
    expected = rows.T @ rows * len(root) / 12  # summed over the axes that are kept, averaged over the others
    damped = expected + DAMPING * expected.diagonal().mean() * torch.eye(len(root)).double()
    torch.testing.assert_close(root @ root, damped)


def test_roots_undo_each_other() -> None:
    rows = torch.randn(3, 9).double()
    root = Root.of(rows.T @ rows, 9)  # of rank 3
    torch.testing.assert_close(root.root @ root.inverse, torch.eye(9).double())
    assert torch.equal(Root.of(None, 4).root, torch.eye(4).double())


def test_the_model_is_left_as_it_was_and_no_random_numbers_are_drawn() -> None:
    artifact = nets.artifact()
    content, state = artifact.to_bytes(), torch.get_rng_state()
    layers = {"point": artifact.model.point, "head": artifact.model.head}
    first, again = (error_weights(artifact.model, layers, nets.calibration(), "outputs") for _ in range(2))
    assert artifact.to_bytes() == content
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[path].outputs, again[path].outputs) for path in layers)
    assert not artifact.model.point._forward_hooks
    assert all(p.grad is None for p in artifact.model.parameters())


def test_sites() -> None:
    model = small()
    conv, linear = (
        trace_layers(model, {"0": model[0], "3": model[3]}, torch.randn(4, 2, 6, 3))[path] for path in ("0", "3")
    )
    assert (conv.inputs, conv.outputs, conv.positions, conv.macs) == ((2, 6, 3), (3, 3, 4), 12, 12 * 36)
    assert (linear.positions, linear.macs) == (1, 36)
