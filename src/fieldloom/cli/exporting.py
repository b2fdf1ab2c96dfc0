"""A field as one page that any browser opens, or as source for other engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from fieldloom.cli.console import say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    LabelOption,
    OutOption,
    RunArgument,
    SourceOption,
)
from fieldloom.cli.outputs import check_free, output, output_of_state, with_suffix
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError, in_words_of, quote

if TYPE_CHECKING:
    from fieldloom.modalities.sources import Source
    from fieldloom.system import System
    from fieldloom.types import Code


class ExportFormat(StrEnum):
    html = "html"
    torch = "torch"
    onnx = "onnx"
    glsl = "glsl"
    wgsl = "wgsl"


def export(
    run: RunArgument,
    source: SourceOption = None,
    index: Annotated[
        list[int] | None,
        typer.Option(min=0, metavar="I", help="Which datum, from 0; may be repeated."),
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A file of your own, which is encoded; may be repeated."),
    ] = None,
    sampled: Annotated[
        list[int] | None,
        typer.Option("--sample", min=0, metavar="SEED", help="A new sample; may be repeated."),
    ] = None,
    label: LabelOption = None,
    codes: Annotated[
        str | None,
        typer.Option(
            "--codes", "--code", metavar="PATH", help="--index is of the codes that encode wrote."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="So many from each --index and --sample on."),
    ] = None,
    between: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="N", help="N steps from the first of two to the second, for a slider."
        ),
    ] = None,
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="html: a page that draws the field. Its network alone: torch (a file of plain "
            "PyTorch), onnx, or a shader's source, glsl, wgsl."
        ),
    ] = ExportFormat.html,
    half: Annotated[
        bool, typer.Option("--half", help="Of html: weights as half-precision numbers.")
    ] = False,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Write a field as one HTML file that draws it in any browser, at any zoom, or for engines.

    It is of data of the run (--index), of your own (--signal, or --source and --index), of new
    samples (--sample), or of codes that encode wrote (--codes). Several become a page with a
    picker; --between goes from one to another, whatever the two are. Of a run without codes it is
    the fit itself.

    Example: fieldloom export runs/letters --sample 3 --count 12

    Example: fieldloom export runs/letters --signal a.png --sample 3 --between 16
    """
    from fieldloom.api import SUFFIXES, export_field
    from fieldloom.programs.files import BESIDE

    if half and format is not ExportFormat.html:
        raise InputError("--half is of --format html alone.")
    system = load_system(run, device)
    suffix = SUFFIXES[format.value]
    path = output(run, None if out is None else with_suffix(out, suffix), f"field{suffix}")
    if out is not None and format.value in BESIDE:
        check_free(path.with_suffix(BESIDE[format.value]))
    asked = Asked(source, index or [], signal or [], sampled or [], label, codes, count or 1)
    if format is not ExportFormat.html and (asked.total > 1 or between is not None):
        raise InputError(f"--format {format.value} is of one function: several are of html.")
    if between is None:
        found = find_functions(system, asked)
    else:
        found = step_between(system, asked, count, between)
    path = output_of_state(system, path, out)
    files = export_field(
        system, path, *found, slider=between is not None, half=half, overwrite=True
    )
    if format is not ExportFormat.html:
        beside = f", and its weights: {files[1]}" if len(files) > 1 else ""
        say(f"written: {files[0]}{beside}")
        return
    say(f"written: {path} ({path.stat().st_size / 1e3:,.0f} kB, opens in any browser)")
    if half:
        from fieldloom.pages import compile_code
        from fieldloom.programs.run import lose_by_half

        lost = lose_by_half(compile_code(system, found.codes[:1]))
        say(f"half: values are off by {lost:.2g} of their standard deviation")


@dataclass(frozen=True)
class Asked:
    """Which functions are exported. indices: of data, or of codes; seeds: of samples; count: how
    many of each index and seed."""

    source: str | None
    indices: Sequence[int]
    files: Sequence[str]
    seeds: Sequence[int]
    label: str | None
    codes: str | None
    count: int

    @property
    def has_data(self) -> bool:
        """Whether not all of them are samples."""
        return bool(self.source or self.indices or self.files or self.codes)

    @property
    def of_a_set(self) -> int:
        """How many are of a set of data, or of codes: its first, where nothing else is chosen."""
        chosen = self.indices or self.codes or self.source or not (self.files or self.seeds)
        return (len(self.indices) or 1) * self.count if chosen else 0

    @property
    def total(self) -> int:
        return self.of_a_set + len(self.files) + len(self.seeds) * self.count


class Functions(NamedTuple):
    """codes: (functions, tokens, width); names: what each is called."""

    codes: Code
    names: list[str]


