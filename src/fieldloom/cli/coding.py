"""Between data and codes: encode, reconstruct, sample, interpolate."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.console import say
from fieldloom.cli.data import HDF5, codes_of, data_of, opened, part_of
from fieldloom.cli.files import check_format, write_data
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    GuidanceOption,
    KindOption,
    LabelOption,
    OutOption,
    ProjectOption,
    ResolutionOption,
    RunArgument,
    SamplerOption,
    SeedOption,
    SourceOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    given,
    parse_resolution,
)
from fieldloom.cli.outputs import check_free, check_not_own, output, suffixed
from fieldloom.errors import InputError, Interrupted

if TYPE_CHECKING:
    from torch import Tensor

    from fieldloom.system import System
    from fieldloom.types import Data


class What(StrEnum):
    codes = "codes"
    weights = "weights"


class Kept(StrEnum):
    shards = "shards"
    safetensors = "safetensors"
    hdf5 = "hdf5"


def encode(
    run: RunArgument,
    source: SourceOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder, or a file. Default: RUN/encoded.")
    ] = None,
    kind: Annotated[
        Kept | None,
        typer.Option(
            "--format",
            help="A folder of shards, one file, or a file of fit-a-nef's layout. Default: one file "
            "where --out has a suffix.",
        ),
    ] = None,
    worst: Annotated[
        float | None, typer.Option(help="Signals of a larger error have failed. Default: none.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode data into codes, shard by shard; without --source the run's test part.

    A job that was stopped goes on where it was when it is given again. Signals that fail are listed
    in the manifest, and left out.
    """
    from fieldloom.codes import bulk, nef
    from fieldloom.engine.provenance import fingerprint_weights
    from fieldloom.engine.tensors import write_tensors

    system = opened(run, device)
    data, indices = part_of(system, source)
    name = out or Path("encoded")
    if kind is None:
        kind = Kept.shards if not name.suffix else Kept.safetensors
        kind = Kept.hdf5 if name.suffix.lower() in HDF5 else kind
    if kind is not Kept.shards and not name.suffix:
        name = suffixed(name, f".{kind}")
    if kind is Kept.hdf5:
        nef.library(), nef.named(system.family)  # before the work: what is wrong shows at once
    shards = name if kind is Kept.shards else name.with_name(f"{name.name}.shards")
    if out is not None and (shards / bulk.MANIFEST).is_file():  # begun by this very command
        check_not_own(name)
        check_not_own(shards)
        path, folder = name, shards
        if kind is not Kept.shards and not wrote_codes(path):
            check_free(path)
    else:
        path, folder = (output(run, out and one, str(one)) for one in (name, shards))
    limit = float("inf") if worst is None else worst
    try:
        found = bulk.encode(system, data, indices, folder, worst=limit)
    except Interrupted as stop:
        raise Interrupted(f"{stop}; the same command goes on from here.") from None
    beside = {"places": found.indices, "errors": found.errors}
    if data.labels is not None:
        beside["labels"] = data.labels[found.indices]
    if kind is Kept.hdf5:
        nef.write(path, system.family, found.codes, beside)
    elif kind is Kept.safetensors:
        numbers, told = (
            {"failed": found.failed},
            {"verb": "encode", "weights": fingerprint_weights(system)},
        )
        write_tensors(path, {"codes": found.codes, **beside}, numbers, told)
    if kind is not Kept.shards:
        bulk.remove(folder)
    say(f"{len(found.codes)} codes of {system.family.code_shape}: {path}")


def wrote_codes(path: Path) -> bool:
    """Whether a file is one that ``encode`` writes."""
    from fieldloom.engine.tensors import read_tensors

    try:
        return read_tensors(path).made_by.get("verb") == "encode"
    except InputError:
        return False


