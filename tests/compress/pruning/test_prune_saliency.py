"""Which weights go first: each saliency computed a second way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from distill.batch import Batch
from distill.compress.pruning._saliency import lamp, saliencies
from distill.compress.pruning.prune import prune
from distill.errors import RecipeError, TrainingError
from tests.compress import nets
from tests.compress.pruning.masks import kept, weights


def batches() -> list[Batch]:
    labels = torch.arange(10) % 7
    images = nets.images(10)
    return [Batch(images[part], labels[part], labels[part]) for part in (slice(0, 6), slice(6, 10))]


class TestSaliency:
    def test_taylor_is_what_autograd_says_weight_by_weight(self) -> None:
        model = nets.artifact().model.double()
        data = [batch._replace(inputs=batch.inputs.double()) for batch in batches()]
        found = saliencies("taylor", model, ["head.weight", "depthwise.weight"], data, nets.task_loss)
        for name, at in (("head.weight", (3, 5)), ("depthwise.weight", (7, 0, 2, 1))):
            weight, step, slopes = model.get_parameter(name), 1e-6, []
            for batch in data:
                sides = []
                for sign in (1, -1):
                    with torch.no_grad():
                        weight[at] += sign * step
                        sides.append(cross_entropy(model(batch.inputs), batch.labels).item())
                        weight[at] -= sign * step
                slopes.append((sides[0] - sides[1]) / (2 * step))
            expected = sum(abs(weight[at].item() * slope) for slope in slopes) / len(slopes)
            assert found[name][at].item() == pytest.approx(expected, rel=1e-5)

    def test_obd_is_a_loop_over_samples(self) -> None:
        model = nets.artifact().model
        names = list(weights(model))
        found = saliencies("obd", model, names, batches(), nets.task_loss)
        squares = {name: torch.zeros_like(weights(model)[name]) for name in names}
        for batch in batches():
            for image, label in zip(batch.inputs, batch.labels, strict=True):
                model.zero_grad()
                cross_entropy(model(image[None]), label[None]).backward()
                for name in names:
                    squares[name] += model.get_parameter(name).grad.square() / 10
        for name in names:
            torch.testing.assert_close(found[name], squares[name] * weights(model)[name].square() / 2)

    def test_of_a_softmax_layer_both_have_a_closed_form(self) -> None:
        torch.manual_seed(0)
        model, rows, labels = nn.Linear(5, 3), torch.randn(40, 5), torch.arange(40) % 3
        data = [Batch(rows, labels, labels)]
        error = model(rows).detach().softmax(1) - nn.functional.one_hot(labels, 3)  # dL/dlogits of each sample
        gradients = error[:, :, None] * rows[:, None]
        weight = model.weight.detach()
        for kind, expected in (
            ("taylor", (weight * gradients.mean(0)).abs()),
            ("obd", weight.square() * gradients.square().mean(0) / 2),
        ):
            torch.testing.assert_close(saliencies(kind, model, ["weight"], data, nets.task_loss)["weight"], expected)

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 999), size=st.integers(1, 12))
    def test_lamp_is_its_definition(self, seed: int, size: int) -> None:
        weight = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
        squares = [w.item() ** 2 for w in weight[0].double()]
        expected = [square / sum(other for other in squares if other >= square) for square in squares]
        torch.testing.assert_close(lamp(weight)[0], torch.tensor(expected, dtype=torch.double))
        assert lamp(weight).max() == 1

    def test_lamp_of_a_layer_of_zeros(self) -> None:
        assert lamp(torch.zeros(3, 2)).eq(0).all()

    def test_the_largest_weights_stay(self) -> None:
        before = torch.cat([w.abs().flatten() for w in weights(nets.artifact().model).values()])
        done = prune(nets.artifact(), saliency="magnitude", sparsity=0.7)
        stay = torch.cat([mask.flatten() for mask in kept(done).values()])
        assert before[stay].min() >= before[~stay].max()

    def test_lamp_does_not_depend_on_the_scale_of_layers(self) -> None:
        scaled = nets.artifact()
        scaled.model.kernel.weight.data *= 1000
        scaled.model.point.weight.data *= 0.001
        one, other = kept(prune(nets.artifact(), floor=0.0)), kept(prune(scaled, floor=0.0))
        assert all(torch.equal(one[name], other[name]) for name in one)
        magnitude = kept(prune(scaled, floor=0.0, saliency="magnitude"))
        assert magnitude["point.weight"].sum() == 1  # even so one of a layer stays
        assert magnitude["kernel.weight"].float().mean() > 0.2

    def test_what_needs_the_loss_says_so(self) -> None:
        with pytest.raises(RecipeError, match="saliency 'obd' is about the loss: it needs calibration batches"):
            prune(nets.artifact(), saliency="obd")

    def test_a_loss_that_is_not_finite_is_named(self) -> None:
        broken = [Batch(nets.images(2) * torch.nan, torch.zeros(2, dtype=torch.long), torch.arange(2))]
        with pytest.raises(
            TrainingError, match=r"prune: 108 of 108 values of 'saliency of stem\.weight' are not finite"
        ):
            prune(nets.artifact(), broken, nets.task_loss, saliency="taylor")
