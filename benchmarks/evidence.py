"""What benchmarks measured, row by row of the tables of docs/results (benchmarks/tables.py).

``benchmarks/pages/PAGE.toml`` describes tables, each with ``about``, ``columns``, ``rows`` and,
where the published rows have an order, ``order``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = HERE / "pages"

OF_ALL = ("command", "commit", "date", "seed", "environment", "machine")
"""Of a file: what holds for its parts, too."""

TRAINED_BY = ("recipe", "variant", "data", "source", "part", "stage", "overrides", "resolved")
SETTINGS = (*TRAINED_BY, "measures", "evaluated")
"""Of a cell: what all seeds of a row share."""


@dataclass(frozen=True)
class Column:
    """figure: its name in the JSON, or several that are tried in turn; none: nothing was measured
    that compares. published: the key of the printed number, which gets a column beside it."""

    label: str
    figure: str | Sequence[str] = ()
    published: str = ""
    format: str = ".2f"
    scale: float = 1.0

    @property
    def figures(self) -> Sequence[str]:
        return [self.figure] if isinstance(self.figure, str) else self.figure


class Seed(NamedTuple):
    """What one run says: the JSON, and all its numbers by name."""

    record: Mapping[str, Any]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """published: as printed. case: stands for ``{case}`` in the names of figures. quoted: printed
    elsewhere, and not run here. seeds: none where it was not run. older: of an older file, in a
    table of which other rows have cells."""

    name: str
    label: str
    published: Mapping[str, str] = field(default_factory=dict)
    case: str = ""
    quoted: bool = False
    seeds: Sequence[Seed] = ()
    older: bool = False

    @property
    def title(self) -> str:
        return self.label + " (quoted)" * self.quoted + " (an older run)" * self.older


@dataclass(frozen=True)
class Order:
    """What ranks the rows: a figure, the key of what was published, which end is better."""

    figure: str
    published: str
    better: str = "higher"
    headline: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    page: str
    about: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    order: Order | None = None


def read_tables(pages: Path = PAGES, results: Path = RESULTS) -> dict[str, Table]:
    """All tables, by name, with what was measured.

    A row is ``{ label, published, case, quoted, cell, older }``. ``cell``: ``TABLE/ROW`` of which
    the row has the cells, where these are another table's. ``older`` is ``FILE`` or
    ``FILE#KEY/...`` below ``results``, and holds where there is no cell of the row.
    """
    tables: dict[str, Table] = {}
    for path in sorted(pages.glob("*.toml")):
        for name, given in tomllib.loads(path.read_text(encoding="utf-8")).items():
            if name in tables:
                raise ValueError(f"{path.name}: {name} is a table of {tables[name].page}, too.")
            rows = read_rows(results, name, given["rows"])
            tables[name] = Table(
                name,
                path.stem,
                given["about"],
                [Column(**column) for column in given["columns"]],
                rows,
                Order(**given["order"]) if "order" in given else None,
            )
    return tables


def read_rows(results: Path, table: str, described: dict[str, Any]) -> list[Row]:
    """Rows as they are described, then those of which there are cells alone."""
    cells = sorted(path.stem for path in results.glob(f"cells/{table}/*-seed*.json"))
    names = dict.fromkeys(cell.rpartition("-seed")[0] for cell in cells)
    more = {name: {"label": name} for name in names if name not in described}
    rows, places = [], []
    for name, row in (described | more).items():
        older = row.pop("older", "")
        records = read_cells(results, row.pop("cell", f"{table}/{name}"))
        places.append(older if not records else "")
        records = records or ([pick(results, older)] if older else [])
        seeds = [Seed(record, find_numbers(record)) for record in records]
        rows.append(Row(name, **row, seeds=seeds))
    mixed = any(row.seeds and not place for row, place in zip(rows, places, strict=True))
    return [
        replace(row, older=mixed and bool(place)) for row, place in zip(rows, places, strict=True)
    ]


def read_cells(results: Path, cell: str) -> list[dict[str, Any]]:
    """A row's cells. ValueError where its seeds were not run with the same settings."""
    paths = sorted(results.glob(f"cells/{cell}-seed*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for path, record in zip(paths, records, strict=True):
        for key in SETTINGS:
            if record.get(key) != records[0].get(key):
                raise ValueError(f"{path.name}: another {key} than {paths[0].name}.")
    return records


def pick(results: Path, place: str) -> dict[str, Any]:
    """A part of a file, by keys, or by a text that an item of a list holds."""
    name, _, keys = place.partition("#")
    part = whole = json.loads((results / name).read_text(encoding="utf-8"))
    for key in filter(None, keys.split("/")):
        if isinstance(part, list):
            part = next(item for item in part if key in item.values())
        else:
            part = part[key]
    shared = whole if isinstance(whole, dict) else {}
    return {key: shared[key] for key in OF_ALL if key in shared} | part


def find_numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a record; ``seconds`` is the sum of its stages."""
    numbers = flatten(record)
    if isinstance(record.get("seconds"), dict):
        numbers["seconds"] = sum(flatten(record["seconds"]).values())
    return numbers


def flatten(value: Any, name: str = "") -> dict[str, float]:
    """All numbers of a record, by dotted names. An item of a list is called by its texts, or by
    its place; a figure, ``{"name", "value", "how"}``, by its name, and by name and (how)."""
    if isinstance(value, bool) or not isinstance(value, int | float | dict | list):
        return {}
    if isinstance(value, int | float):
        return {name: float(value)}
    found: dict[str, float] = {}
    for key, inner in named_items(value):
        for full, number in flatten(inner, f"{name}.{key}" if name else key).items():
            found.setdefault(full, number)
    return found


def named_items(value: Mapping[str, Any] | Sequence[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
        return
    for place, item in enumerate(value):
        if isinstance(item, dict) and {"name", "value"} <= set(item):
            yield item["name"], item["value"]
            yield f"{item['name']} ({item.get('how', '')})", item["value"]
        elif isinstance(item, dict):
            texts = [x for x in item.values() if isinstance(x, str)]
            yield "|".join(texts) or str(place), item
        else:
            yield str(place), item


def find_values(row: Row, figures: Iterable[str]) -> list[float]:
    """A figure of a row, one a seed; none where it was not measured."""
    values = []
    for seed in row.seeds:
        names = [figure.replace("{case}", row.case) for figure in figures]
        full = [full for name in names for full in (f"figures.{name}", name)]
        values += [seed.numbers[name] for name in full if name in seed.numbers][:1]
    return values


def find_interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean: Student's t of n - 1 degrees of freedom."""
    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
