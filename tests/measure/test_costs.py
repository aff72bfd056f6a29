"""Dense and effective counts after hooks, against what each hook keeps by its own settings."""

import pytest
import torch
from torch import nn

from distill.artifact import Artifact
from distill.compress.pruning.prune import prune
from distill.compress.sharing.hash_weights import hash_weights
from distill.measure.costs import costs

IMAGES = torch.randn(2, 4, 6, 6)
CONV, LINEAR = 8 * 4 * 9, 10 * 8 * 16
BIASES = 8 + 10
MACS = 16 * CONV + LINEAR
"""The convolution has 16 positions."""


@pytest.fixture
def artifact() -> Artifact:
    torch.manual_seed(0)
    return Artifact(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)).eval())


def test_a_dense_artifact_has_no_other_effective_counts(artifact: Artifact) -> None:
    assert costs(artifact, IMAGES) == {
        "params": CONV + LINEAR + BIASES,
        "macs": MACS,
        "effective_params": None,
        "effective_macs": None,
    }


def test_two_of_four_leave_half_of_weights_and_products(artifact: Artifact) -> None:
    found = costs(prune(artifact, pattern="2:4"), IMAGES)
    assert (found["params"], found["macs"]) == (CONV + LINEAR + BIASES, MACS)
    assert found["effective_params"] == (CONV + LINEAR) // 2 + BIASES
    assert found["effective_macs"] == MACS // 2


def test_hashing_leaves_the_shared_values_and_every_product(artifact: Artifact) -> None:
    found = costs(hash_weights(artifact, ratio=0.25), IMAGES)
    assert found["effective_params"] == (CONV + LINEAR) // 4 + BIASES
    assert found["effective_macs"] is None


def test_a_few_zeros_of_rounding_are_no_pruning(artifact: Artifact) -> None:
    weight = artifact.model[3].weight
    with torch.no_grad():
        weight.flatten()[: CONV // 20] = 0
    assert costs(artifact, IMAGES)["effective_params"] is None
