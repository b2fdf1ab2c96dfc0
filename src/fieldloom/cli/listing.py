"""The state of a run, and the names that recipes can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import RunArgument, permit
from fieldloom.errors import unknown

if TYPE_CHECKING:
    from fieldloom.engine.glance import State


def info(run: RunArgument) -> None:
    """The state of a run: its recipe, finished stages, parts and sizes."""
    from rich.table import Table

    from fieldloom.engine.glance import glance

    state = glance(run) or read_state(run)
    parts, sizes, begun = state.parts, state.sizes, state.unfinished
    rows = {
        "recipe": state.title,
        "paper": state.paper,
        "seed": state.seed,
        "finished stages": ", ".join(state.finished) or "none",
        **({"unfinished": f"checkpoint {begun.describe()}"} if begun is not None else {}),
        "field, conditioner": f"{parts['field']} x {parts['conditioner']}",
        "encoder, prior": f"{parts['encoder']} x {parts['prior']}",
        "code": " x ".join(map(str, sizes.code)),
        "learnable parameters": f"{sizes.learnable:,}",
        "inference parameters": f"{sizes.inference:,}",
        "prior's parameters": "-" if sizes.prior is None else f"{sizes.prior:,}",
        "signals, classes": f"{state.signals}, {state.classes}",
        "last line of the log": state.log[-1] if state.log else "-",
    }
    table = Table(show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(key, cell(value))
    console().print(table)


def read_state(run: str) -> State:
    """The state of a run whose files do not tell it: its system is read, or made where untrained.

    Raises InputError where it is none, or damaged.
    """
    from fieldloom.assembly import assemble
    from fieldloom.engine.glance import state_of
    from fieldloom.engine.run import Run, sizes_of

    folder = Run(run).require()
    recipe = folder.read_recipe()
    kept = folder.has_model or folder.unfinished() is not None
    system = folder.read_system("cpu", permit()) if kept else assemble(recipe, permit())
    log = folder.read_log()
    return state_of(recipe, system.finished, sizes_of(system), log, system.unfinished)


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
    from importlib.metadata import EntryPoint

    if isinstance(entry, EntryPoint):
        return f"of an installed package, {entry.value}"
    text = entry if isinstance(entry, str) else getattr(entry, "func", entry).__doc__ or ""
    return " ".join(text.strip().partition("\n\n")[0].split())
