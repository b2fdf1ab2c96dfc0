"""Processes that compute portions of one batch, played by threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from fieldloom.portion import Portion, computing


def compute_in_portions(rows, compute):
    """What ``compute(rank, portion)`` gives for each list of rows, all of them at the same time."""
    count, whole = len(rows), sum(map(len, rows))
    meeting, held = threading.Barrier(count, timeout=300), [None] * count

    def work(rank):
        def add_up(x):
            held[rank] = x.clone()
            meeting.wait()
            total = sum(held)
            meeting.wait()
            x.copy_(total)

        portion = Portion(torch.tensor(rows[rank]), whole, rank, count, add_up)
        try:
            with computing(portion):
                return compute(rank, portion)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, range(count)))
