"""Several processes for one training: those of torchrun or SLURM, or started here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from fieldloom import stopping
from fieldloom.engine import device as devices
from fieldloom.engine.ranks import ALONE, PartnerLost, Place, Team, find_place, free_port, joined
from fieldloom.errors import FieldloomError, InputError
from fieldloom.permit import NOTHING, Permit
from fieldloom.sharing import follow

GRACE, AFTER_ERROR = 20.0, 2.0
"""Seconds that a process has to end by itself, and after an error, which it may have to explain."""


@contextmanager
def together(
    processes: int | None = None, device: str = "auto", permit: Permit = NOTHING
) -> Iterator[Team]:
    """A context in which the processes of a training stand together. Only the first one enters it.

    processes: how many this one starts on its machine, itself included; None: those that torchrun
    or srun has started, or this one alone. A process that torchrun or srun has started as another
    than the first follows until the training ends, and then exits.

    Raises InputError for a number below 1 or beside a launcher's, and FieldloomError where a
    process cannot be reached, or ends too early.
    """
    if processes is not None and processes < 1:
        raise InputError(f"processes = {processes}: at least 1.")
    place, where = find_place(), devices.pick(device)
    if place is not None:
        if processes not in (None, place.processes):
            raise InputError(
                f"--processes {processes}: the launcher has started {place.processes} already; "
                "leave the option out."
            )
        devices.claim(where, place.local)
        with joined(place, where) as team:
            if team.rank:
                follow_quietly(team, where, permit)
                raise SystemExit(0)
            yield team
        return
    if processes is None or processes == 1:
        yield ALONE
        return
    place = Place(0, processes, 0, "127.0.0.1", free_port())
    others = start_others(place, device, permit)
    grace = AFTER_ERROR
    try:
        with devices.divided(processes), joined(place, where, lambda: check_alive(others)) as team:
            yield team
        grace = GRACE
    finally:
        end(others, grace)


def start_others(place: Place, device: str, permit: Permit) -> list[subprocess.Popen[bytes]]:
    """Start the processes that follow this one on its machine.

    They have a session of their own: Ctrl-C reaches the first process alone, which ends them. Their
    standard input ends where this process does, however that comes (``end_with_input``).
    """
    told = json.dumps([device, list(permit.trust), permit.network, permit.large])
    command = [sys.executable, "-m", "fieldloom.launching", told]
    threads = {"OMP_NUM_THREADS": str(devices.threads_of_part(place.processes))}
    return [
        subprocess.Popen(
            command,
            env=os.environ | threads | place._replace(rank=rank, local=rank).environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank in range(1, place.processes)
    ]


def check_alive(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raise FieldloomError where a process has ended already."""
    for rank, other in enumerate(others, 1):
        if other.poll() is not None:
            raise FieldloomError(
                f"process {rank} of {len(others) + 1} ended before training began (status "
                f"{other.returncode})."
            )


def end(others: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """Wait so many seconds for processes, which are told to leave; kill those that do not."""
    until = time.monotonic() + grace
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.wait(max(0.0, until - time.monotonic()))
        if other.poll() is None:
            other.kill()
            other.wait()
        if other.stdin is not None:
            other.stdin.close()


def follow_quietly(team: Team, device: torch.device, permit: Permit = NOTHING) -> None:
    """Follow the first process; where that ends too early, it says why, and this one just exits.

    A signal that stops all processes is the first one's: it finishes the step with the others.
    Raises FieldloomError, naming this process and its machine, where something is wrong here.
    """
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        follow(team, device, permit)
    except PartnerLost:
        raise SystemExit(1) from None
    except FieldloomError as error:
        kind = InputError if isinstance(error, InputError) else FieldloomError
        where = f"process {team.rank} of {team.count}, on {socket.gethostname()}"
        raise kind(f"{where}: {error}") from None


def end_with_input() -> None:
    """End this process as soon as its standard input ends, that is, with the one that started it.

    What it computes then nobody waits for, and a shard of codes takes minutes.
    """

    def wait() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Follow the process that started this one."""
    device, trust, network, large = json.loads(sys.argv[1])
    end_with_input()
    place = find_place()
    assert place is not None
    where = devices.pick(device)
    devices.claim(where, place.local)
    try:
        with joined(place, where) as team:
            follow_quietly(team, where, Permit(tuple(trust), network, large))
    except FieldloomError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
