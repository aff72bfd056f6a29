"""A sweep file in W&B's own format, read so that Optuna can do what a W&B agent does with it.

https://docs.wandb.ai/guides/sweeps/sweep-config-keys. What only W&B's own search can do is refused by name: a file
never means something else here than it means there.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from distill.errors import RecipeError
from distill.sweep.space import DIGITS, distribution, leaves, mapping, one_of, whole

LABELS = ("name", "description", "program", "project", "entity")  # for W&B alone
KEYS = (*LABELS, "method", "metric", "parameters", "early_terminate", "run_cap", "command")
METHODS = ("grid", "random", "bayes")
ARGUMENTS = "${args_no_hyphens}"
SIZES = ("params", "macs", "bytes")

Sample = Mapping[str, Any]


MERGE = "tag:yaml.org,2002:merge"
"""Of the key ``<<``."""


class Unique(yaml.SafeLoader):
    """The parser that W&B uses, so that what it takes for a text is one there too; but no key may stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]
        if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
            raise yaml.constructor.ConstructorError(problem=f"'{twice[0]}' stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class SweepFile:
    """What to try, how, and what to judge it by."""

    path: Path
    recipe: str
    overrides: tuple[str, ...]
    """The fixed ``key=value`` words of ``command``."""
    method: str
    metric: str
    maximize: bool
    space: Mapping[str, BaseDistribution]
    """By dotted name, in the order written."""
    constants: Sample
    nested: Mapping[str, tuple[str, ...]]
    """Where the parameters stand that the file nests."""
    pruner: BasePruner
    run_cap: int | None
    digest: str
    """Names everything above that decides what a trial is and what the next one will be."""

    @property
    def name(self) -> str:
        return self.path.stem

    def words(self, sample: Sample) -> list[str]:
        """``key=value`` words exactly as a W&B agent writes them: nested parameters as one mapping."""
        tree: dict[str, Any] = {}
        for key, value in {**self.constants, **sample}.items():
            *parents, last = self.nested.get(key, (key,))
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        return [f"{key}={value}" for key, value in tree.items()]

    def describe(self, trial: FrozenTrial) -> str:
        """One line about how a trial ended."""
        value = "" if trial.value is None else f" {self.metric} {trial.value:.4f} "
        chosen = "  ".join(f"{key}={short(trial.params[key])}" for key in self.space if key in trial.params)
        return f"trial {trial.number} {trial.state.name.lower()}:{value} {chosen}  {trial.user_attrs.get('error', '')}"

    def grid(self) -> list[Sample]:
        """Every combination, the last parameter running fastest."""
        values = [self._values(key, distribution) for key, distribution in self.space.items()]
        return [dict(zip(self.space, combination, strict=True)) for combination in itertools.product(*values)]

    def extremes(self) -> Iterator[Sample]:
        """A few samples in which every choice and every bound occurs: what the recipe has to accept."""
        ends = {
            key: d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high)  # type: ignore[attr-defined]
            for key, d in self.space.items()
        }
        for i in range(max(map(len, ends.values()), default=1)):
            yield {key: values[i % len(values)] for key, values in ends.items()}

    def _values(self, key: str, distribution: BaseDistribution) -> Sequence[Any]:
        match distribution:
            case CategoricalDistribution():
                return distribution.choices
            case IntDistribution():
                return range(distribution.low, distribution.high + 1, distribution.step)
            case FloatDistribution(step=float(step)):
                steps = round((distribution.high - distribution.low) / step)
                return [round(distribution.low + i * step, DIGITS) for i in range(steps + 1)]
        raise RecipeError(
            f"sweep '{self.path}' at parameters.{key}: a grid needs 'values' or whole numbers, not a continuous range"
        )


