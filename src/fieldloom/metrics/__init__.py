"""Distances and statistics of tensors; they depend on no other part of the package."""
