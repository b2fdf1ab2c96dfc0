"""Between data and codes: encode, decode, reconstruct, sample."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fieldloom.cli.bulk import job_folder, job_of, resumable, tell
from fieldloom.cli.console import say
from fieldloom.cli.options import (
    Device,
    DeviceOption,
    ExecutorOption,
    GuidanceOption,
    JobOption,
    KindOption,
    LabelOption,
    OutOption,
    ProjectOption,
    ResolutionOption,
    RunArgument,
    SamplerOption,
    SeedOption,
    ShardOption,
    SourceOption,
    SpacingOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    WorkersOption,
    parse_resolution,
    permit,
    select_given,
)
from fieldloom.cli.outputs import (
    check_free,
    check_not_own,
    folder_output,
    output,
    output_of_state,
    sheet_output,
    with_suffix,
)
from fieldloom.cli.runs import load_system
from fieldloom.errors import InputError, Interrupted

if TYPE_CHECKING:
    from fieldloom.codes.files import Format
    from fieldloom.system import System
    from fieldloom.types import Code, Data


MOST = 64
"""Data that become files at once, where there is no --count."""

CountOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help=f"How many data at most. Default: {MOST}; as a job, all."
    ),
]


class RefineTarget(StrEnum):
    codes = "codes"
    weights = "weights"


class CodeFormat(StrEnum):
    shards = "shards"
    safetensors = "safetensors"
    hdf5 = "hdf5"


def encode(
    run: RunArgument,
    source: SourceOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder, or a file. Default: RUN/encoded.")
    ] = None,
    kind: Annotated[
        CodeFormat | None,
        typer.Option(
            "--format",
            help="A folder of shards, one file (safetensors), or one of fit-a-nef's layout (hdf5). "
            "Default: shards, or one file where --out has a suffix.",
        ),
    ] = None,
    worst: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR", help="Leave out signals that end with a larger error. Default: none."
        ),
    ] = None,
    shard: ShardOption = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Find the codes of data, and write them into a folder or a file.

    Without --source these are the run's test data. The same command goes on with a job that was
    stopped; several of the same commands share a folder of shards. Signals that fail are left out,
    and listed beside their shard. 'fieldloom jobs FOLDER' says how far a job is, 'fieldloom plan
    --run RUN --signals N --workers N' beforehand what it takes.

    Example: fieldloom encode runs/mine --source FOLDER --out codes.safetensors
    """
    from fieldloom.codes import files
    from fieldloom.codes.bulk import Origin
    from fieldloom.executors import find_executor
    from fieldloom.inputs import held_out_part

    find_executor(executor)
    system = load_system(run, device)
    if not system.family.has_code:
        raise InputError(f"'{run}' fits one datum: its weights are all that there is to write.")
    data, indices = held_out_part(system, source)
    path = out or Path("encoded")
    format: Format = files.format_of(path) if kind is None else kind.value
    if format != "shards" and not path.suffix:
        path = with_suffix(path, f".{format}")
    files.check_code_format(system, format)  # before the work, so that an error shows at once
    if out is not None and files.is_begun(path, format):  # by the same command
        check_own_job(path, format)
    else:
        shards = files.shards_of(path, format)
        path, _ = (output(run, out and one, str(one)) for one in (path, shards))
    try:
        limit = math.inf if worst is None else worst
        found = files.encode_into(
            system,
            data,
            indices,
            path,
            format,
            limit,
            shard=shard,
            executor=executor,
            workers=workers,
            origin=Origin(run, source, device.value, permit()),
        )
    except Interrupted as stop:
        raise Interrupted(f"{stop}; the same command goes on from here.") from None
    shape = " x ".join(map(str, system.family.code_shape))
    say(f"{found.count} codes of {shape} numbers each: {path}")


def check_own_job(path: Path, format: Format) -> None:
    """Raise InputError where a resumed job would write into a run, or over other files."""
    from fieldloom.codes import files

    check_not_own(path)
    check_not_own(files.shards_of(path, format))
    if format != "shards" and not files.is_encoded(path):
        check_free(path)


