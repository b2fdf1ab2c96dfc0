"""Pieces of work on threads: their order, what fails, what is stopped, and forked processes."""

import os
import threading

import pytest
import torch

import fieldloom
from fieldloom.fields import Siren
from fieldloom.threads import SHARED, make_pool, one_thread, run_pieces, share_out, threads_by_work


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order_and_each_thread_computes_alone():
    meet = threading.Barrier(2)  # holds only where two threads are there at the same time

    def piece(number):
        if number < 2:
            meet.wait(timeout=300)
        return number, torch.get_num_threads(), threading.current_thread().name

    found = run_pieces([lambda i=i: piece(i) for i in range(9)])
    assert [number for number, *_ in found] == list(range(9))
    assert {count for _, count, _ in found} == {1}
    assert len({name for *_, name in found}) == 2
    assert torch.get_num_threads() == 2


def test_small_pieces_stay_in_the_calling_thread_and_are_computed_in_the_same_way():
    here = threading.current_thread().name
    piece = lambda: (torch.get_num_threads(), threading.current_thread().name)
    assert run_pieces([piece] * 3, apart=False) == [(1, here)] * 3
    assert torch.get_num_threads() == 2


def test_values_do_not_depend_on_threads():
    a = torch.randn(512, 300, generator=torch.Generator().manual_seed(0))
    pieces = [lambda: (a @ a.mT).sin()] * 4
    with one_thread():
        (alone, *_) = run_pieces(pieces)
    for found in run_pieces(pieces):
        assert torch.equal(found, alone)


def test_modes_of_the_caller_are_those_of_every_thread():
    """Autocast, too: else a product on a pool's thread would meet factors of two types."""
    a = torch.rand(4, 4)
    pieces = [lambda: a @ a] * 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run_pieces(pieces)
    assert {x.dtype for x in cast} == {torch.bfloat16}
    assert {x.dtype for x in run_pieces(pieces)} == {torch.float32}
    with torch.inference_mode():
        assert all(x.is_inference() for x in run_pieces(pieces))
    assert not any(x.is_inference() for x in run_pieces(pieces))


def test_work_is_shared_out_evenly():
    sizes = {"a": 1, "b": 5, "c": 4, "d": 3}
    assert share_out(sizes, 2) == [["b", "a"], ["c", "d"]]
    assert share_out(sizes, 9) == [["b"], ["c"], ["d"], ["a"]]


def test_small_steps_take_one_thread_and_large_ones_all():
    def threads(numbers, cpu=True):
        with threads_by_work(numbers, cpu):
            return torch.get_num_threads()

    assert [threads(SHARED), threads(SHARED + 1), threads(1, cpu=False)] == [1, 2, 2]
    assert torch.get_num_threads() == 2


def test_a_small_run_trains_and_encodes_on_one_thread(tmp_path, monkeypatch):
    seen = []
    forward = Siren.__call__

    def watch(self, coords, weights):
        seen.append(torch.get_num_threads())
        return forward(self, coords, weights)

    monkeypatch.setattr(Siren, "__call__", watch)
    small = {"train": {"field": {"steps": 1, "batch": 4}}, "source": {"split": [4, 2]}}
    system = fieldloom.train("mnif:tiny", tmp_path / "run", stage="field", **small)
    assert set(seen) == {1}
    seen.clear()
    system.encode(torch.rand(2, system.modality.channels, *system.modality.shape()))
    assert set(seen) == {1}


def test_a_piece_that_fails_stops_the_rest():
    done = []

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_pieces([fail, fail, *[lambda: done.append(1)] * 100])
    assert len(done) < 100
    assert run_pieces([lambda: 1] * 2) == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    assert run_pieces([lambda: 1] * 4) == [1] * 4
    child = os.fork()
    if child == 0:
        os._exit(0 if run_pieces([lambda: torch.ones(9).sum().item()] * 4) == [9.0] * 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert make_pool(2) is make_pool(2)
