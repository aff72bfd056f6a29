"""Weights set to zero, channels removed."""
