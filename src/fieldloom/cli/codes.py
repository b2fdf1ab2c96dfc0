"""What a file, or a folder, of codes holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import permit
from fieldloom.cli.outputs import check_not_own
from fieldloom.errors import InputError

if TYPE_CHECKING:
    from fieldloom.codes.stored import StoredCodes


def codes(
    path: Annotated[
        Path,
        typer.Argument(metavar="CODES", help="What encode wrote: a folder of shards, or a file."),
    ],
    run: Annotated[
        str | None,
        typer.Option(help="The run that they are of, for the names of classes, and for HDF5."),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a table for pandas or DuckDB: a row a code, with its place in the source, "
            "its error, class, shard and row. Needs fieldloom[parquet].",
        ),
    ] = None,
) -> None:
    """Say what a set of codes holds, and write a table of it.

    CODES may also be a folder of such folders, which are one set then.

    Example: fieldloom codes runs/mine/encoded --parquet index.parquet
    """
    from fieldloom.codes.files import open_codes
    from fieldloom.engine.run import Run

    if parquet is not None:
        if parquet.suffix != ".parquet":
            raise InputError(f"--parquet '{parquet}': its name ends in .parquet.")
        check_not_own(parquet)
        if parquet.exists() and not permit().overwrite:
            raise InputError(
                f"'{parquet}' is there already: give another --parquet, or --overwrite."
            )
    system = None if run is None else Run(run).read_system("cpu", permit())
    found = open_codes(path, system)
    for line in describe(found):
        say(line)
    if parquet is not None:
        from fieldloom.codes.table import write_table

        names = () if system is None else system.settings.names
        say(f"{len(found):,} rows: {write_table(found, parquet, names)}")


def describe(found: StoredCodes) -> list[str]:
    """The lines that tell what a set of codes is."""
    count, tokens, width = found.shape
    return [
        f"{count:,} codes of {tokens} x {width} numbers in {len(found.ends):,} files, "
        f"{found.nbytes / 1e6:,.1f} MB in float32",
        f"beside each: {', '.join(sorted(found.names - {'codes'})) or 'nothing'}",
    ]
