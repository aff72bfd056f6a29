"""Which weights go, how many, and that they stay away."""

import logging
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill.artifact import Artifact, open_artifact, store
from distill.artifact.sparse import Pruned, Sparse, Spliced
from distill.artifact.straight_through import finalize, trainable
from distill.batch import Batch
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.pruning._saliency import lamp, saliencies
from distill.compress.pruning.prune import prune
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError, TrainingError
from tests.artifact.test_sparse import Ones
from tests.compress import nets


def batches() -> list[Batch]:
    labels = torch.arange(10) % 7
    images = nets.images(10)
    return [Batch(images[part], labels[part], labels[part]) for part in (slice(0, 6), slice(6, 10))]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}


def kept(artifact: Artifact) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in weights(artifact.model).items()}


def fraction(masks: dict[str, Tensor]) -> float:
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


class TestSaliency:
    def test_taylor_is_what_autograd_says_weight_by_weight(self) -> None:
        model = nets.artifact().model.double()
        data = [batch._replace(inputs=batch.inputs.double()) for batch in batches()]
        found = saliencies("taylor", model, ["head.weight", "depthwise.weight"], data, cross_entropy)
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
        found = saliencies("obd", model, names, batches(), cross_entropy)
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
            torch.testing.assert_close(saliencies(kind, model, ["weight"], data, cross_entropy)["weight"], expected)

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
            prune(nets.artifact(), broken, cross_entropy, saliency="taylor")


