"""The command line. Verbs are short; torch is imported by the verb that needs it."""

from __future__ import annotations

import errno
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.errors import FieldloomError, InputError, Interrupted, unknown
from fieldloom.process import quicken

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.modalities.sources import Source
    from fieldloom.system import System

app = typer.Typer(
    help="Fit, encode, generate and evaluate neural fields.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class StageOf(StrEnum):
    field = "field"
    codec = "codec"
    prior = "prior"
    all = "all"


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key; repeatable."),
]
SourceOption = Annotated[
    str | None,
    typer.Option(help="Your own data instead of the run's: pictures, arrays, meshes, scenes."),
]
ResolutionOption = Annotated[
    str | None, typer.Option(help="Samples of each axis: 256, or 256x128. Default: as trained.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="What to write. Default: a name inside the run.")
]
KindOption = Annotated[
    str | None,
    typer.Option("--format", help="Of each file: glb, ply, obj, stl, npy; gif, mp4, png."),
]
ProjectOption = Annotated[
    int, typer.Option(min=0, help="Newton steps of a mesh's vertices onto the surface.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the random numbers.")]


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE[:VARIANT]", help="A bundled name, or a .toml.")
    ],
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/RECIPE-VARIANT.")
    ] = None,
    stage: Annotated[StageOf, typer.Option(help="Which stages to train.")] = StageOf.all,
    set_: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.")] = None,
    device: DeviceOption = Device.auto,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run, with its own recipe.")
    ] = False,
) -> None:
    """Train a recipe into a run directory."""
    from fieldloom.recipe import load

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    loaded = load(recipe, overrides)
    folder = run or Path("runs") / Path(recipe).name.replace(".toml", "").replace(":", "-")
    if resume and overrides:
        raise InputError(
            "--resume goes on with the run's own recipe: --set and --seed cannot change it."
        )

    from fieldloom.engine.run import Run
    from fieldloom.engine.train import train as start
    from fieldloom.evaluate import parse

    parse(loaded.get("evaluate", {}))  # what is wrong there should not show after hours
    if resume and Run(folder).exists and Run(folder).read_recipe().get("recipe") != recipe:
        raise InputError(f"--resume: '{folder}' is a run of another recipe than '{recipe}'.")

    start(loaded, str(folder), stage.value, device.value, resume)
    say(f"trained: {folder}")


