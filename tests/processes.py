"""A job of several processes for tests: ``python tests/processes.py FOLDER NAME...``.

Trains the recipes of these names, in float64, one after the other into folders of their own, by as
many processes as the environment says.
"""

import contextlib
import sys

import torch

from fieldloom import recipe as recipes
from fieldloom.engine.ranks import ALONE, find_place, joined
from fieldloom.following import follow
from fieldloom.training import train

CPU = torch.device("cpu")
FEW = [
    "source.split=[24,4]",
    *(f"train.{stage}.{setting}" for stage in ("field", "codec", "prior") for setting in (
        "steps=20", "batch=8", "micro=2", "divided=true", "clip=1.0", "ema=0.9", "save_every=7",
    )),
]  # fmt: skip


def main(folder: str, *names: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    place = find_place()
    with contextlib.nullcontext(ALONE) if place is None else joined(place, CPU) as team:
        if team.rank:
            follow(team, CPU)
            return
        for name in names:
            own = recipes.load(name)
            stages = [s for s in ("field", "codec", "prior") if s in own["train"]]
            few = [x for x in FEW if not x.startswith("train.") or x.split(".")[1] in stages]
            train(recipes.load(name, few), f"{folder}/{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
