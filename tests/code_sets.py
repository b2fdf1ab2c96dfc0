"""Jobs of codes as they lie on the disk, written without encoding anything."""

from pathlib import Path

import torch
from torch import Tensor

from fieldloom.codes import jobs
from fieldloom.engine.schemas import Job, Shard
from fieldloom.engine.tensors import write_tensors


def write_job(folder: Path, codes: Tensor, shard: int, fail: tuple[int, ...] = (), **more) -> Path:
    """A finished job of codes (signals, tokens, width). fail: signals that have none.

    more: further columns, (signals,) each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(codes)
    job = Job(signals=count, shard=shard, worst=None, data="d", places="p", system="s")
    jobs.begin(folder, job, {})
    for number, own in enumerate(torch.arange(count).split(shard)):
        good = own[~torch.isin(own, torch.tensor(fail, dtype=torch.int64))]
        path = jobs.shard_path(folder, number)
        tensors = {"codes": codes[good], "places": good, "errors": good / count}
        write_tensors(path, tensors | {name: x[good] for name, x in more.items()}, {})
        bad = {str(i): "it failed" for i in own.tolist() if i in fail}
        jobs.write_row(
            folder, number, Shard(count=len(good), failed=bad, hash=jobs.hash_file(path))
        )
    return folder
