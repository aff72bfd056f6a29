"""The L1 penalty counts weights, each once, and lets pruned ones rest."""

import pytest
import torch

from distill.artifact import Artifact
from distill.artifact.straight_through import trainable
from distill.compress.pruning.prune import prune
from distill.losses.structure.l1 import L1
from tests.nets import ConvNet

LOGITS = torch.zeros(1, 10)


def test_it_is_the_sum_of_magnitudes_of_the_chosen_layers() -> None:
    torch.manual_seed(0)
    model = ConvNet()
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    assert L1(model)(LOGITS).item() == pytest.approx(sum(p.abs().sum().item() for p in weights.values()))
    assert L1(model, layers=["stage*"])(LOGITS).item() == pytest.approx(
        sum(p.abs().sum().item() for name, p in weights.items() if name.startswith("stage"))
    )


def test_it_moves_weights_towards_zero_but_no_pruned_one() -> None:
    torch.manual_seed(0)
    model = trainable(prune(Artifact(ConvNet()), sparsity=0.5, saliency="magnitude"))
    penalty = L1(model)
    assert list(penalty.parameters()) == []
    penalty(LOGITS).backward()
    chain = model.stage2[0].parametrizations.weight
    assert torch.equal(chain.original.grad, model.stage2[0].weight.sign())
    assert (chain.original.grad == 0).any()


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(
        ValueError, match="l1: no layer matches 'stage4'. There are: stage1.0, stage2.0, stage3.0, head"
    ):
        L1(ConvNet(), layers=["stage4"])
