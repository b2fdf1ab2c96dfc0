"""Verbs as jobs of shards, which any executor computes; ``codes.shards`` is what they share."""
