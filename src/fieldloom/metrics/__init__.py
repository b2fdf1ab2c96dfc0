"""Distances and statistics of tensors: no part of a system enters."""
