"""Kim et al.: SplitNet: Learning to Semantically Split Deep Networks for Parameter Reduction and Model Parallelization.
ICML (2017), section 3, normalised as in the authors' code (dalgu90/splitnet-wrn).

A stage with this loss learns which classes and which features belong together; what it leaves is a tree of networks
without weights between the branches, for the next stage to train. Departs from the paper: the groups that are cut apart
are of one size, or of two that differ by one, so that a split convolution is an ordinary one in groups.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.artifact import Plan
from distill.losses import loss
from distill.losses.structure._assignment import assigned_to, group_sizes, imbalance, overlap
from distill.losses.structure._split_layers import Split, apply, copy_within_groups, masked
from distill.models.channels.groups import positions
from distill.models.channels.narrow import fill
from distill.models.channels.propagation import CONSTANT
from distill.models.channels.sizes import sizes_of_copy, traceable
from distill.models.copied import copied
from distill.registry.ranges import NonNegative


@loss("splitnet")
class SplitNet(nn.Module):
    """Weights between groups, overlap of groups and their imbalance; each is 1 where nothing is decided yet.

    Keep the scales of batch normalisation out of a stage's ``train``, as the paper does: they could undo what it asks.

    Args:
        student_model: the network that is being trained.
        groups: globs of layers to split -> into how many branches. Layers that share channels agree, or one's number
            divides the other's: a tree. Without any, a wide ResNet's last stage and classifier in two.
        split: weight of the norms of connections that leave their group.
        disjoint: weight of the overlap between groups.
        balance: weight of the squared sizes of groups.

    Raises:
        ValueError: layers that cannot be split so.
    """

    def __init__(
        self,
        student_model: nn.Module,
        *,
        groups: dict[str, int] | None = None,
        split: NonNegative = 1.0,
        disjoint: NonNegative = 1.0,
        balance: NonNegative = 10.0,
    ) -> None:
        super().__init__()
        self.network = (student_model,)  # in a tuple: its parameters are not this loss's
        self.groups = chosen(student_model, groups or {"layer3.*": 2, "fc": 2})
        self.weights = (split, disjoint, balance)
        self.families: list[list[int]] = []
        """Channels, by id, that are assigned together; ``logits`` has what to, in the same order."""
        self.sides: dict[str, tuple[int, int]] = {}
        """Layer -> which family it reads and which it makes."""
        self.logits = nn.ParameterList()
        self.deviations: dict[str, float] = {}

    def forward(
        self, student: Float[Tensor, "batch classes"], inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, ""]:
        if not self.sides:
            self._find_channels(inputs[:1])
        assigned = [logits.softmax(dim=0) for logits in self.logits]
        split = torch.stack([self._leaving(path, assigned) for path in self.sides])
        shares = split.detach() / split.detach().sum().clamp(min=1e-12)  # layers count by how far they have to go
        split_weight, disjoint, balance = self.weights
        overlaps = torch.stack([overlap(one) for one in assigned]).mean()
        sizes = torch.stack([imbalance(one) for one in assigned]).mean()
        return split_weight * (shares * split).sum() + disjoint * overlaps + balance * sizes

    def members(self) -> dict[str, tuple[list[int], list[int]]]:
        """The group of every channel that a layer reads, and of every channel that it makes."""
        decided = [assigned_to(logits.detach().softmax(dim=0)) for logits in self.logits]
        found = {}
        for path, sides in self.sides.items():
            finer = [len(self.logits[side]) // self.groups[path] for side in sides]
            both = [[group // fine for group in decided[side]] for side, fine in zip(sides, finer, strict=True)]
            found[path] = (both[0], both[1])
        return found

    @torch.no_grad()
    def deploy(self, student: nn.Module, path: str) -> tuple[nn.Module, Plan]:
        """The tree: channels of a group lie side by side, and no weight leads out of a group.

        Args:
            student: stays as it is.
            path: of its tap.

        Raises:
            ValueError: the student moves its channels in a way that cannot be traced.
        """
        members, plan = self.members(), {}
        image = self.image.to(next(student.parameters()))
        expected = masked(student, members).eval()(image)
        tree = self._sorted(student)
        for layer, (reads, makes) in members.items():
            plan[layer] = {"inputs": group_sizes(reads), "outputs": group_sizes(makes)}
            old = tree.get_submodule(layer)
            apply(tree, {layer: plan[layer]})
            classes = makes if self.sides[layer][1] in self.fixed else sorted(makes)
            copy_within_groups(tree.get_submodule(layer), old, torch.tensor(classes))
        if (tree.eval()(image) - expected).abs().max() > 1e-3 * expected.abs().max():
            raise ValueError(f"splitnet cannot tell how {type(student).__name__} moves its channels")
        return tree, Plan("splitnet", plan)

    def _find_channels(self, image: Tensor) -> None:
        """Find the channels that the layers share."""
        sizes = sizes_of_copy(self.network[0], image)
        self.image, self.whole = sizes.image, sizes.whole
        finest: list[int] = []
        for path, groups in self.groups.items():
            if path not in self.whole.ends or CONSTANT in self.whole.ends[path].inputs:
                raise ValueError(f"splitnet cannot split '{path}': its channels cannot be traced, or are the image's")
            both = []
            for ids in self.whole.ends[path][:2]:
                if ids not in self.families:
                    self.families.append(ids)
                    finest.append(1)
                both.append(self.families.index(ids))
                finest[both[-1]] = max(finest[both[-1]], groups)
            self.sides[path] = (both[0], both[1])
            layer = self.network[0].get_submodule(path)
            assert isinstance(layer, Split)
            self.deviations[path] = max(float(layer.weight.detach().std()), 1e-12)
        self.fixed = {n for n, ids in enumerate(self.families) if self.whole.pinned.intersection(ids)}
        self._check(finest)
        for ids, groups in zip(self.families, finest, strict=True):
            self.logits.append(nn.Parameter(0.01 * torch.randn(groups, len(ids))))

    def _check(self, finest: list[int]) -> None:
        together = [i for ids in self.families for i in ids]
        if len(set(together)) < len(together):
            raise ValueError("splitnet splits layers that read or make the same channels, all of them and each once")
        for path, groups in self.groups.items():
            reads, makes = self.sides[path]
            for side in (reads, makes):
                if finest[side] % groups:
                    raise ValueError(f"splitnet: '{path}' in {groups} groups shares channels with {finest[side]}")
            classes = makes in self.fixed and isinstance(self.network[0].get_submodule(path), nn.Linear)
            for side in (reads,) if classes else (reads, makes):
                count = len(self.families[side])
                if side in self.fixed or count % finest[side]:
                    raise ValueError(f"splitnet cannot divide {count} channels of '{path}' by {finest[side]}")

    def _leaving(self, path: str, assigned: list[Tensor]) -> Tensor:
        """Norms of a layer's weights that lead from one group to another; 1 for random weights and no groups."""
        layer = self.network[0].get_submodule(path)
        assert isinstance(layer, Split)
        groups = self.groups[path]
        reads, makes = (
            assigned[side].unflatten(0, (groups, -1)).sum(1)
            for side in self.sides[path]  # branches of a tree merge
        )
        squares = layer.weight.square().flatten(2).mean(2) if layer.weight.dim() > 2 else layer.weight.square()
        rows = (1 - reads) * (makes.square() @ squares).clamp(min=1e-20).sqrt()
        columns = (1 - makes) * (reads.square() @ squares.T).clamp(min=1e-20).sqrt()
        outputs, inputs = squares.shape
        total = rows.sum() / (inputs * outputs**0.5) + columns.sum() / (outputs * inputs**0.5)
        return total * groups / (2 * (groups - 1) * self.deviations[path])

    def _sorted(self, student: nn.Module) -> nn.Module:
        """The same network, its channels sorted by group; classes stay where they are."""
        moved: dict[int, int] = {}
        for side, ids in enumerate(self.families):
            if side not in self.fixed:
                group = assigned_to(self.logits[side].softmax(dim=0))
                moved |= zip(ids, (ids[n] for n in sorted(range(len(ids)), key=group.__getitem__)), strict=True)
        tree = copied(student)
        for path, ends in self.whole.ends.items():
            both = (positions([moved.get(i, i) for i in ids], ids) for ids in (ends.inputs, ends.outputs))
            fill(tree.get_submodule(path), student.get_submodule(path), *map(torch.tensor, both))
        return tree


def chosen(model: nn.Module, groups: Mapping[str, int]) -> dict[str, int]:
    """Layers to split, into how many groups.

    Raises:
        ValueError: a glob matches none, or a number is below 2.
    """
    fit = [path for path, m in traceable(model)[0].items() if isinstance(m, Split) and getattr(m, "groups", 1) == 1]
    found: dict[str, int] = {}
    for pattern, count in groups.items():
        matching = [path for path in fit if fnmatchcase(path, pattern)]
        if not matching or count < 2:
            raise ValueError(f"splitnet: '{pattern}' in {count} groups: no such layer of {', '.join(fit)}, or below 2")
        found |= dict.fromkeys(matching, count)
    return found