@app.command()
def encode(
    run: RunArgument,
    source: SourceOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode data into codes (.safetensors); without --source the run's test part."""
    from fieldloom.engine.run import write_tensors

    system = opened(run, device)
    data, about = data_of(system, source)
    path = out or Path(run) / "encoded.safetensors"
    write_tensors(path, {"codes": batched(system.encode, data, "encoding", **about)}, {})
    say(f"{len(data)} codes of {system.family.code_shape}: {path}")


@app.command()
def reconstruct(
    run: RunArgument,
    source: SourceOption = None,
    resolution: ResolutionOption = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 64,
    kind: KindOption = None,
    project: ProjectOption = 0,
    out: Annotated[
        Path | None, typer.Option(help="A folder. Default: RUN/reconstructions.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode data and decode them again, at any resolution; one file each.

    Shapes become meshes where the originals stood; of views, an orbit is rendered.
    """
    system = opened(run, device)
    check_format(system, kind, project)
    sizes = parse_resolution(resolution)
    data, about = data_of(system, source)
    data, about = data[:count], {key: value[:count] for key, value in about.items()}
    codes = batched(system.encode, data, "encoding", **about)
    folder = out or Path(run) / "reconstructions"
    written = write_data(system, codes, sizes, folder, kind, project, about)
    say(f"{written} of {len(data)} reconstructions: {folder}")


@app.command()
def sample(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 16,
    resolution: ResolutionOption = None,
    label: Annotated[str | None, typer.Option(help="A class, by name or number.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1 is plain conditional sampling.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, ddpm or dpm++.")] = None,
    seed: SeedOption = 0,
    kind: KindOption = None,
    project: ProjectOption = 0,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw new data: a sheet of pictures and, but for images, a file each beside it."""
    from fieldloom import export

    system = opened(run, device)
    check_format(system, kind, project)
    named = {"guidance": guidance, "steps": steps, "sampler": sampler}
    options = {key: value for key, value in named.items() if value is not None}
    place = None if label is None else class_of(system, label)
    codes = system.sample_codes(count, place, seed, **options)
    sizes = parse_resolution(resolution)
    path = out or Path(run) / "sampled.png"
    data = batched(lambda part: system.decode(part, sizes), codes, "decoding")
    sheet = export.pictures([system.modality.picture(one) for one in data])
    if sheet is not None:
        export.write(export.png_bytes(sheet), path.with_suffix(".png"))
    if data.ndim != 4:
        folder = path.with_suffix("")
        written = write_data(system, codes, sizes, folder, kind, project, {})
        say(f"{written} of {count} samples: {folder}")
    if sheet is not None:
        say(f"{count} samples: {path}")


@app.command()
def render(
    run: RunArgument,
    source: SourceOption = None,
    index: Annotated[int, typer.Option(min=0, help="Which of the data to encode.")] = 0,
    sampled: Annotated[
        int | None, typer.Option("--sample", min=0, help="Instead a sample, of this seed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Pictures, all around it.")] = 36,
    held: Annotated[bool, typer.Option("--held", help="Instead the views held out.")] = False,
    depth: Annotated[bool, typer.Option("--depth", help="Distances instead of colours.")] = False,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go around a shape or a scene: a GIF, an MP4, or a sheet of pictures (PNG)."""
    from fieldloom import export
    from fieldloom.modalities import Views, Voxels

    system = opened(run, device)
    sizes = parse_resolution(resolution)
    if not isinstance(system.modality, Views | Voxels):
        raise InputError("render goes around shapes and scenes: this run has neither.")
    if (held or depth) and not isinstance(system.modality, Views):
        raise InputError("--held and --depth are of views: this run has shapes.")
    path = out or Path(run) / ("held.png" if held else "orbit.gif")
    export.check_frames(path)
    if held and sampled is not None:
        raise InputError("--held: a sample has no views that were held out.")
    data, about = (None, {}) if sampled is not None else data_of(system, source)
    if data is None:
        code = system.sample_codes(1, seed=sampled or 0)
    else:
        if index >= len(data):
            raise InputError(f"--index {index} is not one of 0 .. {len(data) - 1}.")
        one = slice(index, index + 1)
        data, about = data[one], {key: value[one] for key, value in about.items()}
        code = system.encode(data, **about)
    if isinstance(system.modality, Voxels):
        if frames < 2:
            raise InputError("--frames 1: a turn has at least 2.")
        turned = system.modality.turn(system.predict(code, sizes)[0], frames)
    else:
        cameras = system.modality.cameras(count=frames)
        if held:
            if not system.modality.held:
                raise InputError("--held: this run held no views out (modality.held is 0).")
            kept = about["c2w"].shape[1] - system.modality.held
            cameras = {key: about[key][0, kept:] for key in ("c2w", "intrinsics")}
        draw = system.depth if depth else system.decode
        turned = list(draw(code, sizes, cameras)[0])
        if held and data is not None and not depth and sizes is None:
            import torch

            turned = [torch.cat(pair, 2) for pair in zip(data[0, kept:], turned, strict=True)]
    export.frames([export.pixels(picture) for picture in turned], path)
    say(f"{len(turned)} pictures: {path}")


@app.command()
def interpolate(
    run: RunArgument,
    source: SourceOption = None,
    first: Annotated[int, typer.Option("--from", help="Place of the first datum.")] = 0,
    last: Annotated[int, typer.Option("--to", help="Place of the last datum.")] = 1,
    steps: Annotated[int, typer.Option(min=2, help="Data in all, both ends included.")] = 24,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go from one datum to another along the line between their codes (a GIF)."""
    from fieldloom import export

    system = opened(run, device)
    if system.modality.coord_dim == 6:
        raise InputError("interpolate has no cameras for views: render goes around them.")
    data, about = data_of(system, source)
    if about.keys() - {"frame"}:
        raise InputError("interpolate takes data on a grid: this run's are scattered points.")
    for place in (first, last):
        if not 0 <= place < len(data):
            raise InputError(f"--from, --to: {place} is not one of 0 .. {len(data) - 1}.")
    way = system.interpolate(data[first], data[last], steps, parse_resolution(resolution))
    pictures = [system.modality.picture(one) for one in way]
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        raise InputError("interpolate writes pictures: this run's data cannot be shown as one.")
    path = out or Path(run) / f"interpolation-{first}-{last}.gif"
    frames = [export.pixels(image) for image in shown]
    export.gif(frames + frames[-2:0:-1], path)
    say(f"{steps} steps: {path}")


@app.command()
def evaluate(
    run: RunArgument,
    source: SourceOption = None,
    resolution: ResolutionOption = None,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="A folder. Default: RUN, or RUN/NAME.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure a run; writes report.json, report.html and pictures into it.

    With --source only the reconstruction of those data is measured, and written beside.
    """
    from fieldloom.recipe import merge, parse_override

    system = opened(run, device)
    for override in set_ or []:
        change = parse_override(override)
        if set(change) != {"evaluate"}:
            raise InputError(
                f"--set {override}: only keys of 'evaluate' can change after training."
            )
        system.recipe = merge(system.recipe, change)
    sizes = parse_resolution(resolution)
    system.modality.grid(sizes)  # a resolution that does not fit should not show after the work
    folder = out or (Path(run) / Path(source).stem if source else Path(run))
    measure(folder, system, source_of(system, source), sizes, foreign=source is not None)


@app.command()
def info(run: RunArgument) -> None:
    """What a run is, how far it is and what it holds."""
    from rich.table import Table

    from fieldloom.engine.run import Run
    from fieldloom.metrics.cost import inference, parameters
    from fieldloom.system import build

    folder = Run(run).require()
    if (folder.folder / "model.safetensors").is_file():
        system = folder.read_system("cpu")
    else:  # the first stage is not finished yet
        system = build(folder.read_recipe())
    recipe, log = system.recipe, folder.read_log()
    rows = {
        "recipe": recipe.get("recipe", "-"),
        "paper": recipe.get("paper", "-"),
        "seed": recipe.get("seed", 0),
        "finished stages": ", ".join(system.finished) or "none",
        "field, conditioner": " x ".join(part_name(recipe, k) for k in ("field", "conditioner")),
        "encoder, prior": " x ".join(part_name(recipe, k) for k in ("encoder", "prior")),
        "code": f"{system.family.code_shape[0]} x {system.family.code_shape[1]}",
        "learnable parameters": f"{parameters(system.family):,}",
        "inference parameters": f"{inference(system.family.field.slots):,}",
        "prior's parameters": f"{parameters(system.prior):,}" if system.prior else "-",
        "signals, classes": "{signals}, {classes}".format(
            **recipe.get("known", {"signals": 0, "classes": 0})
        ),
        "last line of the log": log[-1] if log else "-",
    }
    table = Table(show_header=False, box=None)
    for key, value in rows.items():
        table.add_row(key, str(value))
    console().print(table)


@app.command()
def cost(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE[:VARIANT]]...", help="Default: mNIF's Tables 1 to 3."),
    ] = None,
    timed: Annotated[bool, typer.Option(help="Measure speed and memory, too.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON, too.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Parameters, multiply-accumulates, speed and memory of recipes, beside what was published."""
    import json
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rich.table import Table

    from fieldloom import export, report
    from fieldloom.engine import device as devices
    from fieldloom.evaluate.costs import COLUMNS, PUBLISHED, row
    from fieldloom.recipe import load

    tables = {"recipes": recipes} if recipes else PUBLISHED
    for names in tables.values():
        for name in names:
            load(name)  # a wrong name should not show after minutes
    found: dict[str, list[dict[str, Any]]] = {}
    for title, names in tables.items():
        table = Table("ours (published)", *COLUMNS, title=title)
        found[title] = []
        for name in names:  # each in a process of its own, so that its memory is its own
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                measured = pool.submit(row, name, device.value, timed).result()
            found[title].append(measured)
            cells = []
            for key in COLUMNS:
                ours, said = measured[key]["ours"], measured[key]["published"]
                shown = "-" if ours is None else report.number(ours)
                cells.append(shown if said is None else f"{shown} ({report.number(said)})")
            table.add_row(name, *cells)
        console().print(table)
    if out is not None:
        where = devices.environment(devices.pick(device.value))
        export.text(json.dumps({"environment": where, "tables": found}, indent=2) + "\n", out)
        say(f"written: {out}")


@app.command(name="list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="fields, conditioners, ... sources, recipes.")
    ] = None,
) -> None:
    """The names that recipes can use."""
    from fieldloom import recipe

    groups: dict[str, Any] = {"recipes": recipe.names()}
    if what != "recipes":
        from fieldloom.engine.stage import OPTIMIZERS
        from fieldloom.metrics.features import DETECTORS
        from fieldloom.system import TABLES

        tables = {k: v for k, v in TABLES.items() if k not in ("start", "unseen")}
        plurals = {"modality": "modalities", "penalty": "penalties"}
        groups |= {plurals.get(kind, f"{kind}s"): table for kind, table in tables.items()}
        groups |= {"optimizers": OPTIMIZERS, "detectors": DETECTORS}
    if what is not None and what not in groups:
        raise unknown("list", what, groups)
    for group in [what] if what else groups:
        say(f"{group}:")
        for name, entry in groups[group].items():
            say(
                f"  {name}: {', '.join(entry)}"
                if isinstance(entry, list)
                else f"  {name}: {first_line(entry)}"
            )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run and its report.")] = Path(
        "outputs/demo"
    ),
    device: DeviceOption = Device.auto,
) -> None:
    """Train mNIF on scikit-learn's digits, sample from it, measure it: minutes on a laptop."""
    import time

    from fieldloom.engine.run import Run
    from fieldloom.engine.train import train as start
    from fieldloom.recipe import load

    began = time.monotonic()
    trained = (out / "report.json").is_file()
    system = start(load("mnif:digits"), str(out), "all", device.value, resume=Run(out).exists)
    took = None if trained else time.monotonic() - began
    measure(out, system, source_of(system, None), 64, seconds=took)
    say(
        f"{'trained before' if took is None else f'trained in {took:.0f} s'}: {out / 'report.html'}"
    )


# -- what the verbs share


def opened(run: str, device: Device) -> System:
    from fieldloom.engine.run import load

    return load(run, device.value)


def source_of(system: System, path: str | None) -> Source:
    """The run's own source, or a path's data, all of them to test on."""
    from fieldloom.modalities.sources import spec_of
    from fieldloom.system import open_source

    if path is None:
        return open_source(system.recipe, system.modality)
    own = system.recipe.get("source", {})
    spec = spec_of(path)
    if isinstance(own, dict) and own.get("name") == spec["name"]:  # read as in training
        spec = own | spec
        for key in ("limit", "key", "label", "prefix"):
            spec.pop(key, None)
    trained = system.recipe.get("known", {}).get("filter", "none")
    spec |= {} if trained == "none" else {"filter": trained}
    return open_source({"source": spec}, system.modality)


def data_of(system: System, path: str | None) -> tuple[Tensor, dict[str, Any]]:
    """The test part of the run's source, or all data at a path; and what they have beside."""
    source = source_of(system, path)
    places = source.test if path is None and len(source.test) else source.train
    return source.read(places), source.about(places)


def check_format(system: System, kind: str | None, project: int) -> None:
    """Raise InputError for a file format that the run's data do not have."""
    from fieldloom.modalities import Voxels

    formats = [suffix[1:] for suffix in system.modality.formats]
    if kind is not None and kind not in formats:
        raise unknown("--format for this run's data", kind, formats)
    if project and not isinstance(system.modality, Voxels):
        raise InputError("--project moves vertices of meshes: this run has no shapes.")


def write_data(
    system: System,
    codes: Tensor,
    resolution: Any,
    folder: Path,
    kind: str | None,
    project: int,
    about: dict[str, Any],
) -> int:
    """The data of codes, a file each; how many could be written. Shapes without one are named."""
    from fieldloom import export
    from fieldloom.modalities import Voxels

    suffix = "" if kind is None else f".{kind}"
    empty = []
    for i in range(len(codes)):
        named = folder / f"{i:04d}{suffix}"
        frame = about["frame"][i] if "frame" in about else None
        code = codes[i : i + 1]
        if project and isinstance(system.modality, Voxels):
            mesh = system.mesh(code, resolution, project, frame)
            there = mesh is not None
            if mesh is not None:
                path = named if suffix else named.with_suffix(".glb")
                export.mesh(mesh.vertices, mesh.faces, path)
        else:
            one = system.predict(code, resolution)[0]
            there = system.modality.save(one, named, frame=frame) is not None
        if not there:
            empty.append(i)
    if empty:
        named_ones = ", ".join(map(str, empty[:8])) + (" ..." if len(empty) > 8 else "")
        warnings.warn(f"{len(empty)} of {len(codes)} have no surface: {named_ones}.", stacklevel=2)
    return len(codes) - len(empty)


def measure(
    folder: Path,
    system: System,
    source: Source,
    resolution: Any,
    seconds: float | None = None,
    foreign: bool = False,
) -> None:
    """Figures and report of a system on its own source, or (``foreign``) on data of any other."""
    from rich.table import Table

    from fieldloom import report
    from fieldloom.engine.run import Run
    from fieldloom.evaluate import evaluate as figures_of

    result = figures_of(system, source, foreign)
    report.write(Run(folder), system, source, result, resolution, seconds)
    table = Table("figure", "value", "measured on", "how")
    for figure in result.figures:
        table.add_row(figure.name, report.number(figure.value), figure.of, figure.how)
    console().print(table)
    say(f"report: {folder / 'report.html'}")


def batched(work: Any, data: Tensor, title: str, **meta: Any) -> Tensor:
    from fieldloom.evaluate import in_batches

    return in_batches(work, data, title, 16 if meta else 64, **meta)


def class_of(system: System, label: str) -> int:
    """A class by its name, or by its number."""
    names = system.recipe.get("known", {}).get("names", [])
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return int(label)
    raise unknown("class", label, names)


def parse_resolution(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--resolution {text}: a positive number, or one an axis, as 256x128.")
    return int(parts[0]) if len(parts) == 1 else tuple(int(part) for part in parts)


def part_name(recipe: dict[str, Any], section: str) -> str:
    spec = recipe.get(section, "none")
    return spec if isinstance(spec, str) else str(spec.get("name"))


def first_line(entry: Any) -> str:
    inner = getattr(entry, "func", entry)
    return (inner.__doc__ or "").strip().partition("\n")[0]


def console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Run the command line: exit with 2 for wrong input, 1 for a failed run, 130 if stopped."""
    quicken()
    warnings.showwarning = lambda message, *rest, **named: print(
        f"warning: {message}", file=sys.stderr
    )
    try:
        app()
    except InputError as error:
        stop(str(error), 2)
    except Interrupted as error:
        stop(f"{error}; --resume goes on from here.", 130)
    except FieldloomError as error:
        stop(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        stop(f"out of memory: {str(error).partition(chr(10))[0]}", 1)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        where = f" ('{error.filename}')" if error.filename else ""
        stop(f"{reason}{where}; what was there before is unchanged.", 1)
    except KeyboardInterrupt:
        stop("stopped.", 130)


def stop(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