def decode(
    run: RunArgument,
    codes: Annotated[
        str,
        typer.Argument(metavar="CODES", help="What encode wrote: a folder of shards, or a file."),
    ],
    resolution: ResolutionOption = None,
    count: CountOption = None,
    kind: KindOption = None,
    project: ProjectOption = 0,
    out: Annotated[Path | None, typer.Option(help="The folder. Default: RUN/decoded.")] = None,
    shard: ShardOption = None,
    executor: JobOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Turn codes back into data, a file for each.

    The codes are those of encode, or fields in fit-a-nef's layout (HDF5).

    Example: fieldloom decode runs/mine runs/mine/encoded --resolution 256
    """
    from fieldloom.codes.files import open_codes
    from fieldloom.drawing import check_file_format, write_data

    sizes = parse_resolution(resolution)
    job = job_of(run, None, device, executor, workers, shard)
    if job is not None:
        from fieldloom.bulk.making import Files
        from fieldloom.bulk.making import decode as decode_in_shards

        system = load_system(run, device)
        folder, form = job_folder(run, out, "decoded", system), Files(sizes, kind, project)
        with resumable():
            tell(decode_in_shards(system, codes, folder, form, count, *job), "decoded", folder)
        return
    folder = folder_output(run, out, "decoded")
    system = load_system(run, device)
    folder = output_of_state(system, folder, out)
    check_file_format(system, kind, project)
    found = open_codes(codes, system)
    paths = write_data(system, found[: count or MOST], folder, sizes, kind, project)
    say(f"decoded {len(paths)} of {len(found)} codes: {folder}")


def reconstruct(
    run: RunArgument,
    source: SourceOption = None,
    resolution: ResolutionOption = None,
    count: CountOption = None,
    kind: KindOption = None,
    project: ProjectOption = 0,
    refine: Annotated[
        RefineTarget | None,
        typer.Option(help="Improve each datum further by Adam: its code, or all of its weights."),
    ] = None,
    refine_steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of --refine.")] = 100,
    refine_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Rate of --refine. Default: on codes a tenth of their size (root mean square); on "
            "weights, also where codes are weights, 0.0001.",
        ),
    ] = None,
    refine_points: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points of a datum in each step of --refine, at random. Default: as trained.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder. Default: RUN/reconstructions.")
    ] = None,
    shard: ShardOption = None,
    executor: JobOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode data and decode them again, at any resolution, a file for each.

    Without --source these are the run's test data. Shapes become meshes where the originals stood;
    of scenes, a turn around them is rendered.

    Example: fieldloom reconstruct runs/mine --source photo.jpg --resolution 512
    """
    from fieldloom.drawing import check_file_format, write_data
    from fieldloom.evaluation import in_batches
    from fieldloom.inputs import held_out_part

    sizes = parse_resolution(resolution)
    job = job_of(run, source, device, executor, workers, shard)
    if job is not None:
        from fieldloom.bulk.making import Files
        from fieldloom.bulk.making import reconstruct as reconstruct_in_shards

        if refine is not None:
            raise InputError("--refine has no shards: leave out --executor, --workers and --shard.")
        system = load_system(run, device)
        folder, form = job_folder(run, out, "reconstructions", system), Files(sizes, kind, project)
        found, indices = held_out_part(system, source)
        with resumable():
            given = (system, found, indices[:count], folder, form, *job)
            tell(reconstruct_in_shards(*given), "reconstructed", folder)
        return
    folder = folder_output(run, out, "reconstructions")
    system = load_system(run, device)
    folder = output_of_state(system, folder, out)
    check_file_format(system, kind, project)
    found, indices = held_out_part(system, source)
    data = found.read(indices[: count or MOST])
    if refine is None:
        codes = in_batches(system.encode, "encoding", data)
    else:
        how = {"steps": refine_steps, "rate": refine_rate, "points": refine_points}
        system, codes = refine_codes(system, data, refine, how)
    paths = write_data(system, codes, folder, sizes, kind, project, data.frame)
    say(f"reconstructed {len(paths)} of {len(data)} data: {folder}")


def refine_codes(
    system: System, data: Data, what: RefineTarget, how: dict[str, Any]
) -> tuple[System, Code]:
    """Refined codes, and the system that decodes them; prints PSNR or SNR before and after.

    how: steps, rate and points of the refinement.
    """
    from fieldloom.evaluation.views import psnr_of_held_out
    from fieldloom.metrics.paired import FIDELITY

    found = system.refine(data, what.value, **how)
    steps = f"after {how['steps']} steps on {what.value}"
    ratio = system.modality.fidelity
    name = ratio.upper()
    before, after = found.before.mean(), found.after.mean()
    say(f"{name} of what was encoded: {before:.2f} dB, {after:.2f} dB {steps}")
    ends = (system, found.start), (found.system, found.code)
    if system.modality.held:
        before, after = (psnr_of_held_out(*end, data).mean() for end in ends)
        say(f"PSNR of held-out views: {before:.2f} dB, {after:.2f} dB {steps}")
    elif system.modality.partial:
        before, after = (
            FIDELITY[ratio](own.predict_at(code, data).tensor, data.tensor).mean()
            for own, code in ends
        )
        say(f"{name} of all points: {before:.2f} dB, {after:.2f} dB {steps}")
    return found.system, found.code


def sample(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many samples.")] = 16,
    resolution: ResolutionOption = None,
    label: LabelOption = None,
    guidance: GuidanceOption = None,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    spacing: SpacingOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = 0,
    kind: KindOption = None,
    project: ProjectOption = 0,
    only_codes: Annotated[
        bool, typer.Option("--only-codes", help="With --executor: write codes, which decode takes.")
    ] = False,
    out: OutOption = None,
    shard: ShardOption = None,
    executor: JobOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw new data from a trained prior.

    A sheet of images is written (RUN/sampled.png) and, of shapes, sounds and the like, a file for
    each sample beside it. As a job (--executor) a folder is (RUN/sampled), with codes and a file
    for each sample; these follow from the seed and from --shard, and are others than at once.

    Example: fieldloom sample runs/mine --count 16 --resolution 256
    """
    from fieldloom.drawing import check_file_format, needs_files, write_data, write_sheet

    options = select_given(guidance=guidance, steps=steps, sampler=sampler, spacing=spacing,
                           top_k=top_k, top_p=top_p, temperature=temperature)  # fmt: skip
    sizes = parse_resolution(resolution)
    job = job_of(run, None, device, executor, workers, shard)
    system = load_system(run, device)
    if job is not None:
        from fieldloom.bulk.making import Draw, Files
        from fieldloom.bulk.making import sample as sample_in_shards

        target = job_folder(run, out, "sampled", system)
        form = None if only_codes else Files(sizes, kind, project)
        with resumable():
            draw = Draw(count, form, label, seed, options)
            tell(sample_in_shards(system, draw, target, *job), "sampled", target)
        return
    if only_codes:
        raise InputError("--only-codes is of a job of shards: add --executor local.")
    check_file_format(system, kind, project)
    sheet_path = None if out is None else sheet_output(out)
    path = output_of_state(system, output(run, sheet_path, "sampled.png"), out)
    folder_path = None if out is None else with_suffix(out, "")
    folder = None
    if needs_files(system):
        folder = output_of_state(system, output(run, folder_path, "sampled"), out)
    system.prior_for(count)
    system.check_memory(count, sizes)  # before codes are drawn
    codes = system.sample_codes(count, label, seed, **options)
    sheet = write_sheet(system, codes, path, sizes)
    if folder is not None:
        paths = write_data(system, codes, folder, sizes, kind, project)
        say(f"{len(paths)} of {count} samples, a file each: {folder}")
    if sheet is not None:
        say(f"{count} samples: {path}")
