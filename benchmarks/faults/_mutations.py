"""Damage: of bytes, and of plain data."""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 255, 256, -129, 2**31 - 1, 2**31, 2**40, 2**63, -(2**63), 10**30)
REALS = (0.5, -1.0, 1e308, float("nan"))
STRINGS = ("", "a", "/", "..", "é" * 3, "x" * 1000, "float32", "quantized", "ans", "svd", "resnet110", "\0", "1e9")


def mutated_bytes(data: bytes, random: Random, low: int = 0) -> bytes:
    """With a few changes from position ``low`` on."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        at = random.randrange(low, max(low + 1, len(content)))
        how = random.choice(("flip", "flip", "set", "cut", "drop", "insert", "repeat"))
        if how in ("flip", "set") and at < len(content):
            content[at] = content[at] ^ (1 << random.randrange(8)) if how == "flip" else random.randrange(256)
        elif how == "cut":
            del content[at:]
        elif how == "drop":
            del content[at : at + random.randrange(1, 64)]
        elif how == "insert":
            content[at:at] = random.randbytes(random.randrange(1, 64))
        else:
            content[at:at] = content[max(low, at - random.randrange(1, 64)) : at]
    return bytes(content)


def mutated(data: Any, random: Random) -> Any:
    """A copy of plain data with a few other values, keys or lengths."""
    root = [copy.deepcopy(data)]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        parent, key = random.choice(list(_places(root)))
        old = parent[key]
        how = random.random()
        if how < 0.12 and parent is not root:
            del parent[key]
        elif how < 0.2 and isinstance(old, list):
            parent[key] = random.choice((old * 0, old * 2, old * 3, old[: len(old) // 2]))
        elif how < 0.25 and isinstance(parent, dict):
            parent[_string(str(key), random)] = parent.pop(key)
        else:
            parent[key] = _other(old, random)
    return root[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from _places(value[key])


def _other(old: Any, random: Random) -> Any:
    """Near the old value, or of another type."""
    if random.random() < 0.25:
        some = (random.choice(NUMBERS), random.choice(REALS), random.choice(STRINGS))
        return random.choice((None, True, [], {}, [[]], {"form": "quantized"}, *some))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return random.choice((old + 1, old - 1, -old, 2 * old, random.choice(NUMBERS)))
    if isinstance(old, str):
        return _string(old, random)
    return random.choice((None, [old], {"x": old}, old))


def _string(old: str, random: Random) -> str:
    at = random.randrange(len(old) + 1)
    inserted = old[:at] + chr(random.randrange(32, 300)) + old[at:]
    return random.choice((random.choice(STRINGS), old[:at], inserted, old.upper()))
