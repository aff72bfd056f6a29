"""Which weights of a pruned network are left, and a network trained on."""

from torch import Tensor, nn

from distill.artifact import Artifact
from distill.artifact.straight_through import finalize, trainable
from tests.compress import nets


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}


def kept(artifact: Artifact) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in weights(artifact.model).items()}


def fraction(masks: dict[str, Tensor]) -> float:
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


def recovered(artifact: Artifact, steps: int = 5) -> Artifact:
    return finalize(artifact, nets.train(trainable(artifact), steps))
