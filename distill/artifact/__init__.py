"""What ships: a network, how each of its tensors is stored, and what was done to it."""

from distill.artifact.artifact import Artifact, Plan, load, open_artifact, store
from distill.artifact.step import Step

__all__ = ["Artifact", "Plan", "Step", "load", "open_artifact", "store"]
