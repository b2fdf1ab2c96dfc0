"""The run directory: tensors are safetensors, the rest is text; no pickle.

    recipe.toml        the resolved recipe
    model.safetensors  all weights of the system, and which stages are finished
    codes.safetensors  raw codes of the training data, of each its place in them and final error
    codes/             shards of them, while they are not all there
    state.safetensors  where an unfinished stage is
    log.jsonl, env.json, report.json, report.html, pictures

It can be moved and loaded elsewhere. Every file is written beside its old self, then renamed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fieldloom import export
from fieldloom.engine import device as devices
from fieldloom.engine.loop import State, load_weights
from fieldloom.errors import FieldloomError, InputError
from fieldloom.permit import NOTHING, Permit
from fieldloom.recipe import Recipe, dump, validate
from fieldloom.system import System, assemble


def write_tensors(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Tensors and JSON-able numbers in one safetensors file."""
    whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content = to_bytes(whole, {"fieldloom": json.dumps(numbers)})
    export.write(content, path)


def read_tensors(path: Path) -> State:
    """What ``write_tensors`` wrote. Raises InputError where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"'{path}' does not exist: the run has not come so far, or is no run.")
    try:
        with safe_open(path, "pt") as file:
            numbers = json.loads((file.metadata() or {}).get("fieldloom", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"'{path}' is damaged and cannot be read: {error}.") from None


class Run:
    """A run's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        return (self.folder / "recipe.toml").is_file()

    def require(self) -> Run:
        if not self.exists:
            raise InputError(f"'{self.folder}' is not a run: it holds no recipe.toml.")
        return self

    # -- recipe

    def read_recipe(self) -> Recipe:
        path = self.require().folder / "recipe.toml"
        try:
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"'{path}' is not valid TOML: {error}.") from None
        validate(recipe)
        return recipe

    def write_recipe(self, recipe: Recipe) -> None:
        export.text(dump(recipe), self.folder / "recipe.toml")

    # -- weights

    def write_system(self, system: System) -> None:
        numbers = {"finished": system.finished}
        write_tensors(self.folder / "model.safetensors", system.state_dict(), numbers)

    def read_system(self, device: str = "auto", permit: Permit = NOTHING) -> System:
        """The system with the run's weights; knows which stages are finished."""
        system = assemble(self.read_recipe(), permit)
        tensors, numbers = read_tensors(self.folder / "model.safetensors")
        load_weights(system, tensors, f"'{self.folder / 'model.safetensors'}'")
        system.finished = list(numbers.get("finished", []))
        return system.to(devices.pick(device))

    def write_codes(
        self,
        codes: Tensor,
        labels: Tensor | None,
        beside: dict[str, Tensor] | None = None,
        numbers: dict[str, Any] | None = None,
    ) -> None:
        """beside: what else there is of each code (its place, its error); numbers: JSON-able."""
        tensors = {"codes": codes} | ({} if labels is None else {"labels": labels}) | (beside or {})
        write_tensors(self.folder / "codes.safetensors", tensors, numbers or {})

    def read_codes(self) -> tuple[Tensor, Tensor | None]:
        """Raw codes of the training signals, in their order without those that failed; labels."""
        tensors, _ = read_tensors(self.folder / "codes.safetensors")
        return tensors["codes"], tensors.get("labels")

    # -- an unfinished stage

    def write_state(self, stage: str, state: State) -> None:
        tensors, numbers = state
        write_tensors(self.folder / "state.safetensors", tensors, numbers | {"stage": stage})

    def read_state(self, stage: str) -> State | None:
        """Where the stage was interrupted, if it was."""
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return None
        tensors, numbers = read_tensors(path)
        return (tensors, numbers) if numbers["stage"] == stage else None

    def drop_state(self) -> None:
        (self.folder / "state.safetensors").unlink(missing_ok=True)

    # -- log

    def log(self, line: dict[str, Any]) -> None:
        try:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise FieldloomError(f"'{self.folder}' cannot be written: {error.strerror}.") from None

    def read_log(self) -> list[dict[str, Any]]:
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:  # the end of a line that a full disk or a power cut tore
                continue
        return lines

    def rewind_log(self, stage: str, step: int) -> None:
        """Forget lines of a stage beyond a step: they will be written again."""
        kept = [x for x in self.read_log() if x.get("stage") != stage or x.get("step", 0) <= step]
        export.text("".join(json.dumps(x) + "\n" for x in kept), self.folder / "log.jsonl")

    def write_json(self, name: str, content: Any) -> None:
        export.text(json.dumps(content, indent=2) + "\n", self.folder / name)


def save(system: System, folder: str | Path) -> Path:
    """Write a system as a new run: its recipe and its weights. Returns the folder.

    Raises InputError where the folder holds a run already.
    """
    run = Run(folder)
    if run.exists:
        raise InputError(f"'{folder}' holds a run already: choose another folder.")
    run.write_system(system)
    run.write_json("env.json", devices.environment(system.device))
    run.write_recipe(system.recipe)
    return run.folder


def load(
    run: str | Path,
    device: str = "auto",
    *,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
) -> System:
    """The trained system of a run directory. Raises InputError where it is none, or damaged.

    Nothing in the folder can run code, or reach for the network. trust: modules whose classes its
    recipe may name as ``module:Class``; network: whether its data may be fetched; large: try sizes
    beyond the limits on files and memory.
    """
    return Run(run).read_system(device, Permit(tuple(trust), network, large))
