"""Formats that a phone or a server runs: one file each."""

from distill.registry import Registry

exporter = Registry("export format", package=__name__, offers={"artifact", "folder", "samples"})
