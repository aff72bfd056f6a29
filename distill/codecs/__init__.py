"""Lossless codecs of integer arrays: one file each, chained by `chain`.

>>> coder = chain("delta", "bitmap", "ans")
>>> coder.decode(coder.encode(codes))  # the same type, shape and values

A *coder* turns integers of any type and shape into bytes: ``encode(codes) -> bytes``, ``decode(data) -> codes``. A
*transform* turns them into other integers that a coder finds easier: see `Transform`.
"""

from distill.codecs._chain import Chain, chain
from distill.codecs._frame import at_most
from distill.codecs._transform import Transform
from distill.registry import codec

__all__ = ["Chain", "Transform", "at_most", "chain", "codec"]
