"""The tables of docs/results, written into its pages from the JSON of benchmarks/results.

    python benchmarks/tables.py write
    python benchmarks/tables.py check
    python benchmarks/tables.py list

``benchmarks/pages/PAGE.toml`` describes the tables of ``docs/results/PAGE.md``: their rows and
columns, and what was published. A page says where a table stands, and what of it:

    <!-- table: NAME -->   figures, published ones beside them
    <!-- order: NAME -->   whether the published order of the rows came out
    <!-- runs: NAME -->    commands, commits, dates, seconds, machines
    <!-- overview: NAMES --> one line for each of these tables; they have an order

Each ends with ``<!-- end -->``; what is between is written anew. ``list`` prints tables and rows.

Figures of a row come from its cells, ``results/cells/TABLE/ROW-seedN.json`` (benchmarks/cells.py),
or, where it has none yet, from an older file of one seed, which is then said, and left out of the
order. Several seeds are shown as their mean and a 95 % interval: ``24.5 ± 0.3 (3)``, and ``(2 of
3)`` where some have no such figure.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from evidence import Column, Order, Row, Table, find_interval, find_values, flatten, read_tables

from fieldloom import atomic

PAGES = Path(__file__).resolve().parents[1] / "docs" / "results"

NOTHING, NOT_RUN = "-", "not run"
STAGES = ("field", "codec", "prior")
BLOCK = re.compile(r"<!-- (table|order|runs|overview): ([^>]+) -->\n.*?<!-- end -->", re.S)


def show_values(values: Sequence[float], column: Column, seeds: int = 1) -> str:
    """A figure of a row; how many of its seeds have one, where that is not all."""

    def show(value: float) -> str:
        return format(value * column.scale, column.format).replace("%", " %")

    count = f"{len(values)} of {seeds}" if len(values) < seeds else f"{len(values)}"
    if not values:
        return NOTHING
    if not all(map(isfinite, values)):
        return f"not finite ({count})" if seeds > 1 else "not finite"
    if len(values) < 2:
        return show(values[0]) + f" ({count})" * (seeds > 1)
    return f"{show(mean(values))} ± {show(find_interval(values))} ({count})"


def write_table(table: Table) -> list[str]:
    head = [""]
    for column in table.columns:
        head += [column.label] if column.figures else []
        head += ["published" if column.figures else column.label] if column.published else []
    lines = [head, ["---"] * len(head)]
    for row in table.rows:
        cells = [row.title]
        for column in table.columns:
            if column.figures:
                shown = show_values(find_values(row, column.figures), column, len(row.seeds))
                cells.append(shown if row.seeds or row.quoted else NOT_RUN)
            if column.published:
                cells.append(row.published.get(column.published, NOTHING))
        lines.append(cells)
    return write_lines(lines)


def write_lines(lines: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(x.replace("|", "\\|") for x in line) + " |" for line in lines]


def write_runs(table: Table) -> list[str]:
    head = ["", "seeds", "steps", "seconds", "commit", "date", "machine", "command"]
    lines = [head, ["---"] * len(head)]
    for row in table.rows:
        records = [seed.record for seed in row.seeds]
        if records:
            lines.append(
                [
                    row.title,
                    join(record.get("seed", NOTHING) for record in records),
                    write_stages([find_steps(record) for record in records]),
                    write_stages([find_seconds(record) for record in records]),
                    join(record.get("commit") or NOTHING for record in records),
                    join(str(record.get("date", NOTHING))[:10] for record in records),
                    join(write_machine(record) for record in records),
                    join(write_command(record) for record in records),
                ]
            )
    return write_lines(lines) if len(lines) > 2 else ["Not run."]


def join(told: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(x) for x in told))


def find_steps(record: Mapping[str, Any]) -> dict[str, float]:
    """Of each stage; of older files, of those that their seconds name."""
    steps = flatten(record.get("steps", {}))
    trained, spent = flatten(record.get("train", {})), flatten(record.get("seconds", {}), "of")
    for stage in STAGES:
        if f"of.{stage}" in spent and f"{stage}.steps" in trained:
            steps.setdefault(stage, trained[f"{stage}.steps"])
    return steps or ({"": trained["steps"]} if "steps" in trained else {})


def find_seconds(record: Mapping[str, Any]) -> dict[str, float]:
    """Of each stage, or of all; and of the processor."""
    spent = flatten(record.get("seconds", {}))
    whole = flatten(record.get("processor_seconds", {}), "processor")
    return {name: x for name, x in (spent | whole).items() if name in ("", *STAGES, "processor")}


def write_stages(seeds: Sequence[Mapping[str, float]]) -> str:
    """Numbers of stages, each the mean of the seeds."""
    names = dict.fromkeys(name for seed in seeds for name in seed)
    told = [f"{x} {mean(seed[x] for seed in seeds if x in seed):,.0f}".strip() for x in names]
    return ", ".join(told) or NOTHING


def write_command(record: Mapping[str, Any]) -> str:
    """The command of a record, for all seeds, and what it was set to."""
    said = record.get("command")
    if not said:
        return NOTHING
    said = said if isinstance(said, str) else "python " + " ".join(said)
    settings = [x for x in record.get("settings", []) if x != "--set"]
    told = [f"`{re.sub(r' --seeds [0-9]+$', '', said)}`"]
    return ", with ".join(told + [", ".join(f"`{x}`" for x in settings)] * bool(settings))


def write_machine(record: Mapping[str, Any]) -> str:
    about = record.get("machine") or record.get("environment") or {}
    if isinstance(about, str):
        return about
    if not about:
        return NOTHING
    threads = about.get("threads", 1)
    told = [about.get("processor", ""), f"{threads} thread{'s' if threads > 1 else ''}"]
    told += [about["device"]] if about.get("device", "cpu") != "cpu" else []
    return ", ".join([*filter(None, told), f"torch {about.get('versions', {}).get('torch', '')}"])


# Whether an order came out


@dataclass(frozen=True)
class Comparison:
    """Pairs of rows, (better, worse) as published: in that order here, in the other, undecided."""

    kept: Sequence[tuple[Row, Row]]
    reversed: Sequence[tuple[Row, Row]]
    undecided: Sequence[tuple[Row, Row]]
    missing: int
    seeds: int

    @property
    def pairs(self) -> int:
        return len(self.kept) + len(self.reversed) + len(self.undecided)


def find_column(table: Table, order: Order) -> Column:
    return next(column for column in table.columns if order.figure in column.figures)


def compare_order(table: Table, order: Order) -> Comparison:
    """Pairs whose 95 % intervals overlap are undecided; one seed has no interval.

    So are rows of which some seeds lack the figure. Rows with one that is not finite are left out.
    """
    sign = 1.0 if order.better == "higher" else -1.0
    figures = find_column(table, order).figures
    printed, found = {}, {}
    for row in table.rows:
        if order.published in row.published and not (row.quoted or row.older):
            printed[row.name] = sign * float(row.published[order.published].replace(",", ""))
            values = find_values(row, figures)
            if values and all(map(isfinite, values)):
                half = find_interval(values) if len(values) > 1 else 0.0
                if len(values) < len(row.seeds):  # some seeds diverged
                    half = inf
                found[row.name] = (sign * mean(values), half, len(values))
    kept, turned, open_ = [], [], []
    for pair in combinations([row for row in table.rows if row.name in found], 2):
        one, other = sorted(pair, key=lambda row: -printed[row.name])
        if printed[one.name] == printed[other.name]:
            continue
        (a, da, _), (b, db, _) = found[one.name], found[other.name]
        into = open_ if abs(a - b) <= da + db else kept if a > b else turned
        into.append((one, other))
    seeds = min((count for *_, count in found.values()), default=0)
    return Comparison(kept, turned, open_, len(printed) - len(found), seeds)


def write_order(table: Table) -> list[str]:
    order = table.order
    assert order is not None, f"{table.name} has no order"
    found = compare_order(table, order)
    label = find_column(table, order).label
    if not found.pairs:
        return [f"**Order** by {label}: fewer than two of the published rows were run."]

    def write_pairs(pairs: Sequence[tuple[Row, Row]]) -> str:
        return "; ".join(f"{one.label} before {other.label}" for one, other in pairs)

    parts = [f"**Order** by {label}: {len(found.kept)} of {found.pairs} pairs as published."]
    if found.reversed:
        parts.append(f"Published, and the other way round here: {write_pairs(found.reversed)}.")
    if found.undecided:
        parts.append(f"Undecided, since their intervals overlap: {write_pairs(found.undecided)}.")
    if found.missing:
        parts.append(f"Published rows without a figure here: {found.missing}.")
    if found.seeds == 1:
        parts.append("With one seed no interval is known, and a small difference decides nothing.")
    return textwrap.wrap(" ".join(parts), 100)


def write_overview(tables: Iterable[Table]) -> list[str]:
    head = ["what is compared", "rows run", "seeds", "figure", "ours", "published"]
    lines = [[*head, "pairs in the published order"], ["---"] * 7]
    for table in tables:
        order = table.order
        assert order is not None, f"{table.name} has no order"
        found = compare_order(table, order)
        own = [row for row in table.rows if not row.quoted]
        run = sum(bool(row.seeds) for row in own)
        row = next(row for row in own if row.name == order.headline)
        column = find_column(table, order)
        values = find_values(row, column.figures)
        lines.append(
            [
                f"[{table.about}]({table.page}.md)",
                f"{run} of {len(own)}",
                str(found.seeds or NOTHING),
                f"{column.label}, {row.label}",
                show_values(values, column, len(row.seeds)) if values else NOT_RUN,
                row.published.get(order.published, NOTHING),
                f"{len(found.kept)} of {found.pairs}" if found.pairs else NOTHING,
            ]
        )
    return write_lines(lines)


def write_page(text: str, tables: Mapping[str, Table]) -> str:
    """A page with all that stands between its marks written anew."""

    def write_block(found: re.Match[str]) -> str:
        kind, named = found[1], [tables[name] for name in found[2].split()]
        if kind == "overview":
            lines = write_overview(named)
        else:
            write = {"table": write_table, "order": write_order, "runs": write_runs}[kind]
            lines = write(*named)
        mark = found[0].partition("-->")[0] + "-->"
        return "\n".join([mark, "", *lines, "", "<!-- end -->"])

    return BLOCK.sub(write_block, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["write", "check", "list"])
    verb = parser.parse_args().verb
    tables, stale = read_tables(), 0
    if verb == "list":
        for table in tables.values():
            for row in table.rows:
                told = f"{len(row.seeds)} run" if row.seeds else NOT_RUN
                print(f"{table.name}/{row.name}: {told}")
        return 0
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        fresh = write_page(text, tables)
        if fresh != text:
            stale += 1
            print(f"{path.name}: {'written' if verb == 'write' else 'differs from the JSON'}")
            if verb == "write":
                atomic.write_text(fresh, path)
    return int(verb == "check" and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
