"""What is pruned stays away: through training, other hooks and files, unless it is spliced."""

import logging

import pytest
import torch
from torch import Tensor, nn

from distill.artifact import Artifact, open_artifact, store
from distill.artifact.sparse import Pruned, Sparse, Spliced
from distill.artifact.straight_through import finalize, trainable
from distill.compress.encode import encode
from distill.compress.low_rank.svd import svd
from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.pruning.prune import prune
from distill.compress.quantization.quantize import quantize
from distill.errors import RecipeError
from tests.artifact.test_sparse import Ones
from tests.compress import nets
from tests.compress.pruning.masks import fraction, kept, recovered, weights


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