def decode(
    run: RunArgument,
    codes: Annotated[
        str, typer.Argument(help="What encode wrote: a folder of shards, or a file of any format.")
    ],
    resolution: ResolutionOption = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 64,
    kind: KindOption = None,
    project: ProjectOption = 0,
    out: Annotated[Path | None, typer.Option(help="A folder. Default: RUN/decoded.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Decode codes, one file each: those of encode, or fields of fit-a-nef's layout (HDF5)."""
    folder = output(run, out, "decoded")
    system = opened(run, device)
    check_format(system, kind, project)
    sizes = parse_resolution(resolution)
    found = codes_of(system, codes)
    some = found[:count]
    written = write_data(system, some, sizes, folder, kind, project)
    say(f"{written} of {len(found)} codes: {folder}")


def reconstruct(
    run: RunArgument,
    source: SourceOption = None,
    resolution: ResolutionOption = None,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 64,
    kind: KindOption = None,
    project: ProjectOption = 0,
    refine: Annotated[
        What | None, typer.Option(help="Let Adam go on, for each datum, from its encoded code.")
    ] = None,
    refine_steps: Annotated[int, typer.Option(min=1, help="Of Adam.")] = 100,
    refine_rate: Annotated[
        float | None, typer.Option(help="Of Adam. Default: 0.01 on codes, 0.0001 on weights.")
    ] = None,
    refine_points: Annotated[
        int | None,
        typer.Option(min=1, help="Of a datum, at random for each step. Default: as in training."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder. Default: RUN/reconstructions.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode data and decode them again, at any resolution; one file each.

    Shapes become meshes where the originals stood; of views, an orbit is rendered. With --refine
    codes, or all weights of each function, are optimised further on what they were encoded from.
    """
    from fieldloom.evaluation import in_batches

    folder = output(run, out, "reconstructions")
    system = opened(run, device)
    check_format(system, kind, project)
    sizes = parse_resolution(resolution)
    found, indices = part_of(system, source)
    indices = indices[:count]
    data = found.read(indices)
    if refine is None:
        codes = in_batches(system.encode, "encoding", data)
    else:
        how = {"steps": refine_steps, "rate": refine_rate, "points": refine_points}
        system, codes = refined(system, data, refine, how)
    written = write_data(system, codes, sizes, folder, kind, project, data.frame)
    say(f"{written} of {len(data)} reconstructions: {folder}")


def refined(system: System, data: Data, what: What, how: dict[str, Any]) -> tuple[System, Tensor]:
    """Codes that were optimised further, and the system that decodes them; says what it brought.

    how: steps, rate and points of it.
    """
    from fieldloom.evaluation.views import psnr_of_held_out
    from fieldloom.metrics.paired import psnr

    found = system.refine(data, what.value, **how)
    steps = f"after {how['steps']} steps on {what.value}"
    say(f"PSNR of what was encoded: {found.before.mean():.2f} dB, {steps} {found.after.mean():.2f}")
    ends = (system, found.start), (found.system, found.code)
    if system.modality.held:
        before, after = (psnr_of_held_out(*end, data).mean() for end in ends)
        say(f"PSNR of held-out views: {before:.2f} dB, {steps} {after:.2f}")
    elif system.modality.partial:
        before, after = (
            psnr(own.predict_at(code, data).tensor, data.tensor).mean() for own, code in ends
        )
        say(f"PSNR of all points: {before:.2f} dB, {steps} {after:.2f}")
    return found.system, found.code


def sample(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 16,
    resolution: ResolutionOption = None,
    label: LabelOption = None,
    guidance: GuidanceOption = None,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = 0,
    kind: KindOption = None,
    project: ProjectOption = 0,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw new data: a sheet of pictures and, but for images, a file each beside it."""
    from fieldloom import export
    from fieldloom.evaluation import in_batches

    system = opened(run, device)
    check_format(system, kind, project)
    named = None if out is None else suffixed(out, ".png")
    path = output(run, named, "sampled.png")
    beside = None if out is None else suffixed(out, "")
    files = system.modality.kind != "images"
    folder = output(run, beside, "sampled") if files else None
    options = given(guidance=guidance, steps=steps, sampler=sampler, top_k=top_k, top_p=top_p,
                    temperature=temperature)  # fmt: skip
    place = None if label is None else system.class_of(label)
    codes = system.sample_codes(count, place, seed, **options)
    sizes = parse_resolution(resolution)
    system.check_room(codes, sizes)
    data = in_batches(lambda part: system.decode(part, sizes), "decoding", codes)
    sheet = export.join_images([system.modality.to_image(one) for one in data])
    if sheet is not None:
        export.write(export.png_bytes(sheet), path)
    if folder is not None:
        written = write_data(system, codes, sizes, folder, kind, project)
        say(f"{written} of {count} samples: {folder}")
    if sheet is not None:
        say(f"{count} samples: {path}")


def interpolate(
    run: RunArgument,
    source: SourceOption = None,
    first: Annotated[int, typer.Option("--from", help="Place of the first datum, or seed.")] = 0,
    last: Annotated[int, typer.Option("--to", help="Place of the last datum, or seed.")] = 1,
    sampled: Annotated[
        bool, typer.Option("--sample", help="Between samples, whose seeds --from and --to are.")
    ] = False,
    steps: Annotated[int, typer.Option(min=2, help="Data in all, both ends included.")] = 24,
    resolution: ResolutionOption = None,
    out: OutOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Go from one datum to another along the line between their codes (a GIF).

    Of a run that cannot encode, as a GAN's, and with --sample, from one sample to another: along
    the great circle between them where the prior is N(0, I).
    """
    from fieldloom import export, memory

    system = opened(run, device)
    sizes = parse_resolution(resolution)
    if system.modality.cameras() is not None:
        raise InputError("interpolate has no cameras for views: render goes around them.")
    sampled = sampled or not system.encodes
    named = f"interpolation-{'seeds-' if sampled else ''}{first}-{last}.gif"
    path = output(run, out, named)
    numbers = steps * math.prod(system.family.code_shape)
    memory.check(f"--steps {steps}", memory.FLOAT * numbers, system.permit)
    ends = between_samples if sampled else between_data
    way = system.decode(ends(system, source, first, last, steps), sizes).tensor
    pictures = [system.modality.to_image(one) for one in way]
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        raise InputError("interpolate writes pictures: this run's data cannot be shown as one.")
    frames = [export.pixels(image) for image in shown]
    export.gif(frames + frames[-2:0:-1], path)
    say(f"{steps} steps: {path}")


def between_data(system: System, source: str | None, first: int, last: int, steps: int) -> Tensor:
    """Codes from that of one datum to that of another."""
    data = data_of(system, source)
    if data.coords is not None:
        raise InputError("interpolate takes data on a grid: this run's are scattered points.")
    for place in (first, last):
        if not 0 <= place < len(data):
            raise InputError(f"--from, --to: {place} is not one of 0 .. {len(data) - 1}.")
    codes = system.encode(data.part([first, last]))
    return system.between(codes[:1], codes[1:], steps)


def between_samples(
    system: System, source: str | None, first: int, last: int, steps: int
) -> Tensor:
    """Codes from that of one sample to that of another, by their seeds."""
    from fieldloom.priors import Gaussian

    if source is not None:
        raise InputError("--source: samples come from the prior, not from data.")
    if min(first, last) < 0:
        raise InputError(f"--from {first}, --to {last}: seeds are at least 0.")
    standard = isinstance(system.prior, Gaussian) and not system.prior.learns
    a, b = (system.sample_codes(1, seed=seed) for seed in (first, last))
    return system.between(a, b, steps, spherical=standard)
