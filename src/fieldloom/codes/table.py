"""What stands beside codes as a Parquet table, for pandas, DuckDB and the like: extra ``parquet``.

A row a code: ``place`` (its index in the source), ``error`` (its final reconstruction loss),
``label`` and ``class`` (where known), ``folder``, ``shard`` and ``row`` (where it lies).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fieldloom import atomic
from fieldloom.codes.index import Shards
from fieldloom.codes.stored import StoredCodes
from fieldloom.errors import InputError

ROWS = 1 << 17
"""Rows that are written at a time, a row group each."""

COLUMNS = {"places": "place", "errors": "error", "labels": "label"}


def write_table(codes: StoredCodes, path: Path, names: Sequence[str] = ()) -> Path:
    """Write the table of a set of codes, whose codes themselves are not read. Returns the path.

    names: of the classes. Raises InputError where pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'fieldloom[parquet]'.") from None

    def fill(file: Any) -> None:
        writer = None
        for group in read_groups(codes, names):
            table = arrow.table(group)
            if writer is None:
                writer = parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()

    return atomic.write_atomically(path, fill)


def read_groups(codes: StoredCodes, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The columns of the table, a part of the codes at a time."""
    import numpy as np

    folders = [one.name for one in codes.parts.folders] if isinstance(codes.parts, Shards) else []
    for first in range(0, len(codes), ROWS):
        which = np.arange(first, min(first + ROWS, len(codes)))
        part = np.searchsorted(codes.ends, which, side="right")
        group = {
            column: codes.read(slice(first, first + ROWS), name).numpy()
            for name, column in COLUMNS.items()
            if name in codes.names
        }
        if names and "label" in group:
            known = np.array([*names, None], dtype=object)
            label = group["label"]
            within = (label >= 0) & (label < len(names))
            group["class"] = known[np.where(within, label, len(names))]
        if isinstance(codes.parts, Shards):
            firsts = codes.parts.firsts.numpy()
            own = np.searchsorted(firsts, part, side="right") - 1
            if len(folders) > 1:
                group["folder"] = np.array(folders, dtype=object)[own]
            group["shard"] = part - firsts[own]
        group["row"] = which - codes.starts[part]
        yield group
