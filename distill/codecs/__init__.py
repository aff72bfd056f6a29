"""Lossless codecs of integer arrays: one file each."""

from distill.registry import Registry

codec = Registry("codec", package=__name__)
