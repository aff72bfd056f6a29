"""What ships: a network, how each of its tensors is stored, and what was done to it."""

from distill.artifact.artifact import Artifact, Plan, store
from distill.artifact.reading import load, open_artifact, read_artifact, read_tensor
from distill.artifact.step import Step

__all__ = ["Artifact", "Plan", "Step", "load", "open_artifact", "read_artifact", "read_tensor", "store"]
