"""Lossless codecs of integer arrays: one file each."""

from distill.registry import codec

__all__ = ["codec"]