class TestHowMany:
    @settings(max_examples=25, deadline=None)
    @given(sparsity=st.floats(0.01, 0.98), scope=st.sampled_from(["global", "layer"]))
    def test_sparsity_is_exact_to_one_weight(self, sparsity: float, scope: str) -> None:
        masks = kept(prune(nets.artifact(), sparsity=sparsity, scope=scope))
        if scope == "layer":
            for mask in masks.values():
                assert int((~mask).sum()) == min(
                    round(sparsity * mask.numel()), mask.numel() - ceil(0.01 * mask.numel())
                )
        else:
            total = sum(mask.numel() for mask in masks.values())
            assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * total)

    @pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.75, 1.0])
    def test_sparsity_rises_by_a_cubic_law(self, progress: float) -> None:
        final, cubic = 0.9, 0.9 + (0 - 0.9) * (1 - progress) ** 3  # Zhu & Gupta, equation 1, from 0
        masks = kept(prune(nets.artifact(), (), None, progress, sparsity=final))
        assert 1 - fraction(masks) == pytest.approx(cubic, abs=0.5 / sum(m.numel() for m in masks.values()))

    def test_every_layer_keeps_its_floor(self) -> None:
        artifact = nets.artifact()
        artifact.model.kernel.weight.data *= 1e-6
        masks = kept(prune(artifact, saliency="magnitude", sparsity=0.8, floor=0.05))
        assert int(masks["kernel.weight"].sum()) == ceil(0.05 * 4320)

    def test_biases_and_normalisation_stay(self) -> None:
        before, after = nets.artifact().model.state_dict(), prune(nets.artifact()).model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before if before[name].dim() < 2)
        assert torch.equal(after["tied.weight"], after["tied_too.weight"])

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"sparsity": 1.0}, "0 < sparsity <= 1 - floor; not 0.01 and 1.0"),
            ({"sparsity": 0.0}, "0 < sparsity"),
            ({"floor": -0.1}, "0 <= floor < 1"),
            ({"sparsity": 0.9, "floor": 0.2}, "sparsity <= 1 - floor"),
            ({"sparsity": 0.999, "floor": 0.001}, r"what `floor` leaves them: 0\.998\d is the most"),
            ({"pattern": "4:2"}, "pattern is '4:2', but is \"N:M\" in quotes with 0 < N < M"),
            ({"pattern": "124"}, "in quotes"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(RecipeError, match=complaint):
            prune(nets.artifact(), **options)


class TestPattern:
    def test_among_neighbouring_input_channels(self) -> None:
        masks = kept(prune(nets.artifact(), pattern="2:4"))
        for name in ("point.weight", "kernel.weight", "tied.weight", "head.weight"):
            assert masks[name].unflatten(1, (-1, 4)).sum(2).eq(2).all(), name
        assert masks["up.weight"].unflatten(0, (-1, 4)).sum(1).eq(2).all()  # transposed: input channels come first
        assert masks["stem.weight"].all()
        assert masks["depthwise.weight"].all()

    def test_what_does_not_fit_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        trains = tensor_train(nets.artifact(), nets.anything, nets.calibration(), max_error=0.6, layers=["head"])
        with caplog.at_level(logging.DEBUG, "distill.compress"):
            prune(trains, pattern="2:4")
        assert "prune: stem.weight: left as it is, input channels not a multiple of 4" in caplog.messages
        assert "prune: head.core0: left as it is, a factor without input channels" in caplog.messages
        assert "left as they are: 2 (input channels not a multiple of 4), 2 (a factor without" in caplog.messages[-1]

    def test_half_way_it_takes_the_least_salient_first(self) -> None:
        half, whole = (kept(prune(nets.artifact(), (), None, p, pattern="1:4")) for p in (0.5, 1.0))
        changed = [name for name in whole if not whole[name].all()]
        assert all((half[name] >= whole[name]).all() for name in changed)
        assert fraction({name: half[name] for name in changed}) == pytest.approx(1 - 0.75 * 0.875, abs=1e-3)

    def test_no_layer_fits(self) -> None:
        assert prune(nets.artifact(), pattern="3:7").to_bytes() == nets.artifact().to_bytes()


class TestLater:
    def test_masks_survive_everything(self, tmp_path: pytest.TempPathFactory) -> None:
        done = prune(nets.artifact(), sparsity=0.7)
        zeros = {name: ~mask for name, mask in kept(done).items()}
        for change in (recovered, quantize, recovered, lambda a: quantize(a, bits=4), recovered, encode):
            done = change(done)
            assert all((weights(done.model)[name][zeros[name]] == 0).all() for name in zeros)
            done.save(tmp_path / "student.safetensors")
            done = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
        assert done.encoded
        assert nets.loss(done.model) < nets.loss(prune(nets.artifact(), sparsity=0.7).model)

    def test_training_moves_what_is_kept(self) -> None:
        done = prune(nets.artifact())
        after = recovered(done)
        assert all(isinstance(form, Sparse) for form in after.stored.values())
        for name, mask in kept(done).items():
            assert torch.equal(weights(after.model)[name] != 0, mask)
            assert not torch.equal(weights(after.model)[name], weights(done.model)[name])

    def test_codes_stay_codes(self) -> None:
        done = prune(quantize(nets.artifact(), bits=4), sparsity=0.6)
        assert all(isinstance(form, Pruned) for form in done.stored.values())
        assert 1 - fraction(kept(done)) >= 0.6 - 1e-3
        assert all(form.nbytes() == form.inner.nbytes() for form in done.stored.values())  # the mask is free

    def test_codes_that_cannot_be_zero_are_refused(self) -> None:
        artifact = store(nets.artifact(), {"head.weight": Ones(codes=torch.zeros(10, 12, dtype=torch.int8))})
        with pytest.raises(RecipeError, match=r"'head\.weight' is stored as 'Ones', .* put 'prune' before its hook"):
            prune(artifact, layers=["head"])

    def test_pruned_again_it_loses_more_and_gets_nothing_back(self) -> None:
        once = prune(nets.artifact(), sparsity=0.6)
        for again in (prune(once, sparsity=0.8), prune(quantize(once), sparsity=0.8)):
            assert all((mask <= kept(once)[name]).all() for name, mask in kept(again).items())
            assert 1 - fraction(kept(again)) >= 0.8 - 1e-3
        less = prune(once, sparsity=0.3)
        assert all(torch.equal(mask, kept(once)[name]) for name, mask in kept(less).items())

    def test_factors_are_weights_too(self, caplog: pytest.LogCaptureFixture) -> None:
        factors = svd(nets.artifact(), nets.anything, nets.calibration(), max_error=0.6, layers=["kernel"])
        factors = tensor_train(factors, nets.anything, nets.calibration(), max_error=0.6, layers=["head"])
        with caplog.at_level(logging.DEBUG, "distill.compress"):
            done = recovered(prune(factors, sparsity=0.5, layers=["kernel.*", "head"]))
        assert {"kernel.0.weight", "kernel.1.weight", "head.core0", "head.core1"} == set(done.stored)
        assert fraction({name: mask for name, mask in kept(done).items() if name in done.stored}) == pytest.approx(
            0.5, abs=1e-3
        )
        mask = kept(done)["head.core0"]
        of = mask.numel()
        line = f"prune: head.core0: kept {mask.sum()} of {of}, sparsity {1 - int(mask.sum()) / of:.3f}"
        assert line in caplog.messages
        assert caplog.messages[-1].startswith("prune: 4 layers, kept ")
        assert caplog.messages[-1].endswith("weights, sparsity 0.500")

    def test_low_rank_comes_first(self) -> None:
        done = prune(nets.artifact(), layers=["kernel"])
        with pytest.raises(RecipeError, match="'svd' would fill the zeros of 'kernel': put it before 'prune'"):
            svd(done, nets.anything, nets.calibration())
        assert svd(done, nets.anything, nets.calibration(), max_error=0.6, layers=["stem", "head"]).plans

    def test_encode_packs_masks_without_codes(self, tmp_path: pytest.TempPathFactory) -> None:
        before = prune(nets.artifact(), sparsity=0.9)
        done = encode(before)
        size = done.save(tmp_path / "student.safetensors")
        loaded = open_artifact(tmp_path / "student.safetensors", allow=nets.ALLOW)
        assert size < 0.8 * before.nbytes()
        assert loaded.encoded
        assert loaded.to_bytes() == done.to_bytes()
        assert torch.equal(loaded.model(nets.images()), before.model(nets.images()))
        with pytest.raises(RecipeError, match="cannot be fine-tuned"):
            trainable(loaded)

    def test_zeros_are_cheap_once_encoded(self) -> None:
        dense, sparse = (encode(quantize(a)).nbytes() for a in (nets.artifact(), prune(nets.artifact(), sparsity=0.9)))
        assert sparse < 0.5 * dense


class TestSplice:
    def artifact(self) -> Artifact:
        linear = nn.Linear(4, 1, bias=False)
        linear.weight.data = torch.tensor([[3.0, 0.1, 0.2, 2.0]])
        return Artifact(linear)

    def toward(self, artifact: Artifact, target: Tensor, steps: int) -> Artifact:
        model = trainable(artifact).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(steps):
            optimizer.zero_grad()
            (model(torch.eye(4)).T - target).square().sum().backward()
            optimizer.step()
        return finalize(artifact, model.eval())

    def test_it_brings_back_what_is_needed(self) -> None:
        target = torch.tensor([[3.0, 9.0, 0.0, 0.0]])
        fixed = self.toward(prune(self.artifact(), sparsity=0.5), target, 40)
        torch.testing.assert_close(fixed.model.weight.detach(), torch.tensor([[3.0, 0, 0, 0]]), atol=1e-5, rtol=0)
        spliced = self.toward(prune(self.artifact(), sparsity=0.5, splice=True), target, 40)
        torch.testing.assert_close(spliced.model.weight.detach(), target, atol=1e-5, rtol=0)
        assert isinstance(spliced.stored["weight"], Spliced)

    def test_it_keeps_sparsity_and_pattern(self) -> None:
        artifact = nets.artifact()
        artifact.model.kernel.weight.data *= 0.02  # so that a few steps outgrow what was kept
        before = prune(artifact, pattern="2:4", splice=True, layers=["kernel"])
        after = recovered(before, steps=10)
        assert not torch.equal(kept(after)["kernel.weight"], kept(before)["kernel.weight"])
        assert kept(after)["kernel.weight"].unflatten(1, (-1, 4)).sum(2).eq(2).all()

    def test_codes_are_not_spliced(self) -> None:
        with pytest.raises(
            RecipeError, match=r"'stem\.weight' is stored as codes: put 'prune' first, or splice: false"
        ):
            prune(quantize(nets.artifact()), splice=True)
        settled = quantize(prune(nets.artifact(), splice=True))
        assert all(isinstance(form, Pruned) for form in settled.stored.values())


def recovered(artifact: Artifact, steps: int = 5) -> Artifact:
    return finalize(artifact, nets.train(trainable(artifact), steps))
