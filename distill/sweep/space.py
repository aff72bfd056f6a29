"""The parameters of a W&B sweep file as Optuna's distributions.

Names and defaults are those of https://docs.wandb.ai/guides/sweeps/sweep-config-keys; a distribution that Optuna does
not have is refused by name.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from distill.errors import RecipeError
from distill.registry import did_you_mean

DIGITS = 12
"""After the point, of numbers that are multiples: 3 * 0.3 is a little less than 0.9."""


def leaves(parameters: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every entry with its path; W&B nests them under ``parameters`` again."""
    where = ".".join(("parameters", *place))
    if not isinstance(parameters, dict) or not parameters:
        raise RecipeError(f"at {where}: {parameters!r} stands where a mapping from settings to values is expected")
    for key, spec in parameters.items():
        inner = (*place, str(key))
        if not isinstance(spec, dict):
            raise RecipeError(f"at {where}.{key}: {spec!r} says no range; write {{value: {spec!r}}}")
        if set(spec) == {"parameters"}:
            yield from leaves(spec["parameters"], inner)
        else:
            yield inner, spec


def distribution(spec: Mapping[str, Any], where: str) -> BaseDistribution | None:
    """What one entry under ``parameters`` ranges over; None if it is a constant."""
    kind = spec.get("distribution") or _inferred(spec)
    if kind not in DISTRIBUTIONS:
        raise RecipeError(f"at {where}: local sweeps do not know distribution {did_you_mean(str(kind), DISTRIBUTIONS)}")
    keys, make = DISTRIBUTIONS[kind]
    mapping(spec, (*keys, "distribution"), where)
    if missing := [key for key in keys if key not in spec]:
        raise RecipeError(f"at {where}: '{kind}' needs {' and '.join(keys)}; '{missing[0]}' is missing")
    if {"min", "max"} <= set(keys):
        _range(kind, spec, where)
    try:
        return make(**{key: spec[key] for key in keys if key != "value"})
    except (ValueError, TypeError, OverflowError) as error:
        raise RecipeError(f"at {where}: {error}") from None


def _inferred(spec: Mapping[str, Any]) -> str:
    """W&B's rule for what a parameter without ``distribution`` is."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    whole = isinstance(spec.get("min"), int) and isinstance(spec.get("max"), int)
    return "int_uniform" if whole else "uniform"


def _range(kind: str, spec: Mapping[str, Any], where: str) -> None:
    for key in {"min", "max", "q"} & set(spec):
        value = spec[key]
        if isinstance(value, bool) or not isinstance(value, int if kind == "int_uniform" else (int, float)):
            hint = "; YAML wants a point in it, as in 1.0e-4" if isinstance(value, str) else ""
            raise RecipeError(f"at {where}.{key}: {value!r} is not a {'whole ' * (kind == 'int_uniform')}number{hint}")
    if not spec["min"] < spec["max"]:
        raise RecipeError(f"at {where}: min {spec['min']} is not below max {spec['max']}")
    if kind == "log_uniform_values" and spec["min"] <= 0:
        raise RecipeError(f"at {where}.min: {spec['min']} has no logarithm; '{kind}' is for numbers above 0")


def _categorical(values: Any) -> BaseDistribution:
    if not isinstance(values, list) or not values:
        raise ValueError(f"values is {values!r}, but it is a list of at least one value")
    # A storage keeps scalars; what else there is reaches the recipe as text anyway.
    return CategoricalDistribution([v if isinstance(v, (int, float, str)) or v is None else str(v) for v in values])


def _multiples(*, min: float, max: float, q: float) -> BaseDistribution:
    """Multiples of q, as W&B makes them; here those beyond the bounds are left out."""
    low, high = (math.ceil(round(min / q, DIGITS)), math.floor(round(max / q, DIGITS))) if q > 0 else (1, 0)
    if high < low:
        raise ValueError(f"no multiple of q = {q} lies between {min} and {max}")
    if isinstance(q, int):
        return IntDistribution(low * q, high * q, step=q)
    return FloatDistribution(round(low * q, DIGITS), round(high * q, DIGITS), step=q)


DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], Callable[..., BaseDistribution | None]]] = {
    "constant": (("value",), lambda: None),
    "categorical": (("values",), _categorical),
    "int_uniform": (("min", "max"), lambda min, max: IntDistribution(min, max)),
    "uniform": (("min", "max"), lambda min, max: FloatDistribution(min, max)),
    "q_uniform": (("min", "max", "q"), _multiples),
    "log_uniform_values": (("min", "max"), lambda min, max: FloatDistribution(min, max, log=True)),
    # W&B's older form gives the bounds as exponents of e.
    "log_uniform": (("min", "max"), lambda min, max: FloatDistribution(math.exp(min), math.exp(max), log=True)),
}


def mapping(node: Any, valid: Collection[str], where: str) -> Mapping[str, Any]:
    """``node`` if it is a mapping with no other keys than the valid ones."""
    if not isinstance(node, dict):
        raise RecipeError(f"at {where}: {node!r} stands where a mapping is expected; its keys: {', '.join(valid)}")
    if unknown := [key for key in node if key not in valid]:
        raise RecipeError(f"at {where}: unknown key {did_you_mean(str(unknown[0]), valid)}")
    return node


def one_of(value: Any, valid: Collection[str], where: str) -> str:
    """``value`` if it is one of the valid names."""
    if value not in valid:
        raise RecipeError(f"at {where}: unknown {did_you_mean(str(value), valid)}")
    return str(value)


def whole(value: Any, where: str, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RecipeError(f"at {where}: {value!r} is not a whole number from {least} on")
    return value
