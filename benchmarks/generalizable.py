"""LA-GINR, IPC, TransINR and learned initialisation under equal budgets, at sizes for a CPU.

    python benchmarks/generalizable.py faces --source faces64.npz --runs RUNS --out RESULTS.json

``faces`` and ``caltech`` (at 64 x 64) reconstruct pictures that were not trained on
(arXiv:2310.05624, Tables 1, 3 and 4), ``views`` are novel views from 1 to 5 views (Figure 4),
``tokens`` a diffusion on the codes of two runs of ``faces`` (Table 5). Every row is trained in a
process of its own with the same steps, batch, points (rays) and seed, and goes on where it stopped.
Learned initialisation adapts to the drawn points alone, where the transformers read whole pictures;
a ray of IPC's radiance field takes 48 evaluations.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from collect import collect_run

from fieldloom import atomic, load
from fieldloom.assembly import open_source
from fieldloom.evaluation.views import psnr_by_support
from fieldloom.metrics.cost import count_parameters

ENCODERS = ["learned-init", "transinr", "ipc", "laginr"]
CHANGED = ["no-attention", "no-bands", "rising", "equal", "high-query"]
ROWS = {
    "faces": {name: f"{name}:faces64" for name in ENCODERS}
    | {f"laginr.{change}": f"laginr:faces64-{change}" for change in CHANGED},
    "caltech": {name: f"{name}:caltech64" for name in ENCODERS},
    "views": {"ipc": "ipc:multiview128", "laginr": "laginr:multiview128"},
    "tokens": {"ipc": "ipc:faces64", "laginr": "laginr:faces64"},
}
"""Table -> row -> its recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=ROWS)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--rows", nargs="*", help="some of the rows; default: all")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--commit", default="", help="that the runs are trained at")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = asked.rows or list(ROWS[asked.table])
    for name in names:
        train(asked.table, name, asked.source, asked.runs / name, asked.more)
    if asked.out:
        found = [
            row(asked.table, name, asked.runs / name, asked.commit, asked.more) for name in names
        ]
        atomic.write_text(json.dumps(found, indent=2) + "\n", asked.out)


def train(table: str, name: str, source: Path, run: Path, more: list[str]) -> None:
    """Train and evaluate a row, or go on with it; ``tokens`` adds the prior to a run of faces."""
    verb = [sys.executable, "-m", "fieldloom"]
    stage = "all" if table == "tokens" else "field"
    done = load(run, "cpu").finished if (run / "model.safetensors").is_file() else []
    if "prior" not in done and not (stage == "field" and "field" in done):
        how = [x for key in [f"source.path={source}", *more] for x in ("--set", key)]
        if (run / "recipe.toml").is_file():
            how = ["--resume"]
        to = ["--run", str(run), "--stage", stage]
        subprocess.run([*verb, "train", ROWS[table][name], *to, *how], check=True)
        (run / "report.json").unlink(missing_ok=True)
    if not (run / "report.json").is_file():
        subprocess.run([*verb, "evaluate", str(run)], check=True)


def row(table: str, name: str, run: Path, commit: str, more: list[str]) -> dict[str, Any]:
    """What a row's run says; of views the PSNR by the number of support views, too."""
    system = load(run, "cpu")
    found = {"row": name, "settings": more} | collect_run(run, commit)
    found["parameters"] = count_parameters(system.family) + count_parameters(system.encoder)
    found["decoder"] = count_parameters(system.family)
    if table == "views":
        source = open_source(system.recipe, system.modality)
        found["support"] = psnr_by_support(system, source.read(source.test), range(1, 6))
    return found


if __name__ == "__main__":
    main()
