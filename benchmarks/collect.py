"""What a finished and evaluated run says, as one JSON file for benchmarks/results.

python benchmarks/collect.py RUN --commit COMMIT --out benchmarks/results/NAME.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldloom import atomic
from fieldloom.engine.run import Run


def seconds(log: list[dict[str, Any]]) -> dict[str, float]:
    """Of each stage: its steps times the time of one, as its last line has it."""
    last = {line["stage"]: line for line in log}
    return {name: round(line["step"] * line["seconds_a_step"]) for name, line in last.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--commit", required=True, help="that the run was trained at")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="further report.json")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = collect_run(arguments.run, arguments.commit, arguments.also)
    atomic.write_text(json.dumps(result, indent=2) + "\n", arguments.out)


def collect_run(folder: Path, commit: str, also: Sequence[Path] = ()) -> dict[str, Any]:
    """Of a run: its figures and seconds, and what they were found with."""
    run = Run(folder).require()
    report = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))
    recipe = run.read_recipe()
    data = Path(recipe["source"]["path"]).name
    figures = report["figures"]
    for path in also:
        known = {(f["name"], f["how"]) for f in figures}
        more = json.loads(path.read_text(encoding="utf-8"))["figures"]
        figures += [f for f in more if (f["name"], f["how"]) not in known]
    environment = json.loads((run.folder / "env.json").read_text(encoding="utf-8"))
    environment.pop("command", None)
    return {
        "command": f"fieldloom train {recipe['recipe']} --set source.path={data}; "
        "fieldloom evaluate RUN",
        "commit": commit,
        "date": report["date"],
        "seed": report["seed"],
        "environment": environment,
        "seconds": seconds(run.read_log()),
        "train": recipe["train"],
        "figures": figures,
    }


if __name__ == "__main__":
    main()
