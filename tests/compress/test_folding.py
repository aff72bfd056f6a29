"""Batch norms are folded into layers only where that changes nothing; a network that no trace explains is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from distill.artifact import Artifact
from distill.batch import Batch
from distill.compress._folding import fold
from distill.compress.pruning.prune_channels import prune_channels
from distill.compress.quantization.int8 import int8
from distill.compress.structure.deep_rebirth import deep_rebirth
from distill.errors import RecipeError
from tests.compress import nets
from tests.compress.quantization.networks import never


class NormAndActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Wrapped(nn.Module):
    """A convolution and a norm with a wrapper or a class of somebody else's."""

    def __init__(
        self,
        wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer,
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.head = wrap(nn.Conv2d(1, 8, 3)), norm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class Tokens(nn.Module):
    """A norm of tokens, not of the features that the linear layer makes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, features), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x[:, 0])).mean(1)


class Written(Wrapped):
    """What the convolution makes is also written into another map."""

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        both = torch.cat([self.norm(made).relu(), x.new_zeros(made.shape)], 1)
        both[:, 8:] = made
        return self.head(both.unflatten(1, (2, 8)).sum(1).mean((2, 3)))


class Queried(Wrapped):
    """The convolution also runs on values that do not depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.conv(self.query).mean((2, 3))[:, :4]


class Borrowed(Wrapped):
    """Somebody else reads the convolution's weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(x, self.conv.weight).mean((2, 3))[:, :4]


class Remembering(Wrapped):
    """Somebody else reads the convolution's weight, from a list that is no attribute of the layer."""

    def forward(self, x: Tensor) -> Tensor:
        weight = next(self.conv.parameters())
        return super().forward(x) + F.conv2d(x, weight).mean((2, 3))[:, :4]


NETWORKS = {
    "a norm with its activation": lambda: Wrapped(norm=NormAndActivation),
    "weight_norm": lambda: Wrapped(weight_norm),
    "spectral_norm": lambda: Wrapped(spectral_norm),
    "as many tokens as features": lambda: Tokens(8),
    "fewer tokens": lambda: Tokens(12),
    "written": Written,
    "queried": Queried,
    "borrowed": Borrowed,
}


def artifact(make: Callable[[], nn.Module]) -> Artifact:
    """A network with batch statistics that say something."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for _ in range(5):
            model(3 * torch.randn(8, 1, 8, 8) + 1)
    return Artifact(model.eval())


def batches() -> list[Batch]:
    return [Batch(torch.randn(4, 1, 8, 8), torch.arange(4), torch.arange(4))]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old wrappers are deprecated, and still met
@pytest.mark.parametrize("name", NETWORKS)
def test_what_cannot_be_folded_stays(name: str) -> None:
    before, data = artifact(NETWORKS[name]), batches()
    with torch.no_grad():
        expected = before.model(data[0].inputs)
        after = deep_rebirth(before, data, exact=True).model(data[0].inputs)
        plain = fold(before, None, [data[0].inputs], even_out=True).model(data[0].inputs)
        rounded = int8(before, data, never, bits=8).model(data[0].inputs)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)
    assert (rounded - expected).norm() < 0.1 * expected.norm()


def test_what_no_trace_shows_is_refused() -> None:
    before, data = artifact(Remembering), batches()
    with pytest.raises(RecipeError, match="cannot tell what Remembering does with its layers"):
        deep_rebirth(before, data, exact=True)
    with pytest.raises(RecipeError, match="cannot tell what Remembering does with its layers"):
        int8(before, data, never)
    assert int8(before, data, never, layers=["head"]).stored.keys() == {"head.weight"}


def narrowed(before: Artifact) -> nn.Module:
    settings = {"ratio": 0.5, "saliency": "magnitude", "round_to": 1, "min_channels": 1}
    return prune_channels(before, batches(), nets.task_loss, **settings).model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
def test_channels_of_a_computed_weight_stay(wrap: Callable[[nn.Module], nn.Module]) -> None:
    before = artifact(lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), wrap(nn.Conv2d(6, 2, 1))))
    after = narrowed(before)
    assert [layer.out_channels for layer in after if isinstance(layer, nn.Conv2d)] == [4, 6, 2]


class Cast(nn.Sequential):
    """Goes on in float32, whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        return self[1](self[0](x).float()).mean((2, 3))


def test_networks_that_cast_to_float32_are_compared_in_it() -> None:
    before = artifact(lambda: Cast(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 3)))
    after = narrowed(before)
    assert after[0].out_channels == after[1].in_channels == 4
