"""Faults: random damage and kills, each of which has to end in the right result or in an error that names it."""
