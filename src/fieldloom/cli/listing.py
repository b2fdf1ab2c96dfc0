"""The state of a run, and the names that recipes can use."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Annotated, Any

import typer

from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import RunArgument, permit
from fieldloom.errors import unknown


def info(run: RunArgument) -> None:
    """The state of a run: its recipe, finished stages, parts and sizes."""
    from rich.table import Table

    from fieldloom.assembly import assemble
    from fieldloom.engine.run import Run
    from fieldloom.metrics.cost import count_field_weights, count_parameters

    folder = Run(run).require()
    if folder.has_model:
        system = folder.read_system("cpu", permit())
    else:  # the first stage is not finished yet
        system = assemble(folder.read_recipe(), permit())
    settings, log = system.settings, folder.read_log()
    part = lambda section: settings.parts.get(section, "none")
    rows = {
        "recipe": settings.title or "-",
        "paper": settings.paper or "-",
        "seed": settings.seed,
        "finished stages": ", ".join(system.finished) or "none",
        "field, conditioner": f"{part('field')} x {part('conditioner')}",
        "encoder, prior": f"{part('encoder')} x {part('prior')}",
        "code": f"{system.family.code_shape[0]} x {system.family.code_shape[1]}",
        "learnable parameters": f"{count_parameters(system.family):,}",
        "inference parameters": f"{count_field_weights(system.family.field.slots):,}",
        "prior's parameters": f"{count_parameters(system.prior):,}" if system.prior else "-",
        "signals, classes": f"{settings.signals}, {settings.classes}",
        "last line of the log": log[-1] if log else "-",
    }
    table = Table(show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(key, cell(value))
    console().print(table)


PLURALS = {"modality": "modalities", "penalty": "penalties"}
SAME = ("start", "unseen")
"""Kinds whose parts are those of another kind: encoders."""


def list_(
    what: Annotated[
        str | None, typer.Argument(help="fields, conditioners, ... optimizers, schedules, recipes.")
    ] = None,
) -> None:
    """The names that recipes can use."""
    from fieldloom import recipe

    groups: dict[str, Any] = {"recipes": recipe.list_recipes()}
    if what != "recipes":
        from fieldloom.names import OTHERS, read_kinds, read_table
        from fieldloom.registry import list_offered

        offered = list_offered()
        for kind, table in read_kinds().items():
            if kind not in SAME:
                groups[PLURALS.get(kind, f"{kind}s")] = table | offered.get(kind, {})
        groups |= {name: read_table(*place) for name, place in OTHERS.items()}
    if what is not None and what not in groups:
        raise unknown("list", what, groups)
    for group in [what] if what else groups:
        say(f"{group}:")
        for name, entry in groups[group].items():
            say(
                f"  {name}: {', '.join(entry)}"
                if isinstance(entry, list)
                else f"  {name}: {describe(entry)}"
            )


def describe(entry: Any) -> str:
    """The first sentences of an entry's docstring, or the package that offers it."""
    if isinstance(entry, EntryPoint):
        return f"of an installed package, {entry.value}"
    text = entry if isinstance(entry, str) else getattr(entry, "func", entry).__doc__ or ""
    return " ".join(text.strip().partition("\n\n")[0].split())
