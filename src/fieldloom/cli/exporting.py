"""A field as one page that any browser opens, or as source for other engines."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

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
from fieldloom.cli.outputs import output, output_of_state, with_suffix
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError

if TYPE_CHECKING:
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
        int, typer.Option(min=0, metavar="I", help="Which datum, from 0; the first of --count.")
    ] = 0,
    sampled: Annotated[
        int | None,
        typer.Option("--sample", min=0, metavar="SEED", help="New samples of this seed instead."),
    ] = None,
    label: LabelOption = None,
    codes: Annotated[
        str | None,
        typer.Option("--codes", metavar="PATH", help="Codes that encode wrote, from --index on."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many, for the page's picker.")
    ] = 1,
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

    It is of data of the run (--index), of your own (--source), of new samples (--sample), or of
    codes that encode wrote (--codes). Of a run without codes it is the fit itself.

    Example: fieldloom export runs/letters --sample 3 --count 12
    """
    system = load_system(run, device)
    wanted = 2 if between is not None else count
    found, names = find_codes(system, source, index, sampled, label, codes, wanted)
    if between is not None:
        found, names = step_between(found, names, between)
    suffix = ".py" if format is ExportFormat.torch else f".{format.value}"
    path = output(run, None if out is None else with_suffix(out, suffix), f"field{suffix}")
    path = output_of_state(system, path, out)
    if format is ExportFormat.html:
        from fieldloom.pages import write_page

        write_page(system, found, path, names, half=half, slider=between is not None)
        say(f"written: {path} ({path.stat().st_size / 1e3:,.0f} kB, opens in any browser)")
        if half:
            from fieldloom.pages import compile_code
            from fieldloom.programs.run import lose_by_half

            lost = lose_by_half(compile_code(system, found[:1]))
            say(f"half: values are off by {lost:.2g} of their standard deviation")
        return
    if len(found) > 1 or half:
        raise InputError(
            f"--format {format.value} is of one function: --count, --between and --half are of "
            "html."
        )
    from fieldloom.pages import compile_code
    from fieldloom.programs.files import write_program

    files = write_program(compile_code(system, found), path, format.value)
    beside = f", and its weights: {files[1]}" if len(files) > 1 else ""
    say(f"written: {files[0]}{beside}")


def find_codes(
    system: System,
    source: str | None,
    index: int,
    sampled: int | None,
    label: str | None,
    codes: str | None,
    count: int,
) -> tuple[Code, list[str]]:
    """Codes (count, tokens, width) by the options of ``export``, and their names."""
    from fieldloom.inputs import held_out_part

    ways = {"--sample": sampled is not None, "--source": source is not None,
            "--codes": codes is not None}  # fmt: skip
    given = [name for name, used in ways.items() if used]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} each say what is exported: give one of them.")
    if label is not None and sampled is None:
        raise InputError("--label is of new samples: give --sample SEED, too.")
    if sampled is not None:
        if index:
            raise InputError("--index is of data, and --sample draws new ones: give one.")
        drawn = system.sample_codes(count, label, sampled)
        return drawn, [f"sample {sampled}.{i}" for i in range(count)]
    if not system.family.has_code:
        if given or index or count > 1:
            raise InputError("this run fits one datum: leave out what chooses among several.")
        return system.as_code(None), ["field"]
    if codes is not None:
        from fieldloom.codes.files import read_codes

        held = read_codes(codes, system)
        check_range(index, count, len(held), "codes")
        return held[index : index + count], [f"code {index + i}" for i in range(count)]
    data, indices = held_out_part(system, source)
    check_range(index, count, len(indices), "data")
    which = indices[index : index + count]
    names = [name_datum(data, int(i)) for i in which]
    return system.encode(data.read(which)), names


def check_range(index: int, count: int, there: int, what: str) -> None:
    """Raise InputError where there are not so many from an index on."""
    if index + count > there:
        raise InputError(
            f"--index {index} and --count {count} ask for {what} up to {index + count - 1}: there "
            f"are 0 to {there - 1}."
        )


def name_datum(data: object, index: int) -> str:
    """``datum 3``, with its class where there is one."""
    labels, names = getattr(data, "labels", None), getattr(data, "names", ())
    if labels is None or not names:
        return f"datum {index}"
    return f"datum {index}, {names[int(labels[index])]}"


def step_between(codes: Code, names: list[str], steps: int) -> tuple[Code, list[str]]:
    """Codes from the first of two to the second, and what each step is called."""
    from fieldloom.interpolation import interpolate_codes

    found = interpolate_codes(codes[:1], codes[1:], steps)
    far = [round(100 * i / (steps - 1)) for i in range(steps)]
    return found, [f"{100 - x} % {names[0]}, {x} % {names[1]}" for x in far]
