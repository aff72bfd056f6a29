"""Storage formats in NumPy: each function turns the settings and the parts of one into values. See docs/artifact.md.

Sizes are checked before memory is asked for: what decodes to more than ``limit`` bytes is refused.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from distill.codecs import at_most, chain
from distill.container.raw import Raw
from distill.runtime.lookups import Clustered, Codebooks, Shared

Settings = Mapping[str, Any]
Parts = Mapping[str, np.ndarray]
Weight = np.ndarray | Shared
FORMS: dict[str, Callable[[Settings, Parts, int], Weight]] = {}
MASK = 2**32 - 1


def decode(settings: Settings | None, parts: Mapping[str, Raw], limit: int) -> Weight:
    """The values of one tensor; one of a format that shares values stays coded, as a `Shared`.

    Raises:
        ValueError: no format of that name, or parts that are no such format.
    """
    arrays = {name: raw.array() for name, raw in parts.items()}
    return arrays[""] if settings is None else _decoded(settings, arrays, limit)


def plain(weight: Weight) -> np.ndarray:
    """The values themselves."""
    return weight.decode() if isinstance(weight, Shared) else weight


def _decoded(settings: Settings, parts: Parts, limit: int) -> Weight:
    name = settings.get("form")
    if name not in FORMS:
        raise ValueError(f"the runtime does not know the storage format '{name}'")
    return FORMS[str(name)](settings, parts, limit)


Decoder = Callable[[Settings, Parts, int], Weight]


def _form(*names: str) -> Callable[[Decoder], Decoder]:
    def register(function: Decoder) -> Decoder:
        FORMS.update(dict.fromkeys(names, function))
        return function

    return register


@_form("quantized", "peaked")
def _quantized(settings: Settings, parts: Parts, limit: int) -> Weight:
    codes, axis, group = parts["codes"], settings.get("axis"), settings.get("group")
    scales = _each(parts["scales"].astype(np.float32), codes.shape, axis, group)
    values = codes.astype(np.float32)
    if "zeros" in parts:
        zeros = _each(parts["zeros"].astype(np.float32), codes.shape, axis, group)
        values = (values + zeros) % 256 - zeros
    return values * scales


@_form("powers_of_two")
def _powers_of_two(settings: Settings, parts: Parts, limit: int) -> Weight:
    codes = parts["codes"].astype(np.int32)
    tops = _each(parts["tops"].astype(np.int32), codes.shape, settings.get("axis"), None)
    return np.ldexp(np.sign(codes).astype(np.float32), np.maximum(tops + 1 - np.abs(codes), -126))


@_form("fixed_point")
def _fixed_point(settings: Settings, parts: Parts, limit: int) -> Weight:
    return parts["codes"].astype(np.float32) * np.float32(2.0 ** -settings["fraction"])


@_form("clustered")
def _clustered(settings: Settings, parts: Parts, limit: int) -> Weight:
    values = parts["values"].astype(np.float32)
    table = np.concatenate([np.zeros(1, np.float32), values]) if settings["zero"] else values
    if "scale" in parts:
        table = table * parts["scale"].astype(np.float32)
    if parts["codes"].size and parts["codes"].max() >= len(table):
        raise ValueError("a code beyond the table of values")
    return Clustered(parts["codes"], table)


@_form("hashed")
def _hashed(settings: Settings, parts: Parts, limit: int) -> Weight:
    """Chen et al. arXiv:1504.04788: a hash of each position chooses a value and its sign."""
    shape, values = _shape(settings, limit), parts["values"].astype(np.float32)
    start = _mixed(np.array([settings["seed"] & MASK], np.uint64))
    bits = _mixed(np.arange(prod(shape), dtype=np.uint64) ^ start)
    signs = 1 - 2 * (bits & np.uint64(1)).astype(np.float32)
    return (values[(bits >> np.uint64(1)).astype(np.int64) % len(values)] * signs).reshape(shape)


@_form("product_quantized")
def _product_quantized(settings: Settings, parts: Parts, limit: int) -> Weight:
    shape, axis = _shape(settings, limit), settings["axis"]
    codes, books = parts["codes"], parts["codebooks"].astype(np.float32)
    slices = shape[axis : axis + 1] + shape[:axis] + shape[axis + 1 :]
    weight = Codebooks(codes.reshape(len(codes), slices[0], -1), books, slices)
    return weight if axis == 0 else np.ascontiguousarray(np.moveaxis(weight.decode(), 0, axis))


@_form("cartesian_quantized")
def _cartesian_quantized(settings: Settings, parts: Parts, limit: int) -> Weight:
    shape = _shape(settings, limit)
    pairs = zip(parts["codebooks"].astype(np.float64), parts["codes"], strict=True)
    rotated = np.concatenate([book[codes] for book, codes in pairs], 1)
    vectors = rotated @ parts["rotation"].astype(np.float64).T
    return _unsliced(vectors.astype(np.float32), shape, settings["axis"])


@_form("sparse")
def _sparse(settings: Settings, parts: Parts, limit: int) -> Weight:
    shape = _shape(settings, limit)
    keep = np.unpackbits(parts["bitmap"], bitorder="little")[: prod(shape)].astype(bool)
    values = np.zeros(prod(shape), np.float32)
    values[keep] = parts["values"]
    return values.reshape(shape)


@_form("spliced", "pruned", "pruned_shared", "restorable")
def _inner(settings: Settings, parts: Parts, limit: int) -> Weight:
    within = {name.removeprefix("inner."): part for name, part in parts.items() if name.startswith("inner.")}
    return _decoded(settings["inner"], within, limit)


@_form("encoded")
def _encoded(settings: Settings, parts: Parts, limit: int) -> Weight:
    if ":" in settings["codec"]:
        raise ValueError(f"codec '{settings['codec']}' is code from outside, which the runtime never runs")
    with at_most(limit):
        codes = chain(*settings["codec"].split()).decode(parts["data"].tobytes())
    return _inner(settings, {**parts, "inner.codes": codes}, limit)


def _shape(settings: Settings, limit: int) -> tuple[int, ...]:
    shape = tuple(settings["shape"])
    if not all(type(length) is int and length >= 0 for length in shape) or 4 * prod(shape) > limit:
        raise ValueError(f"a tensor of shape {shape} is impossible in this file")
    return shape


def _each(of_slices: np.ndarray, shape: tuple[int, ...], axis: int | None, group: int | None) -> np.ndarray:
    """What the slice of each position has, in a shape that spreads to the tensor's."""
    if axis is None:
        return of_slices.reshape([1] * len(shape))
    if group is None:
        return of_slices.reshape([-1 if at == axis else 1 for at in range(len(shape))])
    length = prod(shape[:axis]) * prod(shape[axis + 1 :])
    repeated = np.repeat(of_slices.reshape(shape[axis], -1), group, 1)[:, :length]
    return _unsliced(repeated, shape, axis)


def _unsliced(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Slices along an axis, each one row or several that may stick out at its end, as a tensor."""
    others = shape[:axis] + shape[axis + 1 :]
    values = rows.reshape(shape[axis], -1)[:, : prod(others)]
    return np.ascontiguousarray(np.moveaxis(values.reshape(shape[axis], *others), 0, axis))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """MurmurHash3's finalizer (Appleby, 2011), modulo 2**32."""
    mask = np.uint64(MASK)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = ((numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)) & mask
    return numbers ^ (numbers >> np.uint64(16))
