"""The codes of the training data between the stages, found by all processes, each its shards.

The first process runs the job of ``codes.bulk`` as if it were alone; of a shard that another one
finds it waits for the codes. So the files, the order in which they are written, and every bit in
them are those of one process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fieldloom import stopping
from fieldloom.assembly import assemble
from fieldloom.codes import bulk, jobs
from fieldloom.codes.bulk import EncodedJob, EncodedSet
from fieldloom.engine import device as devices
from fieldloom.engine.loop import load_weights
from fieldloom.engine.ranks import PartnerLost, Team, Word
from fieldloom.errors import Interrupted
from fieldloom.executors.work import row_of
from fieldloom.modalities.sources import Source
from fieldloom.permit import Permit
from fieldloom.recipe import Recipe, resolve
from fieldloom.system import System

POLL = 0.5
"""Seconds between two looks whether the user asks to stop."""


def encode_together(team: Team, system: System, source: Source, folder: Path) -> EncodedJob:
    """``bulk.encode`` of the training data, whose shards the processes of a training share out.

    Raises PartnerLost where one of them ends; shards that are finished stay.
    """
    before = jobs.read_manifest(folder)
    size = before.job.shard if before else bulk.shard_size(system, source, source.train)
    parts = source.train.split(size)
    left = [n for n in range(len(parts)) if not row_of(folder, n).is_file()]
    if not team.leads or len(left) < 2:
        return bulk.encode(system, source, source.train, folder)
    team.say(Word.CODES)
    team.share({"recipe": system.recipe, "size": size, "shards": left})
    team.share_tensors(weights_of(system))
    team.within = True  # whatever happens now, the others hear no word before the end
    coming = {n: Future[EncodedSet]() for i, n in enumerate(left) if i % team.count}
    lost = threading.Event()
    for rank in range(1, team.count):
        receive = partial(receive_codes, team, rank, left[rank :: team.count], coming, lost)
        threading.Thread(target=receive, daemon=True).start()
    numbers = {int(places[0]): n for n, places in enumerate(parts)}

    def find(places: Tensor) -> EncodedSet:
        number = numbers[int(places[0])]
        if number not in coming:
            return bulk.encode_shard(system, source, places)
        return wait_for(coming[number])

    try:
        found = bulk.encode(system, source, source.train, folder, size, find=find)
    except Interrupted:
        if lost.is_set():
            raise PartnerLost from None
        raise
    team.within = False
    return found


def receive_codes(
    team: Team,
    rank: int,
    numbers: list[int],
    coming: dict[int, Future[EncodedSet]],
    lost: threading.Event,
) -> None:
    """Receive the codes of shards from the process that finds them, in the order of the numbers.

    Where it ends before, this process pauses what it computes itself.
    """
    for number in numbers:
        try:
            failed, tensors = team.take(rank)
        except PartnerLost as error:
            lost.set()
            coming[number].set_exception(error)
            stopping.request()
            return
        found = EncodedSet(**tensors, failed={int(i): why for i, why in failed.items()})
        coming[number].set_result(found)


def wait_for(coming: Future[EncodedSet]) -> EncodedSet:
    """Codes that another process finds. Raises Interrupted where the user asks to stop."""
    while True:
        try:
            return coming.result(POLL)
        except NotYet:
            if stopping.stop_requested():
                raise Interrupted("stopped while other processes compute") from None


def find_part(
    team: Team,
    device: torch.device,
    permit: Permit,
    open_source: Callable[[Recipe], Source],
) -> None:
    """Find the codes of this process's shards for the first one, which has just said so.

    open_source: the data of a recipe.
    """
    told, weights = team.share(), team.share_tensors()
    recipe = resolve(told["recipe"], warn=False)
    source = open_source(recipe)
    system = assemble(recipe, permit).use(devices.kernels).to(device)
    for part, module in parts_of(system).items():
        own = {n: x for n, x in weights.items() if n.startswith(f"{part}/")}
        load_weights(
            module, {n.removeprefix(f"{part}/"): x for n, x in own.items()}, "what is told"
        )
    system.eval()
    parts = source.train.split(told["size"])
    for number in told["shards"][team.rank :: team.count]:
        found = bulk.encode_shard(system, source, parts[number])
        names = ("codes", "indices", "errors")
        failed = {str(index): why for index, why in found.failed.items()}
        team.give(0, failed, {name: getattr(found, name) for name in names})


def parts_of(system: System) -> dict[str, torch.nn.Module]:
    """The parts whose weights a code depends on."""
    return {"family": system.family, "encoder": system.encoder}


def weights_of(system: System) -> dict[str, Tensor]:
    """The weights that a code depends on."""
    parts = parts_of(system).items()
    return {f"{part}/{n}": x for part, module in parts for n, x in module.state_dict().items()}
