"""The one thread: work that no one wants is left, and an error ends no thread."""

import asyncio
import threading

import pytest

from fieldloom.viewer import worker as worker_module
from fieldloom.viewer.refusals import Refused, Unwanted
from fieldloom.viewer.worker import Worker, stop_if_unwanted


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close()


async def gone():
    return True


def test_work_whose_client_has_gone_is_not_done(worker, monkeypatch):
    monkeypatch.setattr("fieldloom.viewer.worker.POLL", 0.01)
    begun, go, done = threading.Event(), threading.Event(), []

    async def ask():
        first = asyncio.create_task(worker.do(lambda: (begun.set(), go.wait(30))))
        await asyncio.to_thread(begun.wait, 30)
        with pytest.raises(Unwanted):
            await worker.do(lambda: done.append(1), gone)
        go.set()
        await first
        return await worker.do(lambda: "next")

    assert asyncio.run(ask()) == "next"
    assert done == []


def test_long_work_is_stopped_within(worker, monkeypatch):
    monkeypatch.setattr("fieldloom.viewer.worker.POLL", 0.01)
    ended = threading.Event()

    def work():
        try:
            while True:
                stop_if_unwanted()
        finally:
            ended.set()

    with pytest.raises(Unwanted):
        asyncio.run(worker.do(work, gone))
    assert ended.wait(30)


def test_an_error_is_the_clients(worker):
    def fail():
        raise Refused(404, "nothing")

    with pytest.raises(Refused):
        asyncio.run(worker.do(fail))
    assert asyncio.run(worker.do(lambda: 3)) == 3


def test_a_closed_worker_refuses_and_its_last_work_is_waited_for_at_the_end(worker, monkeypatch):
    waited, begun, go = [], threading.Event(), threading.Event()
    monkeypatch.setattr(worker_module.atexit, "register", waited.append)
    worker.submit(lambda: (begun.set(), go.wait(30)))
    assert begun.wait(30)
    assert not worker.close(0.05)
    assert waited == [worker.thread.join]
    go.set()
    assert worker.close(30)
    with pytest.raises(Refused) as refused:
        asyncio.run(worker.do(lambda: 3))
    assert refused.value.status == 503
