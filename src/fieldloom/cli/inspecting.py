"""Looking at data before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import SetOption, permit
from fieldloom.cli.outputs import check_free


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A path to data, or the name of a recipe, whose own data are read.",
        ),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Read the data at the path as this recipe would.")
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The contact sheet, a .png. Default: outputs/inspect/NAME.png."),
    ] = None,
) -> None:
    """Show what is read at a path, without training, and write a contact sheet.

    It prints how many data there are, how they are taken, what is guessed, and which files are
    passed over. It takes as long as reading the data does.

    Example: fieldloom inspect FOLDER --recipe mnif:faces64
    """
    from rich.table import Table

    from fieldloom import inspection
    from fieldloom.assembly import parse_overrides
    from fieldloom.recipe import load, resolve, split_override

    name = Path(source).resolve().stem.replace(":", "-") or "data"
    sheet = Path("outputs/inspect") / f"{name}.png"
    if out is not None:
        check_free(out)
        sheet = out
    chosen = load(recipe) if recipe is not None else None
    named = {".".join(keys): value for keys, value in map(split_override, set_ or [])}
    resolved = inspection.recipe_for(source, chosen, permit(), named.get("source.name"))
    resolved = resolve(resolved, *parse_overrides(resolved, set_ or [], permit()))
    found = inspection.read_data(resolved, permit())
    written = inspection.write_contact_sheet(found, sheet)
    table = Table(show_header=False, box=None)
    for aspect, words in found.source.summary.rows():
        table.add_row(aspect, cell(words))
    console().print(table)
    none = "none, since these data cannot be shown as images"
    say(f"contact sheet: {none if written is None else written}")
