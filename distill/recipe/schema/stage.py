"""One entry of ``stages``, its losses, and the training after a hook."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from distill.errors import RecipeError
from distill.recipe.schema.components import Component, NetworkSection
from distill.recipe.schema.cuts import Cuts
from distill.recipe.schema.mixing import Mix
from distill.recipe.schema.optimisation import Optimizer, Schedule
from distill.registry import loss
from distill.registry.ranges import Count, Index, NonNegative, Share

Scaling = Literal["paper", "inverted"]

LAYOUTS = ("channels_first", "channels_last", "tokens")
"""How a feature may be laid out; see `distill.models.layout`."""


@dataclass
class Loss(Component):
    """One distillation term. ``name`` defaults to its key in ``losses``."""

    weight: NonNegative = 1.0
    warmup_epochs: Index = 0
    """The weight rises linearly to its value over this many epochs."""
    student: list[str] = field(default_factory=list)
    """Module paths of the student's taps. Without any, its output."""
    teacher: list[str] = field(default_factory=list)
    """Module paths of the teacher's taps. Without any, its output."""
    taps: Literal["stages"] | None = None
    """``stages``: tap every stage that the two networks name, early to late."""
    layout: dict[str, str] = field(default_factory=dict)
    """``student`` or ``teacher`` -> ``channels_first``, ``channels_last``, or ``tokens``: tokens of square patches are
    arranged as a map, without those that lead. Where it is not written, running the network shows where channels are,
    and tokens stay (batch, tokens, channels)."""

    def __post_init__(self) -> None:
        for role, layout in self.layout.items():
            if role not in ("student", "teacher") or layout not in LAYOUTS:
                raise RecipeError(
                    f"layout is {{{role}: {layout}}}, but gives student or teacher one of: {', '.join(LAYOUTS)}"
                )
        if self.taps and (self.student or self.teacher):
            raise RecipeError("'taps: stages' already names the taps: remove 'student' and 'teacher', or 'taps'")


LARGEST = 1e300
"""Of a number that becomes a float: whole numbers of YAML have no bound."""
LossSection = Annotated[Loss, loss]


@dataclass
class Depth:
    """The section ``stochastic_depth`` of a stage, which may also be written as its ``survival`` alone."""

    survival: float
    """The probability that the last block is there, above 0 and up to 1; earlier ones are there more often."""
    scaling: Scaling = "paper"
    """``paper``: when the stage is over, branches are multiplied by their blocks' probabilities. ``inverted``: they are
    divided by them while it trains, as torchvision does, and kept as they are."""

    def __post_init__(self) -> None:
        if not 0 < self.survival <= 1:
            raise RecipeError(f"stochastic_depth is {self.survival}, but a probability is above 0 and up to 1")


@dataclass
class Stage:
    """One training run over some of the student's parameters."""

    epochs: Count
    task_weight: NonNegative = 1.0
    losses: dict[str, LossSection] = field(default_factory=dict)
    """Distillation terms. Under a hook's ``finetune``, none means those of the last stage."""
    blocks: Cuts | None = None
    """Train block by block: each learns on its own to put out what the teacher puts out at its end."""
    teacher: Any = None
    """Whom to learn from: ``teacher``, one of ``teachers``, or an earlier stage, whose network then teaches. Several,
    as a list or with their weights as a mapping, teach as an ensemble: their logits are averaged, and ``name.path``
    taps one of them. Without any, the recipe's teacher, or all of its ``teachers``."""
    teacher_bn: Literal["eval", "train"] = "eval"
    """``train``: the teacher normalises by each batch, as some papers do; its running statistics never move."""
    student: NetworkSection | None = None
    """Train this network, from its first weights, in place of the recipe's student: an assistant, or an elder self.
    The next stage goes on with the recipe's student, and may learn from this one."""
    peer: NetworkSection | None = None
    """A second student that learns beside the first one, each with the other as its teacher, and is then left."""
    stochastic_depth: Any = None
    """Leave residual blocks out at random while training: the last one is there with this probability, above 0 and up
    to 1, earlier ones more often. No block is left out of the network that the stage leaves. A number, or a section of
    `Depth`: ``{survival: 0.5, scaling: inverted}``."""
    train: list[str] = field(default_factory=lambda: ["*"])
    """Glob patterns of the student parameters to update; the others stay as they are."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights to keep; ``best`` is decided by the task's monitor on the validation split."""
    optimizer: Optimizer | None = None
    """Without one, the recipe's."""
    schedule: Schedule | None = None
    """Without one, the recipe's."""
    mix: Mix | None = None
    """Without one, the recipe's."""
    ema: Share | None = None
    """Without one, the recipe's."""

    def __post_init__(self) -> None:
        self._check_trains()
        if self.peer and self.teacher:
            raise RecipeError("a stage learns from its teacher or from its peer: remove one of them")
        if self.peer and self.blocks:
            raise RecipeError("blocks follow a teacher that has learned already: remove 'peer' or 'blocks'")
        if self.peer and not self.losses:
            raise RecipeError("the peer teaches nothing: give the stage losses, for example kd: {temperature: 1}")
        self.depth()
        self.teachers()

    def depth(self) -> Depth | None:
        """The stage's stochastic depth, however it is written."""
        if self.stochastic_depth is None:
            return None
        written = self.stochastic_depth
        section = written if isinstance(written, dict) else {"survival": written}
        match {"scaling": "paper", **section}:
            case {"survival": bool()}:
                pass
            case {"survival": int() | float() as p, "scaling": "paper" | "inverted" as scaling, **others} if (
                not others and abs(p) < LARGEST
            ):
                return Depth(float(p), scaling)
        raise RecipeError(
            f"stochastic_depth is {self.stochastic_depth!r}, but is a probability, such as 0.5, or a section, such as "
            "{survival: 0.5, scaling: inverted}, where scaling is paper or inverted"
        )

    def teachers(self) -> dict[str, float]:
        """The names of the stage's teachers and their weights; empty if the recipe's teach."""
        named = self.teacher
        match named:
            case None:
                return {}
            case str():
                return {named: 1.0}
            case list() if named and all(isinstance(name, str) for name in named):
                return dict.fromkeys(named, 1.0)
            case dict() if named and all(isinstance(w, int | float) and 0 < w < LARGEST for w in named.values()):
                return {str(name): float(weight) for name, weight in named.items()}
        raise RecipeError(f"teacher is {named!r}, but is a name, a list of names, or names with weights above 0")

    def _check_trains(self) -> None:
        if not self.task_weight and not self.blocks and not any(loss.weight for loss in self.losses.values()):
            raise RecipeError("nothing to train for: task_weight is 0, there are no blocks, and no loss has a weight")


@dataclass
class Finetune(Stage):
    """Recovery training after a hook; without losses of its own it uses those of the last stage."""

    def __post_init__(self) -> None:
        if self.student or self.peer:
            raise RecipeError("fine-tuning trains the student alone: remove 'student' and 'peer'")
        if self.stochastic_depth is not None:
            raise RecipeError("fine-tuning keeps what a hook stored: remove 'stochastic_depth', or put it in a stage")
        super().__post_init__()

    def _check_trains(self) -> None:
        """Without losses and without the task it still trains for what the last stage trained for."""
