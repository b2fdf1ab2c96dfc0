"""A job of several processes for tests: ``python tests/processes.py FOLDER STOP NAME...``.

Trains the recipes of these names, in float64, one after the other into folders of their own, by as
many processes as the environment says; goes on with those that are there. STOP: the step of stage
``field`` after which the user asks to stop; 0: never.
"""

import contextlib
import sys
from pathlib import Path

import torch

from fieldloom import recipe as recipes
from fieldloom import stopping
from fieldloom.engine.ranks import ALONE, find_place, joined
from fieldloom.engine.run import Run
from fieldloom.errors import Interrupted
from fieldloom.sharing import follow
from fieldloom.training import train

CPU = torch.device("cpu")
FEW = [
    "steps=12", "batch=8", "micro=2", "points=40", "divided=true", "clip=1.0", "ema=0.9",
    "save_every=5", "log_every=1",
]  # fmt: skip

OWN = {"mnif:tiny": ["encoder.reduction=batch"]}
"""As mNIF's released code: a step of CAVIA depends on the size of the batch."""


def main(folder: str, stop: str, *names: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    write = Run.append_log

    def append_log(self: Run, line: dict) -> None:
        write(self, line)
        if line["stage"] == "field" and line["step"] + 1 == int(stop):
            stopping._requested.set()

    Run.append_log = append_log
    place = find_place()
    with contextlib.nullcontext(ALONE) if place is None else joined(place, CPU) as team:
        if team.rank:
            follow(team, CPU)
            return
        for name in names:
            stages = [x for x in ("field", "codec", "prior") if x in recipes.load(name)["train"]]
            few = [f"train.{stage}.{setting}" for stage in stages for setting in FEW]
            run = Path(folder, name)
            with contextlib.suppress(Interrupted):
                own = recipes.load(name, ["source.split=[24,4]", *few, *OWN.get(name, [])])
                train(own, str(run), resume=run.exists())


if __name__ == "__main__":
    main(*sys.argv[1:])
