"""Costs of untrained recipes beside the published ones."""

from fieldloom.evaluation.costs import cost_row


def test_a_published_number_of_another_system_stands_beside_none():
    """``differs`` of ``gasp:shapenet32``: its learned parameters are of the system for images."""
    row = cost_row("gasp:shapenet32", timed=False)
    assert row["learnable"]["published"] is None
    assert row["learnable"]["ours"] > 0
    assert cost_row("mnif:celebahq64-S", timed=False)["learnable"]["published"] is not None
