"""Several stages as one codec."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.codecs import _transform
from distill.codecs._transform import Coder, Transform
from distill.errors import RecipeError
from distill.registry import codec


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
        RecipeError: there is no such codec, or it has no such setting, or there is no stage, or a class from outside
            is no codec.
    """
    if not stages:
        raise RecipeError("a codec has at least one stage")
    parsed = [codec.parse(text) for text in stages]
    return Chain([_stage(name, settings) for name, settings in parsed])


def _stage(name: str, settings: Mapping[str, Any]) -> Any:
    try:
        stage = codec.find(name)(**settings)
    except TypeError as error:  # the class may be anybody's
        raise RecipeError(f"codec '{name}' cannot be made of its settings: {error}") from error
    if not isinstance(stage, Transform) and not (hasattr(stage, "encode") and hasattr(stage, "decode")):
        raise RecipeError(f"codec '{name}' has no encode and decode")
    return stage