def find_functions(system: System, asked: Asked) -> Functions:
    """The functions of data, of files, and of samples, in this order."""
    import torch

    if asked.source is not None and asked.codes is not None:
        raise InputError("--source and --codes each say what --index is of: give one of them.")
    if asked.label is not None and not asked.seeds:
        raise InputError("--label is of new samples: give --sample SEED, too.")
    if not system.family.has_code:
        if asked.has_data or asked.seeds or asked.count > 1:
            raise InputError("this run fits one datum: leave out what chooses among several.")
        return Functions(system.as_code(None), ["field"])
    parts = []
    if asked.of_a_set:
        check_size(system, asked.of_a_set)
        parts.append(
            stored_functions(system, asked) if asked.codes else data_functions(system, asked)
        )
    if asked.files:
        check_size(system, len(asked.files))
        parts.append(file_functions(system, asked.files))
    if asked.seeds:
        check_size(system, len(asked.seeds) * asked.count)
        parts.append(sample_functions(system, asked))
    codes = torch.cat([part.codes.cpu() for part in parts])
    return Functions(codes, [name for part in parts for name in part.names])


def check_size(system: System, count: int) -> None:
    """Raise InputError where the numbers of so many functions need more memory than there is."""
    from fieldloom import memory

    size = 4 * memory.FLOAT * count * system.family.numbers
    memory.check(f"{count} functions", size, system.permit)


def data_functions(system: System, asked: Asked) -> Functions:
    """Of data of the run, or of ``--source``."""
    from fieldloom.inputs import held_out_part

    if not system.encodes:
        raise InputError("this run cannot encode data: give --sample SEED.")
    data, indices = held_out_part(system, asked.source)
    which = indices[spread_indices(asked, len(indices), "data")]
    return Functions(system.encode(data.read(which)), [name_datum(data, int(i)) for i in which])


def stored_functions(system: System, asked: Asked) -> Functions:
    """Of codes that ``encode`` wrote."""
    from fieldloom.codes.files import open_codes

    held = open_codes(str(asked.codes), system)
    which = spread_indices(asked, len(held), "codes")
    return Functions(held[which], [f"code {i}" for i in which])


def file_functions(system: System, files: Sequence[str]) -> Functions:
    """Of files of one's own, encoded."""
    import torch

    from fieldloom.inputs import held_out_part

    if not system.encodes:
        raise InputError("this run cannot encode a --signal: give --sample SEED.")
    codes = []
    for file in files:
        with in_words_of({"source.path": "--signal"}):
            data, indices = held_out_part(system, file)
        if len(indices) != 1:
            raise InputError(
                f"--signal {quote(file)} holds {len(indices)} data, and is of one: --source takes "
                "several."
            )
        codes.append(system.encode(data.read(indices)))
    return Functions(torch.cat(codes), [Path(file).name for file in files])


def sample_functions(system: System, asked: Asked) -> Functions:
    """Of new samples, ``count`` of each seed."""
    import torch

    codes = [system.sample_codes(asked.count, asked.label, seed) for seed in asked.seeds]
    own = f", {asked.label}" if asked.label is not None else ""
    each = [f".{i}" for i in range(asked.count)] if asked.count > 1 else [""]
    return Functions(
        torch.cat(codes), [f"sample {seed}{i}{own}" for seed in asked.seeds for i in each]
    )


def spread_indices(asked: Asked, there: int, what: str) -> list[int]:
    """The indices from each ``--index`` on. Raises InputError where there are not so many."""
    found = [i + k for i in asked.indices or [0] for k in range(asked.count)]
    if max(found) >= there:
        raise InputError(
            f"--index and --count ask for {what} up to {max(found)}: there are 0 to {there - 1}."
        )
    return found


def name_datum(data: Source, index: int) -> str:
    """``datum 3``, with its class where there is one."""
    if data.labels is None or not data.names:
        return f"datum {index}"
    return f"datum {index}, {data.names[int(data.labels[index])]}"


def step_between(system: System, asked: Asked, count: int | None, steps: int) -> Functions:
    """Functions from the first of two to the second, and what each step is called.

    Where one alone is chosen, it goes to the next datum, or to the next sample of its seed.
    """
    from fieldloom.interpolation import interpolate_codes

    if count is not None:
        raise InputError("--between goes from one function to another: leave out --count.")
    check_size(system, steps)
    ends = find_functions(system, asked)
    if len(ends.codes) == 1 and system.family.has_code and not asked.files:
        ends = find_functions(system, replace(asked, count=2))
    if len(ends.codes) != 2:
        raise InputError(
            f"--between goes from one function to another: choose two, not {len(ends.codes)}."
        )
    spherical = system.has_standard_prior and not asked.has_data and bool(asked.seeds)
    codes = interpolate_codes(ends.codes[:1], ends.codes[1:], steps, spherical)
    far = [round(100 * i / (steps - 1)) for i in range(steps)]
    first, last = ends.names
    return Functions(codes, [f"{100 - x} % {first}, {x} % {last}" for x in far])
