"""Points find the matrices of their tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldloom.nn import dispatch as dispatching
from fieldloom.nn.dispatch import Assignment, Groups, dispatch

PROPERTY = settings(max_examples=30, deadline=None, database=None, derandomize=True)


@PROPERTY
@given(st.data())
def test_points_find_their_matrices(data):
    """Segments hold the points of their matrix; all moves are those of one permutation."""
    batch, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    n = batch * count
    tiles = st.one_of(st.none(), st.tuples(st.integers(1, 4), st.booleans()))
    layers: list[Assignment | None] = []
    for chosen_tiles in data.draw(st.lists(tiles, min_size=1, max_size=5)):
        if chosen_tiles is None:
            layers.append(None)
            continue
        many, is_own = chosen_tiles
        seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        layers.append(Assignment(torch.randint(many, (n,), generator=seed), many, own=is_own))
    if there := data.draw(st.booleans()):  # as on an accelerator
        orders = dispatching._dispatch_without_reading(layers, batch, count)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatching, "MIN_ROWS", data.draw(st.sampled_from([0, 1, 128])))
            orders = dispatch(layers, batch, count)
    signal = torch.arange(n) // count
    at = torch.arange(n)  # where the rows that stand here started
    for keys, order in zip(layers, orders, strict=True):
        assert (keys is None) == (order.segments is None)
        assert torch.equal(order.permute(at), order.gather(torch.arange(n)))
        at = order.permute(at)
        assert at.sort().values.tolist() == list(range(n))
        assert torch.equal(order.scatter(at), torch.arange(n))
        if order.contiguous:
            assert torch.equal(signal[at], signal)
        if keys is None:
            continue
        matrix = signal * keys[1] + keys.tile if keys.own else keys.tile
        if there:
            groups = order.segments
            expected = torch.arange(groups.count).repeat_interleave(groups.ends - groups.starts)
            assert torch.equal(matrix[at], expected)
            continue
        starts, ends, _ = zip(*order.segments.bounds, strict=True)
        assert (starts, ends[-1]) == ((0, *ends[:-1]), n)
        for a, b, one in order.segments.bounds:
            assert a < b
            assert (matrix[at[a:b]] == one).all()


@PROPERTY
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 16))
def test_blocks_hold_every_row_once(sizes, rows):
    """Groups may be empty; the number of blocks depends on that of rows and groups alone."""
    ends = torch.tensor(sizes).cumsum(0)
    groups = Groups(None, ends, sum(sizes))
    blocks = groups.blocks(rows)
    assert len(blocks.group) == sum(sizes) // rows + len(sizes)
    assert groups.blocks(rows) is blocks
    held = []
    for group, first, last in zip(*blocks[:3], strict=True):
        assert last == ends[group]
        some = range(int(first), min(int(first) + rows, int(last)))
        assert all(groups.starts[group] <= row < ends[group] for row in some)
        held += some
    assert sorted(held) == list(range(sum(sizes)))
