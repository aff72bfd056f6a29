"""Several stages as one codec."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np


from distill.codecs import _transform
from distill.codecs._transform import Coder, Transform
from distill.errors import RecipeError
from distill.registry import codec, did_you_mean

STAGE = re.compile(r"([\w.:]+)(?:\((.*)\))?")


class Chain:
    """What one stage makes of integers is given to the next.

    A transform's streams are each coded by the stages after it, or packed in as few bits as their range allows if there
    are none. The bytes of a coder that is not the last are integers of 0 to 255 for the next.
    """

    def __init__(self, stages: Sequence[Any]) -> None:
        self.stages = tuple(stages)

    def encode(self, codes: np.ndarray) -> bytes:
        first, rest = self.stages[0], self.stages[1:]
        if not rest:
            return first.encode(codes)
        if isinstance(first, Transform):
            return _transform.encode(first, codes, Chain(rest))
        return Chain(rest).encode(np.frombuffer(first.encode(codes), np.uint8))

    def decode(self, data: bytes) -> np.ndarray:
        first, rest = self.stages[0], self.stages[1:]
        if not rest:
            return first.decode(data)
        if isinstance(first, Transform):
            return _transform.decode(first, data, Chain(rest))
        return first.decode(Chain(rest).decode(data).astype(np.uint8).tobytes())


def chain(*stages: str) -> Coder:
    """The codec of these stages, in the order of encoding.

    Args:
        stages: names of `codec`, perhaps with settings: ``"csc(index_bits=8)"``.

    Raises:
        RecipeError: there is no such codec, or it has no such setting, or there is no stage.
    """
    if not stages:
        raise RecipeError("a codec has at least one stage")
    return Chain([_stage(text) for text in stages])


def _stage(text: str) -> Any:
    match = STAGE.fullmatch(text.strip())
    if not match:
        raise RecipeError(f"'{text}' is no stage of a codec: write a name, or name(setting=value)")
    name = match[1]
    kinds = {setting.name: setting.hint for setting in codec.signature(name).settings}
    values: dict[str, Any] = {}
    for part in (match[2] or "").split(",") if match[2] else ():
        key, _, value = (side.strip() for side in part.partition("="))
        if key not in kinds:
            raise RecipeError(f"codec '{name}' has no setting {did_you_mean(key, kinds)}")
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise RecipeError(f"codec '{name}': {key} is of type {kinds[key].__name__}, not '{value}'") from None
    return codec.find(name)(**values)
