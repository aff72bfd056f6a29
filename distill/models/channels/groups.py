"""Which widths a network can have, and which of its channels each width keeps.

A network of other widths is the same code run with other sizes. Its channels are matched with those of the whole
network by where they go: two channels that the same layers make and read, in the same groups, can stand for each other.
That holds through any shuffle or split, whatever the sizes do to the order of the channels.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

from distill.models.channels.narrow import Kept
from distill.models.channels.propagation import Channels, Place


@dataclass(frozen=True)
class Family:
    """Channels that can only become fewer together."""

    atoms: tuple[tuple[int, ...], ...]
    """Ids that the same layers make; each of them can take the place of any other."""
    levels: tuple[tuple[int, ...], ...]
    """Sizes that the atoms can have, from all to fewest."""

    @property
    def size(self) -> int:
        return sum(map(len, self.atoms))

    def nearest(self, share: float) -> int:
        """The level that keeps this share of the channels as nearly as possible; of two, the smaller one."""
        return min(range(len(self.levels)), key=lambda level: (abs(self.kept(level) - share), -level))

    def kept(self, level: int) -> float:
        """The share of the channels that a level keeps."""
        return sum(self.levels[level]) / self.size


class Widths:
    """The widths of one network.

    Args:
        trace: the channels of the network if its layers made other numbers of them.
        whole: the channels of the network as it is.
        scores: saliency of the ids that may be removed.
        round_to: sizes of layers are multiples of it, or as they were.
        least: a layer keeps at least so many channels.
    """

    def __init__(
        self,
        trace: Callable[[Mapping[str, int]], Channels],
        whole: Channels,
        scores: Mapping[int, float],
        round_to: int,
        least: int,
    ) -> None:
        self.trace, self.whole, self.scores, self.round_to = trace, whole, scores, round_to
        self.members = whole.members()
        self.alike = _alike(self.members)
        self.families = self._families(least)
        self.free = {path for family in self.families for path in self._makers(family.atoms)}
        self._known: dict[tuple[int, int], bool] = {}

    def fit(self, levels: Sequence[int]) -> tuple[list[int], Channels]:
        """The levels nearest to these, none with fewer channels, at which the network runs and only drops channels."""
        levels = list(levels)
        while True:
            for family in range(len(levels)):
                while self._known.get((family, levels[family])) is False:
                    levels[family] -= 1
            channels, suspects = self._attempt(levels)
            if channels is not None:
                return levels, channels
            for family in [f for f in suspects if not self._possible(f, levels[f])] or suspects:
                levels[family] -= 1

    def kept(self, channels: Channels) -> Kept:
        """The channels that a network of these widths takes over: of those that are alike, the most salient."""
        match: dict[int, int] = {}
        for places, narrow in _alike(channels.members()).items():
            wide = sorted(self.alike[places], key=lambda i: (i in self.scores, -self.scores.get(i, 0.0), i))
            match |= zip(narrow, sorted(wide[: len(narrow)]), strict=True)
        return {
            path: (
                positions([match[i] for i in ends.inputs], self.whole.ends[path].inputs),
                positions([match[i] for i in ends.outputs], self.whole.ends[path].outputs),
            )
            for path, ends in channels.ends.items()
        }

    def _possible(self, family: int, level: int) -> bool:
        """Whether a family can have a level while all others have all of their channels."""
        if (family, level) not in self._known:
            alone = [level if f == family else 0 for f in range(len(self.families))]
            self._known[family, level] = self._attempt(alone)[0] is not None
        return self._known[family, level]

    def _attempt(self, levels: Sequence[int]) -> tuple[Channels | None, list[int]]:
        """The network's channels or, if it cannot have these levels, the families that may be why."""
        changed = [family for family, level in enumerate(levels) if level]
        outputs = self._outputs(levels)
        if not changed:
            return self.whole, []
        if any(size % self.round_to for path, size in outputs.items() if size < len(self.whole.ends[path].outputs)):
            return None, changed
        try:
            channels = self.trace(outputs)
        except Exception:  # whatever a network says that does not run with these sizes
            return None, changed
        narrow = _alike(channels.members())
        wrong = []
        for places in self.alike.keys() | narrow.keys():
            ids = self.alike.get(places, [])
            needed = sum(i not in self.scores for i in ids)
            if not needed <= len(narrow.get(places, [])) <= len(ids):
                wrong.append(places)
        if not wrong:
            return channels, []
        makers = {path for places in wrong for path, role, _ in places if role == "makes"}
        return None, [f for f in changed if makers & self._makers(self.families[f].atoms)] or changed

    def _outputs(self, levels: Sequence[int]) -> dict[str, int]:
        """How many channels layers make at these levels."""
        removed: dict[str, int] = defaultdict(int)
        for family, level in zip(self.families, levels, strict=True):
            for atom, size in zip(family.atoms, family.levels[level], strict=True):
                for path, role, _ in self.members[atom[0]]:
                    removed[path] += len(atom) - size if role == "makes" else 0
        return {path: len(self.whole.ends[path].outputs) - count for path, count in removed.items()}

    def _makers(self, atoms: Iterable[Sequence[int]]) -> set[str]:
        return {path for atom in atoms for path, role, _ in self.members[atom[0]] if role == "makes"}

    def _families(self, least: int) -> list[Family]:
        atoms: dict[frozenset[str], list[int]] = {}
        for i in sorted(self.scores):
            atoms.setdefault(frozenset(self._makers([[i]])), []).append(i)
        families = [[atom] for atom in atoms.values()]
        for tied in self.whole.tied:
            joined = [family for family in families if any(tied & set(atom) for atom in family)]
            families = [family for family in families if family not in joined]
            families += [[atom for family in joined for atom in family]] if joined else []
        return [
            Family(tuple(map(tuple, family)), levels)
            for family in families
            if len(levels := self._levels(family, least)) > 1
        ]

    def _levels(self, atoms: list[list[int]], least: int) -> tuple[tuple[int, ...], ...]:
        """All atoms keep the same share of their channels, as nearly as rounding lets them."""
        options = []
        for atom in atoms:
            step = lcm(self.round_to, *(self.whole.ends[path].groups or 1 for path, _, _ in self.members[atom[0]]))
            times = Counter(path for path, role, _ in self.members[atom[0]] if role == "makes")
            wide = {path: len(self.whole.ends[path].outputs) for path in times}
            fewer = range(len(atom) - 1, least - 1, -1)
            fit = [n for n in fewer if not any((wide[p] - k * (len(atom) - n)) % step for p, k in times.items())]
            options.append([len(atom), *fit])
        leading = max(options, key=len)
        shares = [size / leading[0] for size in leading]
        levels = [tuple(min(sizes, key=lambda n: (abs(n - f * sizes[0]), n)) for sizes in options) for f in shares]
        return tuple(dict.fromkeys(levels))


def contains(wide: Channels, narrow: Channels) -> bool:
    """Whether every channel of one network has a place in the other."""
    room = _alike(wide.members())
    return all(len(ids) <= len(room.get(places, [])) for places, ids in _alike(narrow.members()).items())


def _alike(members: Mapping[int, tuple[Place, ...]]) -> dict[tuple[Place, ...], list[int]]:
    """Ids in order, by where they are."""
    found: dict[tuple[Place, ...], list[int]] = {}
    for i in sorted(members):
        found.setdefault(members[i], []).append(i)
    return found


def positions(ids: Iterable[int], among: Iterable[int]) -> list[int]:
    """Where ids are; one that comes again is where it comes again."""
    where: dict[int, list[int]] = defaultdict(list)
    for position, i in enumerate(among):
        where[i].append(position)
    return [where[i].pop(0) for i in ids]
