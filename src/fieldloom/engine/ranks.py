"""The processes that train one run together.

The first process leads: it reads the recipe, writes the run, and says what comes next. The others
follow: they hold the same weights, compute their share of the micro-batches of each step, and write
nothing. A step's gradients are added up once, after its last backward pass. (The hooks of
``DistributedDataParallel`` would not do: CAVIA's inner gradients accumulate nowhere, so that hooks
miss them, and a step has several players and many backward passes.)

What is drawn depends on (seed, step, micro-batch), never on who computes it, so that the number of
processes changes rounding alone.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fieldloom.engine import device as devices
from fieldloom.errors import FieldloomError, InputError, shorten
from fieldloom.portion import Portion

MEETING = timedelta(minutes=5)
"""How long the processes of a job wait for one another when it begins."""

PATIENCE = timedelta(days=7)
"""How long a process waits for another: one that ends is noticed at once, by its connection."""

DTYPES = {str(x): x for x in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.uint8, torch.bool, torch.complex64, torch.complex128,
)}  # fmt: skip
"""The types of tensors that processes send one another."""


class Word(IntEnum):
    """What the first process says next."""

    LEAVE = 0
    STAGE = 1
    STATE = 2
    STEP = 3
    CODES = 4
    WHOLE = 5
    ROWS = 6
    JOIN = 7


class Place(NamedTuple):
    """Which process of a job this one is, as its launcher's environment says.

    processes: how many there are. local: its number on its machine. address, port: where the first
    process listens.
    """

    rank: int
    processes: int
    local: int
    address: str
    port: int

    def environment(self) -> dict[str, str]:
        """The variables that say so, as torchrun sets them."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.processes),
            "LOCAL_RANK": str(self.local),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place in a job of torchrun or of SLURM (srun); None where it is alone.

    Raises InputError where the launcher's variables make no sense.
    """
    found = environment
    if "RANK" in found and "WORLD_SIZE" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    elif "SLURM_PROCID" in found and "SLURM_STEP_NUM_TASKS" in found:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "")
    else:
        return None
    try:
        rank, count, local = (int(found[name]) for name in names[:3])
        if names[3]:
            place = Place(rank, count, local, found[names[3]], int(found[names[4]]))
        else:
            place = Place(rank, count, local, _first_host(found), _port_of_job(found))
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the environment names process {found.get(names[0])} of {found.get(names[1])}, but "
            f"not all of a job ({error}): start it by torchrun, srun, or --processes N."
        ) from None
    if not 0 <= place.rank < place.processes:
        raise InputError(f"process {place.rank} of {place.processes}: numbers begin with 0.")
    return None if place.processes == 1 else place


def _first_host(environment: Mapping[str, str]) -> str:
    """The first host of SLURM's list: ``gpu03`` of ``gpu[03-05,9],big1``."""
    hosts = environment["SLURM_STEP_NODELIST"]
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", hosts)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST = {hosts!r}")
    return match[1] + (match[2] or "")


