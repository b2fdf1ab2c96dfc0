"""Where the time of the slowest two training steps goes, by torch.profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from accelerator_sections.parts import Absent, Parts, Plan, Result, read_json
from accelerator_sections.speed import ROWS, Row, draw_images, make_system
from fieldloom.assembly import objective_of
from fieldloom.engine import device as devices
from fieldloom.engine.loop import Training

LINES = 30
"""Operations of a table."""


def run(plan: Plan, parts: Parts) -> None:
    for place in (0, 1):
        parts.do(f"slowest {place + 1}", lambda place=place: profile_slowest(place, plan))
    tables = [
        part["result"]["table"] for part in parts.all.values() if "table" in part.get("result", {})
    ]
    (Path(plan.out) / "profiles.txt").write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def profile_slowest(place: int, plan: Plan) -> Result:
    """The table of the slowest training (0), or of the next. Raises Absent before any is timed."""
    timed = slowest(read_json(Path(plan.work) / "speed.json"))
    if len(timed) <= place:
        raise Absent("the section 'speed' has timed no such training yet.")
    row = next(row for row in ROWS if row.name == timed[place])
    return {"row": row.name, "table": profile_step(row, plan)}


def slowest(speed: dict[str, Any]) -> list[str]:
    """Rows whose training was timed, by the seconds of a step, the slowest first."""
    seconds = {
        name.removesuffix(", training"): part["result"]["seconds_a_step"]
        for name, part in speed.items()
        if name.endswith(", training") and part["state"] == "done"
    }
    return sorted(seconds, key=lambda name: -seconds[name])


def profile_step(row: Row, plan: Plan) -> str:
    """A table of the operations of training steps, and one of their groups by shapes."""
    system = make_system(row, plan)
    stage, device = system.settings.field_stage, system.device
    data = draw_images(system, 2 if plan.size == "tiny" else stage.batch)
    batch = system.modality.observe(data, keep_grid=system.encoder.reads_grid)
    training = Training(objective_of(system).train(), stage)
    advance = lambda: training.advance(batch, len(data), 0, device)
    for _ in range(3):
        advance()
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=kinds, profile_memory=True) as found:
        for _ in range(1 if plan.size == "tiny" else 5):
            advance()
        devices.synchronize(device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = found.key_averages()
    try:
        lines = averages.table(sort_by=by, row_limit=LINES)
    except (AttributeError, KeyError):  # the name of newer versions
        lines = averages.table(sort_by="self_device_time_total", row_limit=LINES)
    return f"{row.name}: a training step on {torch.device(device)}\n{lines}"
