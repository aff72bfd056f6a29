"""How many weights go, layer by layer and in patterns."""

import logging
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.compress.low_rank.tensor_train import tensor_train
from distill.compress.pruning.prune import prune
from distill.errors import RecipeError
from tests.compress import nets
from tests.compress.pruning.masks import fraction, kept


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
