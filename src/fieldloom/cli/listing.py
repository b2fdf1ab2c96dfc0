"""The state of a run, and the names that recipes can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.console import cell, console, say
from fieldloom.cli.options import RunArgument, permit
from fieldloom.errors import unknown

if TYPE_CHECKING:
    from fieldloom.engine.glance import State
    from fieldloom.names import About, Key


def info(run: RunArgument) -> None:
    """Show the state of a run: its recipe, finished stages, parts and sizes.

    Example: fieldloom info runs/mine
    """
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
        str | None,
        typer.Argument(
            help="recipes, or a kind of part: sources, fields, priors, ...; train or evaluate for "
            "the keys of these sections."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of them, which is shown with all of its keys.")
    ] = None,
) -> None:
    """Show the recipes, how long they take, and the names and keys that recipes can use.

    Without a word it shows everything; 'list recipes' all recipes with their variants, 'list
    recipes mnif' those of one, 'list fields' one kind of part, and 'list fields siren' all keys of
    one part, with their defaults.

    Example: fieldloom list recipes mnif
    """
    from fieldloom.names import OTHERS, SECTIONS, describe_recipes, read_kinds, read_table

    recipes = describe_recipes()
    if what in ("recipe", "recipes"):
        return say_recipes(recipes, name)
    from fieldloom.registry import list_offered

    offered = list_offered()
    kinds = {
        PLURALS.get(kind, f"{kind}s"): (kind, table)
        for kind, table in read_kinds().items()
        if kind not in SAME
    }
    groups: dict[str, Any] = {"recipes": {own: one.text for own, one in recipes.items()}}
    groups |= {group: table | offered.get(kind, {}) for group, (kind, table) in kinds.items()}
    groups |= {group: read_table(*place) for group, place in OTHERS.items()}
    plurals = {kind: group for group, (kind, _) in kinds.items()}
    section = "train" if what == "stage" else what
    if section in SECTIONS:
        say(f"{section}:")
        return say_keys(section, section)
    what = plurals.get(what or "", what)
    if what is not None and what not in groups:
        raise unknown("list", what, [*groups, *SECTIONS])
    say_entries(groups, what, name)
    if what is not None and name is not None and isinstance(groups[what][name], str):
        say_keys(kinds[what][0] if what in kinds else what, name)


TIMES = (
    "Times were measured on one or two cores of an Intel Xeon, mostly beside other work, on the "
    "data of docs/results."
)


def say_recipes(recipes: Mapping[str, About], name: str | None) -> None:
    """Print recipes with their variants: those with a sentence first, then the names of others."""
    stem = None if name is None else name.partition(":")[0]
    if stem is not None and stem not in recipes:
        raise unknown("recipe", stem, recipes)
    say(f"fieldloom train RECIPE:VARIANT trains one, --source PATH on your own data. {TIMES}")
    for own, about in recipes.items():
        if stem not in (None, own):
            continue
        say(f"{own}: {about.text}")
        for variant, text in about.variants.items():
            if text:
                say(f"  {own}:{variant}: {text}")
        others = [variant for variant, text in about.variants.items() if not text]
        if others:
            say(f"  {own}: of papers, or of comparisons with them: {', '.join(others)}.")


def say_entries(groups: Mapping[str, Any], what: str | None, name: str | None) -> None:
    """Print all groups, one of them, or one entry of one."""
    if name is not None and name not in groups[what or ""]:
        raise unknown(f"name of {what}", name, groups[what or ""])
    for group in [what] if what else groups:
        say(f"{group}:")
        for own, entry in groups[group].items():
            if name in (None, own):
                say(f"  {own}: {describe(entry)}")


def say_keys(kind: str, name: str) -> None:
    """Print the keys of a part or a section: their defaults, what they may be, what they mean.

    Keys that one sentence explains together stand in one line.
    """
    from itertools import groupby

    from fieldloom.names import read_keys

    keys = read_keys(kind, name)
    for meaning, some in groupby(keys, key=lambda key: key.meaning):
        say(f"    {', '.join(map(as_text, some))}: {close(meaning)}")
    if not keys:
        say("    it has no keys.")


def as_text(key: Key) -> str:
    """A key with its default, and what it may be: of a part, the list that names it."""
    own = key.name.rpartition(".")[2]
    values = f"list {PLURALS.get(own, f'{own}s')}" if key.values == "a part" else key.values
    return (
        f"{key.name} ({values})"
        if key.default is None
        else (f"{key.name} = {key.default} ({values})")
    )


def describe(entry: Any) -> str:
    """The first sentences of an entry's docstring, or the package that offers it."""
    from importlib.metadata import EntryPoint

    if isinstance(entry, EntryPoint):
        return f"of an installed package, {entry.value}"
    text = entry if isinstance(entry, str) else getattr(entry, "func", entry).__doc__ or ""
    return close(" ".join(text.strip().partition("\n\n")[0].split()))


def close(text: str) -> str:
    """A text of the source for a reader: names in quotes, and a full stop at its end."""
    return text.replace("``", "'").rstrip(".") + "."