def short(value: object) -> str:
    """For tables and lines: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read(path: Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Parse and check a sweep file; ``overrides`` come after those of its ``command``.

    Raises:
        RecipeError: names the file, the key, what is wrong and what would be right.
    """
    try:
        tree = yaml.load(path.read_text(), Unique)
        return _parse(path, mapping(tree, KEYS, "the top"), overrides)
    except OSError as error:
        raise RecipeError(f"cannot read sweep '{path}': {error.strerror}; recipes/sweeps has examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"sweep '{path}' is not YAML: {' '.join(str(error).split())}") from None
    except RecipeError as error:
        raise RecipeError(f"sweep '{path}' {error}") from None


def _parse(path: Path, tree: Mapping[str, Any], overrides: Sequence[str]) -> SweepFile:
    method = one_of(tree.get("method"), METHODS, "method")
    metric = mapping(tree.get("metric"), ("name", "goal"), "metric")
    recipe, fixed = _command(tree.get("command"))
    taken = {word.partition("=")[0].lstrip("+") for word in (*fixed, *overrides)}
    space: dict[str, BaseDistribution] = {}
    constants: dict[str, Any] = {}
    nested: dict[str, tuple[str, ...]] = {}
    for place, spec in leaves(tree.get("parameters"), ()):
        key = ".".join(place)
        if place[0] == "recipe":
            raise RecipeError("at parameters.recipe: a sweep is of one recipe, which command names")
        if key in taken:
            raise RecipeError(f"at parameters.{key}: command or the command line sets it too; keep one of them")
        if len(place) > 1:
            nested[key] = place
        if (ranges := distribution(spec, f"parameters.{key}")) is None:
            constants[key] = spec["value"]
        else:
            space[key] = ranges
    judged = [tree.get(key) for key in ("method", "metric", "parameters", "early_terminate", "command")] + [*overrides]
    return SweepFile(
        path=path,
        recipe=recipe,
        overrides=(*fixed, *overrides),
        method=method,
        metric=_metric(metric.get("name")),
        maximize=one_of(metric.get("goal", "minimize"), ("minimize", "maximize"), "metric.goal") == "maximize",
        space=space,
        constants=constants,
        nested=nested,
        pruner=_pruner(tree["early_terminate"], str(metric.get("name"))) if "early_terminate" in tree else NopPruner(),
        run_cap=whole(tree["run_cap"], "run_cap") if "run_cap" in tree else None,
        digest=hashlib.sha256(json.dumps(judged, default=str).encode()).hexdigest()[:8],
    )


def _command(words: Any) -> tuple[str, tuple[str, ...]]:
    example = f"[python, train.py, recipe=NAME, '{ARGUMENTS}']"
    if not isinstance(words, list) or ARGUMENTS not in words:
        raise RecipeError(f"at command: train.py takes its parameters from '{ARGUMENTS}'; write {example}")
    program = next((i for i, word in enumerate(words) if str(word).endswith((".py", "${program}"))), -1)
    settings = [str(word) for word in words[program + 1 :] if word != ARGUMENTS]
    if wrong := [word for word in settings if not re.match(r"\+?[\w.]+=", word)]:
        raise RecipeError(f"at command: '{wrong[0]}' is not of the form key.path=value")
    recipes = [word.removeprefix("recipe=") for word in settings if word.startswith("recipe=")]
    if len(recipes) != 1:
        raise RecipeError(f"at command: names {len(recipes)} recipes instead of one; write {example}")
    return recipes[0], tuple(word for word in settings if not word.startswith("recipe="))


def _metric(name: Any) -> str:
    if isinstance(name, str) and (name.startswith(("val/", "latency_ms/")) or name in SIZES):
        return name
    raise RecipeError(
        f"at metric.name: '{name}' cannot be optimised; a sweep is judged by val/..., latency_ms/..., "
        f"{', '.join(SIZES)}, never by the test split"
    )


def _pruner(spec: Any, metric: str) -> BasePruner:
    """W&B's ``hyperband`` is one ladder of rungs, each of which the best 1/eta of the runs pass: successive halving."""
    where = "early_terminate"
    spec = mapping(spec, ("type", "min_iter", "max_iter", "s", "eta", "strict"), where)
    one_of(spec.get("type"), ("hyperband",), f"{where}.type")
    eta = whole(spec.get("eta", 3), f"{where}.eta", least=2)
    if spec.get("strict") is False:
        raise RecipeError(f"at {where}.strict: false works under W&B agents only")
    if not metric.startswith("val/"):
        raise RecipeError(f"at {where}: '{metric}' is known only when a run ends; early termination needs val/...")
    if "min_iter" in spec:
        first = whole(spec["min_iter"], f"{where}.min_iter")
    elif {"max_iter", "s"} <= set(spec):
        last, rungs = whole(spec["max_iter"], f"{where}.max_iter"), whole(spec["s"], f"{where}.s")
        first = max(1, last // eta**rungs)
    else:
        raise RecipeError(f"at {where}: needs min_iter, or max_iter and s: the epochs after which runs are compared")
    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=eta)
