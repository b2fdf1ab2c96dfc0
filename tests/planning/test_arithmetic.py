"""The arithmetic of plans, against slow and obvious code."""

import heapq

import pytest

from fieldloom.errors import InputError
from fieldloom.planning import arithmetic
from fieldloom.planning.arithmetic import Span


@pytest.mark.parametrize("text", ["1e6", "1_000_000", "1000000", 1e6, 10**6, "1.0e6", " 1e6 "])
def test_a_million_is_written_in_many_ways(text):
    assert arithmetic.parse_count("signals", text) == 1_000_000


@pytest.mark.parametrize(
    "text",
    ["1.5", 1.5, "0", "-1e6", "1e16", "nan", "inf", "1M", "", "one", True, None, [1], "1e400"],
)
def test_what_is_no_number_of_things_is_refused(text):
    with pytest.raises(InputError, match="whole number from 1 to 1e15, as 1e6 or 1_000_000"):
        arithmetic.parse_count("signals", text)


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("shard", [1, 3, 10, 100])
def test_the_busiest_worker_is_the_last_of_a_simulation(workers, shard):
    for signals in (1, 2, 9, 10, 11, 63, 64, 65, 100, 101):
        free = [0] * workers  # when each worker is free again
        sizes = [min(shard, signals - first) for first in range(0, signals, shard)]
        for size in sizes:
            heapq.heapreplace(free, free[0] + size)
        assert arithmetic.busiest_worker(signals, shard, workers) == max(free)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8, 40])
def test_processes_share_a_batch_as_training_does(processes):
    for batch in (1, 7, 16, 32):
        for micro in (1, 3, 16, 32):
            owned = [0] * processes
            for number, first in enumerate(range(0, batch, micro)):
                owned[number % processes] += len(range(batch)[first : first + micro])
            assert arithmetic.busiest_process(batch, micro, processes) == max(owned)


def test_the_micro_batch_of_several_is_that_of_a_new_run():
    from fieldloom import recipe
    from fieldloom.settings import parse_settings
    from fieldloom.sharing import divide_batches

    for batch, micro in ((32, 32), (32, 4), (5, 5)):
        layer = {"train": {"field": {"batch": batch, "micro": micro}}}
        own = recipe.merge(recipe.load("mnif:tiny"), layer)
        for processes in (2, 3, 64):
            there = parse_settings(divide_batches(own, processes)).field_stage.micro
            assert arithmetic.divide_micro(batch, micro, processes) == there


def test_a_ring_sends_what_the_formula_says():
    """Each of N processes sends a part of N parts to the next one, 2 (N - 1) times."""
    for processes in (2, 4, 8):
        gradients, sent = 1 << 20, 0
        for _ in range(2 * (processes - 1)):
            sent += gradients // processes
        assert arithmetic.sent_a_step(gradients, processes) == sent
    assert arithmetic.sent_a_step(1 << 20, 1) == 0
    assert arithmetic.break_even(125_000_000, 1.0) == pytest.approx(1.0)  # 125 MB/s is 1 Gbit/s


def test_the_first_process_holds_its_rows_and_gathers_all():
    rows, copies = 12, 3  # a row, and two moments
    for processes in (1, 2, 3, 4):
        owned = len(range(rows)[0::processes])
        gathered = copies * rows if processes > 1 else 0
        held = arithmetic.table_held(rows, copies, processes)
        assert held == (copies + 1) * owned + gathered


def test_larger_shards_leave_few_files_and_smaller_ones_give_all_workers_some():
    for signals in (10**6, 10**7, 123_456_789, 10**9):
        size = arithmetic.larger_shard(signals, 2)
        assert 2 * -(-signals // size) <= arithmetic.FILES
    for signals, workers in ((10, 64), (100, 64), (1000, 64), (10**6, 64)):
        size = arithmetic.smaller_shard(signals, workers)
        assert -(-signals // size) >= min(workers, signals)


def test_spans():
    span = Span.of([3.0, 1.0, 2.0])
    assert span == (1.0, 2.0, 3.0)
    assert span.times(2) == (2.0, 4.0, 6.0)
    assert span.plus(span) == span.times(2)
