"""Which channels go: every saliency on filters that make its choice known."""

import pytest
import torch
import torch.nn.functional as F

from distill.artifact import Artifact
from distill.batch import Batch
from distill.errors import RecipeError
from tests.compress.pruning.channels import (
    FINE,
    batches,
    plain,
    prune,
)


def test_magnitude_removes_the_filters_of_least_l1_norm() -> None:
    """Li et al.; across layers relative to the layer's mean."""
    model = plain(3, 4, 6)
    with torch.no_grad():
        for layer, norms in ((model[0], [4.0, 1, 3, 8]), (model[3], [10.0, 2, 30, 6, 5, 7])):
            layer.weight *= torch.tensor(norms)[:, None, None, None] / layer.weight.abs().sum((1, 2, 3), keepdim=True)
    done = prune(
        Artifact(model), ratio=0.6, saliency="magnitude", scope="global", **FINE
    )  # norms over means: 1, .25, .75, 2 and 1, .2, 3, .6, .5, .7
    assert torch.equal(done.model[0].weight, model[0].weight[[0, 2, 3]])
    assert torch.equal(done.model[3].weight, model[3].weight[[0, 2, 5]][:, [0, 2, 3]])
    assert torch.equal(done.model[8].weight, model[8].weight[:, [0, 2, 5]])


def test_bn_scale_removes_what_normalisation_scales_least() -> None:
    """Liu et al.: one threshold for all layers; signs do not matter."""
    model = plain(3, 4, 6, norm=True)
    model[1].weight.data = torch.tensor([0.5, -0.1, 0.2, -0.9])
    model[4].weight.data = torch.tensor([0.3, 0.05, -0.6, 0.15, 0.7, 0.01])
    done = prune(Artifact(model.eval()), ratio=0.6, saliency="bn_scale", scope="global", **FINE)
    assert done.model[1].weight.tolist() == pytest.approx([0.5, 0.2, -0.9])
    assert done.model[4].weight.tolist() == pytest.approx([0.3, -0.6, 0.7])
    with pytest.raises(RecipeError, match="saliency=bn_scale needs batch normalisation"):
        prune(Artifact(plain(3, 4, 6)), saliency="bn_scale")


def test_taylor_removes_what_changes_the_loss_least() -> None:
    """Molchanov et al., by central differences of a gate on each channel."""
    model = plain(3, 4, 6, norm=True)
    model(batches()[0].inputs)
    model = model.eval().double()
    data = [Batch(*batch[:1], *batch[1:]) for batch in (batches()[0], batches(count=5)[0])]
    data = [batch._replace(inputs=batch.inputs.double()) for batch in data]

    def loss_with_gate(batch: Batch, layer: int, channel: int, gate: float) -> float:
        handle = model[layer + 2].register_forward_hook(
            lambda _, __, output: torch.cat(
                [output[:, :channel], gate * output[:, [channel]], output[:, channel + 1 :]], 1
            )
        )
        value = float(F.cross_entropy(model(batch.inputs), batch.labels).detach())
        handle.remove()
        return value

    scores = {
        (layer, channel): sum(
            ((loss_with_gate(b, layer, channel, 1.001) - loss_with_gate(b, layer, channel, 0.999)) / 0.002) ** 2
            for b in data
        )
        for layer, size in ((0, 4), (3, 6))
        for channel in range(size)
    }
    done = prune(Artifact(model), data, ratio=0.6, saliency="taylor", scope="global", **FINE)
    kept = sorted(sorted(scores, key=scores.__getitem__)[4:])
    expected = [torch.stack([model[layer].weight[c].abs().sum() for at, c in kept if at == layer]) for layer in (0, 3)]
    torch.testing.assert_close(done.model[0].weight.abs().sum((1, 2, 3)), expected[0])
    assert len(done.model[3].weight) == len(expected[1])
