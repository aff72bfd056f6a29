"""Gordon et al.: MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks. arXiv:1711.06798,
section 3 and equations 4 to 7.

A stage with this loss is one round of the paper's algorithm: channels whose cost outweighs their use are driven to
zero, they go, and all that is left is widened by the largest factor that the budget allows. The next stage trains the
result, or begins another round. Departs from the paper: the widened network goes on from what was learned, where the
paper begins anew, and the value is relative to the whole network's cost, so that weights compare between networks.
Where a shuffle binds channels to each other, living ones may go beside dead ones, and there may be no wider network.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.artifact import Plan
from distill.losses import loss
from distill.models.channels.groups import Family, Widths
from distill.models.channels.narrow import Channelwise, Transposed, costs_of, narrowed, rebuilt
from distill.models.channels.propagation import CONSTANT, Channels
from distill.models.channels.sizes import Budget, Sizes, choose, sizes_of_copy, traceable
from distill.models.channels.wider import widened, widest
from distill.registry import surgery
from distill.registry.ranges import Count, Positive


@loss("morphnet")
class MorphNet(nn.Module):
    """What the network's living channels cost, as far as their scales can reduce it: 2 for a network of scales 1.

    A channel's scale is that of its batch normalisation, the largest of them where several layers share the channel,
    and the root mean square of its filter where it has none.

    Args:
        student_model: the network that is being trained.
        cost: what is scarce: multiply-accumulates, or weights.
        budget: what the network may cost afterwards: a part of what it does now, or a number above 1.
        threshold: a channel with a scale up to this is dead.
        round_to: layers keep a multiple of so many channels.

    Raises:
        ValueError: a setting is out of range, or the network has no channels that could go.
    """

    def __init__(
        self,
        student_model: nn.Module,
        *,
        cost: Literal["macs", "params"] = "macs",
        budget: Positive = 1.0,
        threshold: Positive = 0.01,
        round_to: Count = 8,
    ) -> None:
        super().__init__()
        if not budget > 0 or not threshold > 0 or round_to < 1:
            raise ValueError(
                f"morphnet needs budget and threshold above 0 and round_to of 1 or more, "
                f"not {budget}, {threshold} and {round_to}"
            )
        self.network = (student_model,)  # in a tuple: its parameters are not this loss's
        self.settings = (cost, budget, threshold, round_to)
        self.prices: Prices | None = None

    def forward(
        self, student: Float[Tensor, "batch classes"], inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, ""]:
        if self.prices is None:
            self.prices = Prices(sizes_of_copy(self.network[0], inputs[:1]), self.settings[0])
        return self.prices.regulariser(self.network[0], self.settings[2])

    def deploy(self, student: nn.Module, path: str) -> tuple[nn.Module, Plan]:
        """The student without dead channels, and as much wider as the budget allows; it computes what that one does.

        Args:
            student: stays as it is.
            path: of its tap.

        Raises:
            RecipeError: the budget cannot be met.
        """
        assert self.prices is not None, "a stage begins with a try of its losses"
        device = next(student.parameters()).device
        sizes = sizes_of_copy(student, self.prices.image)
        strengths = self.prices.strengths(sizes.model)
        of, budget, threshold, round_to = self.settings
        limit = budget * sizes.cost(sizes.whole)[of] if budget <= 1 else budget
        removable = dict(zip(self.prices.ids, strengths.tolist()))
        removable = {i: s for i, s in removable.items() if i not in self.prices.fixed_ids}
        widths = Widths(sizes.trace, sizes.whole, removable, round_to, round_to)
        channels = widths.fit([_level(family, removable, threshold) for family in widths.families])[1]
        if sizes.cost(channels)[of] > limit:
            channels = choose(widths, sizes, Budget(of, budget), "global")
        narrow = narrowed(sizes.model, sizes.plan(channels), widths.kept(channels))
        left = Sizes(narrow, self.prices.image, traceable(narrow)[0])
        wider = widest(left, widths.free, lambda some: left.cost(some)[of] <= limit, round_to)
        return widened(narrow, left, wider).to(device), Plan("morphnet", sizes.plan(wider))


@surgery("morphnet")
def apply(model: nn.Module, layers: dict[str, dict[str, Any]]) -> nn.Module:
    """Give layers so many channels."""
    return rebuilt(model, layers)


def _level(family: Family, strengths: dict[int, float], threshold: float) -> int:
    """The narrowest that has room for all living channels."""
    alive = [sum(strengths[i] > threshold for i in atom) for atom in family.atoms]
    roomy = [all(size >= n for size, n in zip(sizes, alive, strict=True)) for sizes in family.levels]
    return max(level for level, room in enumerate(roomy) if room)


class Prices:
    """What channels cost: ``unit * inputs * outputs`` of every layer, of those that are alive.

    Args:
        sizes: of the network.
        of: multiply-accumulates or weights; biases and normalisation are free.

    Raises:
        ValueError: no channel may go.
    """

    def __init__(self, sizes: Sizes, of: Literal["macs", "params"]) -> None:
        whole, self.image = sizes.whole, sizes.image
        self.sources = _sources(sizes.model, whole)
        self.ids = sorted({CONSTANT, *whole.members()})
        column = {i: n for n, i in enumerate(self.ids)}
        scaled = {i for ids in self.sources.values() for i in ids}
        self.fixed_ids = frozenset(i for i in self.ids if i in whole.pinned | {CONSTANT} or i not in scaled)
        if len(self.fixed_ids) == len(self.ids):
            raise ValueError(f"no channel of {type(sizes.model).__name__} may go: {', '.join(whole.unknown)}")
        self.fixed = torch.tensor([i in self.fixed_ids for i in self.ids])
        self.index = torch.tensor([column[i] for ids in self.sources.values() for i in ids])
        layers = {path: ends for path, ends in whole.ends.items() if ends.outputs}
        self.reads, self.makes = torch.zeros(2, len(layers), len(self.ids))
        self.unit = torch.zeros(len(layers))
        for row, (path, ends) in enumerate(layers.items()):
            groups = max(1, ends.groups)
            weights = costs_of(sizes.model.get_submodule(path), groups, 1)[0]
            self.unit[row] = weights / groups * (ends.positions if of == "macs" else 1)
            for i in ends.inputs if ends.groups else [CONSTANT]:  # a depthwise filter reads one channel
                self.reads[row, column[i]] += 1
            for i in ends.outputs:
                self.makes[row, column[i]] += 1
        self.whole = float((self.unit * self.reads.sum(1) * self.makes.sum(1)).sum())

    def strengths(self, model: nn.Module) -> Tensor:
        """The scale of every channel, in the order of ``ids``."""
        values = torch.cat([scales(model.get_submodule(path)) for path in self.sources])
        self._to(values.device)
        return values.new_zeros(len(self.ids)).scatter_reduce(0, self.index, values, "amax", include_self=False)

    def regulariser(self, model: nn.Module, threshold: float) -> Tensor:
        """Equation 7 in the paper, relative: its gradient at a scale is what the channel costs."""
        strengths = self.strengths(model)
        shrinkable = strengths.masked_fill(self.fixed, 0.0)
        inputs, outputs = self._alive(strengths, threshold)
        costs = inputs * (self.makes * shrinkable).sum(1) + outputs * (self.reads * shrinkable).sum(1)
        return (self.unit * costs).sum() / self.whole

    def cost(self, model: nn.Module, threshold: float) -> float:
        """Of what is alive."""
        strengths = self.strengths(model)
        inputs, outputs = self._alive(strengths, threshold)
        return float((self.unit * inputs * outputs).sum())

    def _alive(self, strengths: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """How many inputs and outputs of every layer are."""
        alive = ((strengths > threshold) | self.fixed).to(strengths.dtype)
        return (self.reads * alive).sum(1), (self.makes * alive).sum(1)

    def _to(self, device: torch.device) -> None:
        for name in ("fixed", "index", "reads", "makes", "unit"):
            setattr(self, name, getattr(self, name).to(device))


def _sources(model: nn.Module, whole: Channels) -> dict[str, list[int]]:
    """The layers that tell how strong channels are: batch norms and, of channels without any, those that make them."""
    norms = {
        path: ends.inputs
        for path, ends in whole.ends.items()
        if isinstance(norm := model.get_submodule(path), Channelwise) and norm.affine
    }
    normalised = {i for ids in norms.values() for i in ids}
    makers = {
        path: ends.outputs
        for path, ends in whole.ends.items()
        if ends.groups and ends.outputs and normalised.isdisjoint(ends.outputs)
    }
    return norms | makers


def scales(layer: nn.Module) -> Tensor:
    """Of each of its channels."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, Channelwise):
        return weight.abs()
    rows = (weight.transpose(0, 1) if isinstance(layer, Transposed) else weight).flatten(1)
    return torch.linalg.vector_norm(rows, dim=1) / rows.shape[1] ** 0.5
