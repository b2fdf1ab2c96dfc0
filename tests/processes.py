"""A job of several processes for tests: ``python tests/processes.py FOLDER STOP NAME...``.

Trains the cases of these names, in float64, one after the other into folders of their own, by as
many processes as the environment says; goes on with those that are there. STOP: the step of stage
``field`` after which the user asks to stop; 0: never, as for a name that ends in ``:whole``. A name
``codes=RUN`` finds the codes of a run's training data instead.
"""

import contextlib
import os
import sys
from pathlib import Path

import torch

from fieldloom import previews, sharing, stopping
from fieldloom import recipe as recipes
from fieldloom.engine import pace
from fieldloom.engine.ranks import ALONE, find_place, joined
from fieldloom.engine.run import Run
from fieldloom.errors import Interrupted
from fieldloom.launching import follow_quietly
from fieldloom.preparation import prepare
from fieldloom.training import train, training_codes

CPU = torch.device("cpu")
STEPS = 8
FEW = [
    f"steps={STEPS}", "batch=8", "micro=2", "points=40", "divided=true", "clip=1.0", "ema=0.9",
    "save_every=3", "log_every=1",
]  # fmt: skip

PATCHES = 'objective.critic={name="patches", width=4, depth=2, scales=2, kernel=4}'
CASES = {
    "mnif:tiny": ("mnif:tiny", ["encoder.reduction=batch"]),  # as released: it knows its batch
    "mnif:whole": ("mnif:tiny", ["encoder.reduction=batch"]),
    "functa:tiny": ("functa:tiny", []),
    "laginr:tiny": ("laginr:tiny", []),
    "transinr:tiny": ("transinr:tiny", []),
    "ipc:tiny": ("ipc:tiny", []),
    "weights:tiny": ("weights:tiny", []),
    "weights:tiny-graph": ("weights:tiny-graph", []),
    "hyperdiffusion:tiny": ("hyperdiffusion:tiny", []),
    "learned-init:tiny": ("learned-init:tiny", []),
    "gem:tiny": ("gem:tiny", []),
    "gem:shapes": ("gem:tiny", ["train.field.together=false"]),  # by Chamfer distance
    "gem:plain": (
        "gem:tiny",
        ["objective=reconstruction", "train.field.groups.codes.name=row-adam"],
    ),
    "gem:lle": (
        "gem:tiny",
        ['objective.penalty=[{name="lle", neighbours=3}]', "train.field.groups.codes.name=sgd"],
    ),
    "gem:minutes": ("gem:tiny", ["objective=reconstruction"]),  # for two seconds
    "gasp:tiny": ("gasp:tiny", []),
    "gasp:points": ("gasp:tiny", ["objective.points=20", "objective.r1_of=logit"]),
    "gasp:patches": ("gasp:tiny", [PATCHES, "train.field.points=64"]),
}
"""Name of a case -> its recipe and settings."""


def recipe_of(name: str) -> recipes.Recipe:
    """The recipe of a case."""
    base, own = CASES[name]
    stages = [x for x in ("field", "codec", "prior") if x in recipes.load(base)["train"]]
    few = [f"train.{stage}.{setting}" for stage in stages for setting in FEW]
    return recipes.load(base, ["source.split=[24,4]", *few, *own])


def find_codes(folder: str) -> None:
    run = Run(folder)
    system = run.read_system()
    training_codes(system, prepare(system.recipe, CPU)[1], run)


def main(folder: str, stop: str, *names: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    write = Run.append_log

    def append_log(self: Run, line: dict) -> None:
        write(self, line)
        whole = self.folder.name.endswith(":whole")
        if not whole and line["stage"] == "field" and line["step"] + 1 == int(stop):
            stopping.request()

    Run.append_log = append_log
    previews.FIRST = 0.0  # one after the first step of each run
    pace.LINES = 1 << 20  # of the log of a budget: every step
    if "ELSEWHERE" in os.environ:  # this process is on a machine whose data are others
        here = sharing.prepare
        other = {"source": {"split": [25, 4]}}
        sharing.prepare = lambda recipe, *rest: here(recipes.merge(recipe, other), *rest)
    place = find_place()
    with contextlib.nullcontext(ALONE) if place is None else joined(place, CPU) as team:
        if team.rank:
            follow_quietly(team, CPU)
            return
        for name in names:
            if name.startswith("codes="):
                find_codes(name.removeprefix("codes="))
                continue
            run = Path(folder, name)
            with contextlib.suppress(Interrupted):
                minutes = 0.03 if name.endswith("minutes") else None
                train(recipe_of(name), str(run), resume=run.exists(), minutes=minutes)


if __name__ == "__main__":
    main(*sys.argv[1:])
