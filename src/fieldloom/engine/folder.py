"""The text files of a run's folder: its recipe, its log, and what it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fieldloom import atomic
from fieldloom.engine.layout import CODES, ENV, LOG, MODEL, RECIPE
from fieldloom.engine.log import append_line, read_lines
from fieldloom.engine.nearby import no_run
from fieldloom.engine.schemas import parse_json, read_text
from fieldloom.errors import InputError
from fieldloom.modalities.sources.files import locate, path_to_text
from fieldloom.recipe import FORMAT, Recipe, dump, read_file, resolve


class Folder:
    """A run's folder, as far as its files are text."""

    def __init__(self, folder: str | Path) -> None:
        if folder == "":
            raise InputError("RUN '' names no folder.")
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        return (self.folder / RECIPE).is_file()

    @property
    def has_model(self) -> bool:
        return (self.folder / MODEL).is_file()

    @property
    def has_codes(self) -> bool:
        return (self.folder / CODES).is_file()

    def require(self) -> Folder:
        """The folder. Raises InputError where it is no run's."""
        if not self.exists:
            raise no_run(self.folder)
        return self

    def inside(self, name: str | Path) -> Path:
        """A path in the folder to write to. Raises InputError where a link leads out of it."""
        path = self.folder / name
        for part in [path, *path.parents]:
            if part == self.folder and ".." not in Path(name).parts:
                return path
            if part.is_symlink() and (part != path or part.is_dir()):
                raise InputError(
                    f"'{part}' is a link out of the run: nothing is written through it."
                )
        raise InputError(f"'{name}' does not lie in the run '{self.folder}'.")

    # -- recipe

    @property
    def stored_recipe(self) -> Recipe:
        """The recipe as the run's file has it. Its names and keys may be older than today's.

        The other files carry fingerprints of it, so a rename must not change it.
        """
        return read_file(self.require().folder / RECIPE)

    def read_recipe(self) -> Recipe:
        """The run's recipe by today's names and keys.

        Data that were moved together with the run are found by their path relative to it.
        """
        recipe = resolve(self.stored_recipe, warn=False)
        beside = recipe.get("known", {}).get("beside")
        source = recipe.get("source")
        if isinstance(beside, str) and isinstance(source, dict):
            with suppress(OSError, ValueError):  # no path of this system
                moved = (self.folder / locate(beside)).resolve()
                if moved.exists() and not locate(str(source.get("path"))).exists():
                    source["path"] = path_to_text(moved)
        return recipe

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe, with the path of its data relative to the run if they are near it."""
        source, known = recipe.get("source"), dict(recipe.get("known", {}))
        known.pop("beside", None)
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str) and locate(path).is_absolute():
            run, data = self.folder.resolve(), locate(path).resolve()
            near = run.parent if len(run.parents) < 3 else run.parent.parent
            if data.is_relative_to(near):
                known["beside"] = path_to_text(os.path.relpath(data, run))
        content = recipe | {"format": FORMAT} | ({"known": known} if known else {})
        atomic.write_text(dump(content), self.inside(RECIPE))

    # -- log

    def append_log(self, line: dict[str, Any]) -> None:
        """Append a line to the log. Raises FieldloomError where it cannot be written."""
        append_line(self.folder / LOG, line)

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of the log. Lines that cannot be read are left out, with a warning."""
        return read_lines(self.folder / LOG)

    def rewind_log(self, stage: str, step: int) -> None:
        """Remove lines of a stage after a step: training writes them again."""
        kept = [x for x in self.read_log() if x["stage"] != stage or x["step"] <= step]
        self.write_log(kept)

    def write_log(self, lines: Sequence[dict[str, Any]]) -> None:
        atomic.write_text("".join(json.dumps(x) + "\n" for x in lines), self.inside(LOG))

    def write_json(self, name: str, content: Any) -> None:
        atomic.write_text(json.dumps(content, indent=2) + "\n", self.inside(name))

    def read_environment(self) -> dict[str, Any]:
        """The content of ``env.json``; empty where there is none."""
        path = self.folder / ENV
        content = parse_json(read_text(path), path) if path.is_file() else None
        return content if isinstance(content, dict) else {}