def _port_of_job(environment: Mapping[str, str]) -> int:
    """A port that all processes of a SLURM step agree on."""
    step = int(environment["SLURM_JOB_ID"]) * 64 + int(environment.get("SLURM_STEP_ID", 0))
    return 20000 + step % 20000


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Team:
    """The processes of a job, as one of them sees it. rank: which; count: how many.

    talk: for words, texts and states; sum: for gradients. Both None: there is one process alone.
    within: whether they are in a step, whose gradients they wait for, and hear no word.
    few: the first so many of them, who add up among themselves.
    """

    rank: int = 0
    count: int = 1
    talk: dist.ProcessGroup | None = None
    sum: dist.ProcessGroup | None = None
    within: bool = False
    few: dict[int, dist.ProcessGroup] = field(default_factory=dict)

    @property
    def leads(self) -> bool:
        """Whether this is the first of several processes."""
        return self.count > 1 and self.rank == 0

    def own(self, micro_step: int) -> bool:
        """Whether a micro-batch of a step is this process's."""
        return micro_step % self.count == self.rank

    def say(self, word: Word, number: int = 0) -> None:
        """Tell the others what comes next; only the first process does."""
        if self.leads:
            self._broadcast(torch.tensor([word, number]))

    def hear(self) -> tuple[Word, int]:
        """What the first process says."""
        word, number = self._broadcast(torch.zeros(2, dtype=torch.int64)).tolist()
        return Word(word), number

    def portion(self, rows: Tensor, whole: int, busy: int, device: torch.device) -> Portion | None:
        """What this process computes of a batch that the first ``busy`` of them compute together.

        None where one alone does. Every process asks for it, also one that has nothing to compute.
        """
        if busy == 1:
            return None
        if busy not in self.few:
            backend = devices.adds_up_by(device)
            with _explained():
                self.few[busy] = dist.new_group(range(busy), backend=backend, timeout=PATIENCE)
        group = self.few[busy]

        def add_up(x: Tensor) -> None:
            with _explained():
                dist.all_reduce(x, group=group)

        return Portion(rows, whole, self.rank, busy, add_up)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, those of one type and device at once.

        Every process gets the same bits.
        """
        if self.count == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for x in tensors:
            kinds.setdefault((x.dtype, x.device), []).append(x)
        for held in kinds.values():
            whole = torch.cat([x.reshape(-1) for x in held])
            with _explained():
                dist.all_reduce(whole, group=self.sum)
            for x, part in zip(held, whole.split([x.numel() for x in held]), strict=True):
                x.copy_(part.view_as(x))

    def share(self, value: Any = None) -> Any:
        """The first process's value, which JSON can say, on every process."""
        if self.count == 1:
            return value
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = self._broadcast(torch.tensor([len(text)]))
        held = torch.zeros(int(size), dtype=torch.uint8)
        if self.rank == 0:
            held = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return json.loads(bytes(self._broadcast(held).numpy()))

    def ask_rows(self, index: Tensor, averaged: bool) -> None:
        """Let the others take part in reading rows of a table (``engine.rows``)."""
        self.say(Word.ROWS, int(averaged))
        self.share(index.tolist())

    def share_tensors(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        keep: Callable[[str, Tensor], Tensor] = lambda name, x: x,
    ) -> dict[str, Tensor]:
        """The first process's tensors on the CPU of every process, by name.

        keep: what another process keeps of a tensor.
        """
        if self.count == 1:
            return dict(tensors or {})
        own = tensors or {}
        told = self.share({name: [str(x.dtype), list(x.shape)] for name, x in own.items()})
        found = {}
        for name, (dtype, shape) in told.items():
            x = own[name].detach().cpu() if self.rank == 0 else torch.empty(0)
            if self.rank:
                x = torch.empty(shape, dtype=DTYPES[dtype])
            x = self._broadcast(x.contiguous())
            found[name] = keep(name, x) if self.rank else x
        return found

    def give(self, rank: int, value: Any, tensors: Mapping[str, Tensor]) -> None:
        """Send one process a value, which JSON can say, and tensors by name."""
        told = {name: [str(x.dtype), list(x.shape)] for name, x in tensors.items()}
        text = torch.frombuffer(bytearray(json.dumps([value, told]).encode()), dtype=torch.uint8)
        with _explained():
            for x in (torch.tensor([len(text)]), text, *tensors.values()):
                dist.send(x.detach().cpu().contiguous(), rank, group=self.talk)

    def take(self, rank: int) -> tuple[Any, dict[str, Tensor]]:
        """What one process ``give``s this one. A thread may wait for it."""

        def receive(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
            x = torch.empty(tuple(shape), dtype=dtype, device="cpu")
            with _explained():
                dist.recv(x, rank, group=self.talk)
            return x

        size = int(receive([1], torch.int64))
        value, told = json.loads(bytes(receive([size], torch.uint8).numpy()))
        return value, {n: receive(shape, DTYPES[dtype]) for n, (dtype, shape) in told.items()}

    def _broadcast(self, x: Tensor) -> Tensor:
        with _explained():
            dist.broadcast(x, 0, group=self.talk)
        return x


ALONE = Team()

_team: ContextVar[Team] = ContextVar("team", default=ALONE)


def current_team() -> Team:
    """The processes that this one is of; itself alone outside of ``joined``."""
    return _team.get()


class PartnerLost(FieldloomError):
    """Another process of the job ended, or cannot be reached."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this training ended before its end, as its own message says; the "
            "last checkpoint is whole, and --resume goes on from it with any number of processes."
        )


@contextmanager
def _explained() -> Iterator[None]:
    """A context in which a process that does not answer is one sentence."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, FieldloomError):
            raise
        raise PartnerLost from error


@contextmanager
def joined(
    place: Place, device: torch.device, check: Callable[[], None] = lambda: None
) -> Iterator[Team]:
    """A context in which this process is one of a job's.

    check: is called while the others are waited for; it raises where one of them has ended.
    Raises FieldloomError where the others cannot be reached.
    """
    if dist.is_initialized():
        raise InputError("this process is in a job of torch.distributed already.")
    try:
        # torchrun serves a store itself, where each of its restarts needs keys of its own
        served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        turn = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        hosts = place.rank == 0 and not served
        tcp = dist.TCPStore(
            place.address, place.port, place.processes, hosts, MEETING, wait_for_workers=False
        )
        store = dist.PrefixStore(f"fieldloom/{turn}", tcp)
        store.set(f"here/{place.rank}", "yes")
        _await_others(store, place, check)
        dist.init_process_group(
            "gloo", timeout=MEETING, store=store, rank=place.rank, world_size=place.processes
        )
        talk = dist.new_group(backend="gloo", timeout=PATIENCE)
        total = dist.new_group(backend=devices.adds_up_by(device), timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, FieldloomError):
            raise
        raise FieldloomError(
            f"process {place.rank} of {place.processes} cannot reach the others at "
            f"{place.address}: {shorten(str(error).splitlines()[0], 200)}"
        ) from None
    team = Team(place.rank, place.processes, talk, total)
    token = _team.set(team)
    try:
        yield team
    finally:
        _team.reset(token)
        with suppress(PartnerLost, RuntimeError):
            if not team.within:  # or else the others notice that this process ends
                team.say(Word.LEAVE)
        with suppress(RuntimeError):  # also where the others are gone: its threads must end
            dist.destroy_process_group()


def _await_others(store: dist.Store, place: Place, check: Callable[[], None]) -> None:
    """Wait until all processes of a job have come. Raises FieldloomError where one does not."""
    names, began = [f"here/{rank}" for rank in range(place.processes)], time.monotonic()
    while not store.check(names):
        check()
        if time.monotonic() - began > MEETING.total_seconds():
            missing = [rank for rank, name in enumerate(names) if not store.check([name])]
            raise FieldloomError(
                f"process {missing[0]} of {place.processes} did not come within {MEETING}."
            )
        time.sleep(0.02)
