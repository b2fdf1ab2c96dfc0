"""The stages of a plan, and where they do not scale, from measurements by hand."""

from dataclasses import replace

import pytest

from fieldloom.planning.arithmetic import Span
from fieldloom.planning.limits import find_limits
from fieldloom.planning.measuring import Measured, Step
from fieldloom.planning.stages import (
    Request,
    Sizes,
    bulk_stage,
    fitting_stage,
    join_stage,
    priced,
    training_stage,
)
from fieldloom.settings import Stage

SECOND = Measured("a piece", 8, Span(0.9, 1.0, 1.2), 3, True, 1000)
CODE = 32
"""Bytes of a code."""

SIZES = Sizes(
    array=400,
    read=100,
    counted=True,
    streamed=True,
    held=100,
    code=CODE,
    file=CODE + 12.5,
    decoded=100,
    weights=4000,
    trial=10,
)
ASKED = Request(signals=1000, workers=4, processes=1, price=None, shard=100)
STEP = Step(
    "train field",
    SECOND,
    Stage(steps=36, batch=16, ema=0.9),
    micro=4,
    cut=True,
    moments=2,
    gradients=4000,
    table=0,
    state=16000,
)


def test_training_divides_its_batch():
    hours = {}
    for processes in (1, 2, 3, 16, 64):
        stage = training_stage(replace(ASKED, processes=processes), SIZES, STEP)
        hours[processes] = stage.hours.middle
        assert stage.read == 36 * 16 * 100
    # 36 steps of one second for a signal; micro-batches of 4 on 3 processes leave 8 to one
    assert hours == pytest.approx({1: 0.16, 2: 0.08, 3: 0.08, 16: 0.01, 64: 0.01})
    alone = training_stage(replace(ASKED, processes=8), SIZES, replace(STEP, cut=False, micro=16))
    assert alone.hours.middle == pytest.approx(0.16)
    assert alone.sent == 0


def test_a_table_of_codes_grows_with_the_signals():
    """Rows are owned by processes, and a step exchanges those of its batch alone."""
    step = replace(STEP, table=10 * CODE, gradients=4000 + 10 * CODE)
    few, many = (
        training_stage(replace(ASKED, signals=n, processes=2), SIZES, step) for n in (1000, 5000)
    )
    assert few.sent == many.sent == 4000 + 2 * 16 * CODE
    more = 4000 * CODE
    assert many.disk - few.disk == 4 * more  # a row, two moments, its average
    assert many.memory - few.memory == 4 * more + 5 * more // 2  # gathered; with a gradient, half


def test_data_that_are_no_stream_are_held_by_every_worker():
    work = {"work": "", "reads": True}
    stream = bulk_stage(ASKED, SIZES, "encode", SECOND, **work)
    whole = bulk_stage(ASKED, replace(SIZES, streamed=False), "encode", SECOND, **work)
    assert stream.read == 1000 * 100
    assert whole.read == 4 * stream.read
    assert whole.memory - stream.memory == 990 * 100
    assert stream.hours.middle == pytest.approx(300 / 3600)  # 10 shards of 100 on 4 workers


def test_fits_of_single_signals_and_one_writer():
    fits = fitting_stage(ASKED, SIZES, replace(STEP, stage=Stage(steps=36, batch=1)))
    assert fits.hours.middle == pytest.approx(250 * 36 / 3600)
    assert fits.disk == 1000 * 4000
    joined = priced(join_stage(ASKED, SIZES, SECOND, SECOND), 3.0)
    assert joined.workers == 1
    assert joined.hours == pytest.approx((1.8 / 3.6, 2 / 3.6, 2.4 / 3.6))
    assert joined.cost == pytest.approx(joined.hours.times(3.0))


def limits(asked, sizes=SIZES, step=STEP):
    stages = [training_stage(asked, sizes, step)]
    return "\n".join(find_limits(asked, sizes, [step], stages, shards=True))


def test_what_does_not_scale_is_named():
    assert limits(replace(ASKED, signals=500)) == ""
    for asked, said in {
        replace(ASKED, processes=32): "a batch of 16 is shared by 16 of 32 processes.",
        ASKED: "36 steps see 576 of the signals; train.field.steps=63 sees each once.",
        replace(ASKED, workers=64): "encode: 10 shards of 100 for 64 workers: --shard 3 gives",
        replace(ASKED, signals=10**8): "2,000,000 files in one folder, which many file systems",
        replace(ASKED, signals=10**9): "the list of signals alone is 8 GB in each worker",
        replace(ASKED, signals=10**13): "are written in all; here",
    }.items():
        assert said in limits(asked, step=replace(STEP, table=10 * CODE))
    held = limits(replace(ASKED, signals=10**12), replace(SIZES, streamed=False))
    assert "every worker reads and holds all data (100 TB)" in held
    assert "of memory for each worker, and this machine has" in held
    slow = limits(replace(ASKED, processes=2), step=replace(STEP, gradients=10**12))
    assert "each process sends 1 TB a step; below 1e+03 Gbit/s that takes longer" in slow
    alone = limits(replace(ASKED, processes=2), step=replace(STEP, cut=False))
    assert "so that one process of 2 works" in alone
