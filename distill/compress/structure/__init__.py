"""Layers merged, regrouped or left out."""
