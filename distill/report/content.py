"""What a report is made from: everything that a run found out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Literal

from distill.artifact.step import Step
from distill.measure.latency import same_speed

TEACHERS = ("teacher", "teachers")
"""How the steps of teachers begin: of the one, or of one of several."""


@dataclass(frozen=True)
class Guess:
    """How well one does without looking at the images: what a network must beat."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """{"test/accuracy": 0.1}: of the most frequent class, or of an untrained network."""
    samples: int = 0
    """Test images that this was measured on."""


@dataclass(frozen=True)
class Report:
    """All that a run found out."""

    recipe: str
    steps: tuple[Step, ...]
    """In the order made; the teacher, if there is one, is what the others are compared with, else the first."""
    monitor: str = "accuracy"
    """The metric that decides, without its split."""
    mode: Literal["max", "min"] = "max"
    """Whether a higher or a lower value of the monitor is better."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Of the metrics; "%" is a fraction of 1, shown in percent."""
    batch_sizes: Sequence[int] = (1, 32)
    """That latency was measured at."""
    quartiles_ms: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """Step -> batch size as "batch1" -> the lower and the upper quartile of its latency."""
    waited: float = 0.0
    """Share of the time that latency was measured for, from 0 to 1, that went to other processes of the machine."""
    beyond: Mapping[str, str] = field(default_factory=dict)
    """What exported files compute beyond their network, by their step: "non-maximum suppression"."""
    coded_bytes: Mapping[str, int] = field(default_factory=dict)
    """Of each exported file that is also offered entropy-coded, by the coded file's name."""
    cached_views: int = 0
    """Augmentations of each image whose teacher outputs are cached; 0 where the teacher is called each time."""
    cacheable: bool = True
    """Whether a cache could hold the teacher's outputs: not where, say, images are blended anew in every step."""
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    """Step -> one row per epoch: {"epoch": 1, "val/accuracy": 0.71, "train/loss": 1.3, ...}."""
    figures: Mapping[str, Sequence[Any] | Mapping[str, float]] = field(default_factory=dict)
    """Matrices, vectors and named numbers of the final network on the test split: {"confusion": [[50, 2], [3, 45]]}."""
    classes: Sequence[str] = ()
    guess: Guess = field(default_factory=Guess)
    predictions: Sequence[str] = ()
    """Test images with the final network's predictions, as data URIs."""
    resolved: str = ""
    """The recipe with all its defaults, as YAML."""
    versions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> Step:
        """The teacher, or the first step."""
        return next((step for step in self.steps if step.step.partition("/")[0] in TEACHERS), self.steps[0])

    @property
    def final(self) -> Step:
        """The network that ships: the last one that is not an export of another."""
        return [step for step in self.steps if not step.step.startswith("export/")][-1]

    @property
    def shipped(self) -> Step:
        """The first exported file, or the final network; the headline has size, speed and quality of this one."""
        return next((step for step in self.steps if step.step.startswith("export/")), self.final)

    @property
    def metrics(self) -> list[str]:
        """Every metric that some step has, without its split, the monitor first."""
        found = [name.partition("/")[2] for step in self.steps for name in step.metrics]
        return list(dict.fromkeys([self.monitor, *found]))

    def unit(self, metric: str) -> str:
        """With a leading blank, or empty."""
        unit = self.units.get(metric, "")
        return f" {unit}" if unit else ""

    def scaled(self, metric: str, value: float) -> float:
        """A metric's value in its unit: a fraction in percent."""
        return 100 * value if self.units.get(metric) == "%" else value

    @property
    def effective(self) -> set[str]:
        """Which of "params" and "macs" some step has fewer of where zeros cost nothing."""
        counts = ("params", "macs")
        return {of for of in counts for step in self.steps if getattr(step, f"effective_{of}") is not None}

    def shared(self, *steps: Step) -> str | None:
        """The monitor's name on the most honest split that all of ``steps`` have: "test/...", else "val/..."."""
        names = (f"{split}/{self.monitor}" for split in ("test", "val"))
        return next((name for name in names if all(name in step.metrics for step in steps)), None)

    def better(self, value: float, other: float) -> bool:
        """Whether a value of the monitor is better than another, in its direction."""
        return value > other if self.mode == "max" else value < other

    def beats_guessing(self, step: Step) -> bool | None:
        """Whether a network is better on the test split than a guess; None if that is not known.

        A fraction of n images has a standard error; two of them are allowed for chance.
        """
        name = f"test/{self.monitor}"
        if name not in self.guess.metrics or name not in step.metrics:
            return None
        value, guess = step.metrics[name], self.guess.metrics[name]
        if self.units.get(self.monitor) == "%" and self.guess.samples and 0 <= guess <= 1:
            chance = 2 * sqrt(guess * (1 - guess) / self.guess.samples)
            guess += chance if self.mode == "max" else -chance
        return self.better(value, guess)

    def same_speed(self, step: Step, other: Step, size: int) -> bool:
        """Whether the quartiles of two latencies overlap, so that their medians tell no difference."""
        name = f"batch{size}"
        first, second = (self.quartiles_ms.get(one.step, {}).get(name) for one in (step, other))
        return first is not None and second is not None and same_speed(first, second)

    def worse_than_baseline(self, step: Step) -> bool:
        """Whether a student that had a teacher is worse than the same network without one."""
        baseline = next((other for other in self.steps if other.step == "baseline"), None)
        if baseline is None or step.step != "student":
            return False
        name = self.shared(step, baseline)
        return name is not None and self.better(baseline.metrics[name], step.metrics[name])
