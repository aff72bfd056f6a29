"""Factorisations: layers as products of smaller ones."""
