"""Data modules: one file each."""

from distill.registry import Registry

data = Registry("data", package=__name__, offers={"seed"})
