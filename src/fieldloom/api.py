"""What users call: from a recipe to a run, and from a run to codes, metrics and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fieldloom import evaluation, report, training
from fieldloom.assembly import open_source, read_recipe
from fieldloom.atomic import as_path
from fieldloom.bulk import fits
from fieldloom.bulk.evaluating import EVALUATED, finder, remove
from fieldloom.bulk.fits import Fit, Fitted
from fieldloom.codes.bulk import EncodedJob, Origin
from fieldloom.codes.files import Format, encode_into, format_of, is_begun, is_encoded
from fieldloom.codes.shards import How
from fieldloom.drawing import Crop, Options, drawer_of
from fieldloom.engine.lock import check_free
from fieldloom.engine.run import Run, load
from fieldloom.errors import InputError, quote
from fieldloom.evaluation import Result
from fieldloom.fitting import Choice, Kind, budget, choose, keep, kind_of
from fieldloom.inputs import held_out_part, source_of
from fieldloom.launching import together
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import Source
from fieldloom.pages import make_page
from fieldloom.pages.notebook import HEIGHT, Shown
from fieldloom.permit import Permit
from fieldloom.recipe import Continuation, Recipe, merge, parse_continuation
from fieldloom.system import Array, System
from fieldloom.training import StageName
from fieldloom.types import Cameras, Code, Data

Trained = System | str | Path
"""A trained system, or the folder of its run. Call ``load`` for a run that needs a certain device,
modules to trust, or the network."""


def train(
    recipe: str | Recipe | None,
    run: str | Path,
    variant: str | None = None,
    *,
    stage: StageName = "all",
    device: str = "auto",
    resume: bool = False,
    fields: str | Path | None = None,
    codes: str | Path | None = None,
    minutes: int | float | None = None,
    finish: bool = False,
    processes: int | None = None,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
    **overrides: Any,
) -> System:
    """Train a recipe into a run's folder, and return the trained system.

    >>> system = fieldloom.train("mnif", "runs/digits", "digits", seed=1)

    recipe: a name, a path, or a dict; variant, trust, large, overrides: as of ``build``.
    run:    the folder; it is made.
    stage:  ``field``, ``codec``, ``prior`` or ``all``.
    resume: continue the run in the folder, by its own recipe; ``recipe`` may then be None, and
            ``source={"path": ...}`` is the new path of data that were moved,
            ``train={"field": {"steps": ...}}`` a new number of steps of an unfinished stage.
    fields: another run, whose trained field and codes this one begins with; or codes that are
            fields by themselves (ours of ``flat-weights``, fit-a-nef's HDF5, functa's as arrays).
    codes:  what the run of ``fields`` encoded, of whatever data, instead of its training codes.
    minutes: a budget instead of the recipe's steps, which follow from the pace of this machine and
            are written into the run: stages share it equally. Reading data, and encoding between
            stages, are not counted.
    finish: end the stage that was begun at its last checkpoint; ``resume`` trains what follows.
    processes: how many processes of this machine share each batch, this one included; where
            torchrun or srun has started them, all but the first exit when training ends.
    network: allow downloads of data.

    Raises InputError for arguments that do not fit, for a folder that holds a run already (without
    ``resume``), and where there is none to resume; Interrupted where the user stops it.
    """
    goes_on = resume or finish
    changes = parse_continuation(overrides) if goes_on else Continuation(None, {})
    if changes is None or (goes_on and (fields, codes) != (None, None)):
        raise InputError(
            "resume goes on with the run's own recipe and fields: none are changed, but for "
            "source={'path': ...}, where the same data lie now, and train={STAGE: {'steps': ...}}."
        )
    given = {} if goes_on else overrides
    chosen = None if goes_on and recipe is None else read_recipe(recipe, variant, given)
    if goes_on and chosen is not None:
        training.check_resumed(run, chosen.get("recipe"))
    permit = Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large)
    with together(processes, device, permit):
        return training.train(
            chosen,
            str(run),
            stage,
            device,
            resume,
            fields=fields,
            codes=codes,
            permit=permit,
            path=changes.path,
            resumed_by="resume=True",
            minutes=minutes,
            steps=changes.steps,
            finish=finish,
        )


def fit(
    signal: Any,
    run: str | Path | None = None,
    *,
    kind: Kind | None = None,
    minutes: int | float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    field: str | Recipe | None = None,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
    **overrides: Any,
) -> System:
    """Fit one signal, by the recipe that suits it, and return the trained system.

    >>> system = fieldloom.fit(picture)
    >>> fieldloom.evaluate(system, picture).value("psnr")
    >>> larger = system.decode(resolution=(1024, 1536)).tensor  # (1, 3, 1024, 1536) in [0, 1]

    signal: a path, as ``fieldloom fit`` takes it (an image, a video, a sound, a mesh, a scene's
            folder, an array); a picture of Pillow; a mesh, as any object with ``vertices`` (n, 3)
            and ``faces`` (m, 3); or a numpy array or a tensor. Arrays are uint8, floats in [0, 1],
            or sounds in [-1, 1], and by their axes:
            (n,) a sound; (H, W) a grey image; (H, W, C) and (C, H, W) an image where C is 1, 3 or
            4 (alpha, put on white), other three axes a grey video (T, H, W); (T, H, W, C) and (T,
            C, H, W) a video; (1, H, W, C) and (1, C, H, W) an image. With ``kind="audio"`` (n, C)
            and (C, n), too, C at most 8.
    run:    the folder of the run, as of ``train``; None: nothing is left on the disk.
    kind:   what the signal is, where it should not be guessed: ``image``, ``video``, ``audio``,
            ``mesh``, ``scene``, or ``sphere``, a map of the globe with rows from north.
    minutes: of training, whose steps follow from the pace of this machine; None: the kind's own
            (``fitting.MINUTES``), unless there are steps.
    steps:  of training, instead of minutes: the same steps give the same weights.
    seed, device, trust, network, large: as of ``train``.
    field:  another field than the recipe's (``siren``, ``experts``, ``fourier-mlp``, ...), which
            comes with settings that suit it, or a table with its ``name``. overrides: sections or
            keys that replace the recipe's (``recipes/fit.toml``), as of ``build``.

    A signal in memory is written into the run's folder, so that the run can be evaluated later;
    without a run, ``evaluate`` takes the signal again.

    Raises InputError for what is not recognised, for an array whose channels could be first as well
    as last, and as ``train`` does; Interrupted where the user stops it.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory()) if run is None else run
        choice = _choose(signal, Path(folder), kind)
        changes: Recipe = merge(choice.sections, overrides)
        if steps is not None:
            changes = merge(changes, {"train": {"field": {"steps": steps}}})
        minutes = budget(choice.kind, minutes, changes)
        if field is not None:
            changes = merge(changes, {"field": field})
        recipe = read_recipe(choice.recipe, None, changes | {"seed": seed})
        permit = Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large)
        return training.train(recipe, str(folder), "field", device, permit=permit, minutes=minutes)


def fit_files(
    files: Sequence[str | Path],
    folder: str | Path,
    *,
    kind: Kind | None = None,
    minutes: int | float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    field: str | Recipe | None = None,
    shard: int | None = None,
    executor: str = "local",
    workers: int | None = None,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
    **overrides: Any,
) -> list[Fitted]:
    """Fit each file by itself, as a job: each becomes a run in the folder.

    >>> results = fieldloom.fit_files(["a.png", "b.png"], "fits", executor="processes")
    >>> best = max(results, key=lambda one: one.decibels or 0)

    files: paths, as of ``fit``. folder: of their runs, and of ``results.csv``, which lists them.
    shard: files of a shard; None: one. executor, workers: as of ``encode``. The other arguments are
    those of ``fit``. The same call goes on with a job that was stopped, and tries files again that
    failed.

    Returns for each file its run, its PSNR (of sound SNR) in dB, and why it failed, or "". Raises
    InputError where the folder holds another job; FieldloomError where every file failed;
    Interrupted where the user stops it.
    """
    changes = dict(overrides)
    if steps is not None:
        changes = merge(changes, {"train": {"field": {"steps": steps}}})
    if field is not None:
        changes = merge(changes, {"field": field})
    permit = Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large)
    asked = Fit(kind, minutes, (), changes, seed, device, permit)
    return fits.fit_files(files, folder, asked, How(shard, executor, workers))


def _choose(signal: Any, folder: Path, kind: str | None) -> Choice:
    """The recipe for a signal; one in memory is kept in the folder, where that is free."""
    if isinstance(signal, str | Path):
        return choose(signal, kind)
    training.check_folder(Run(folder), resume=False, known=True)
    return keep(signal, folder, kind)


def evaluate(
    system: Trained,
    source: Any = None,
    folder: str | Path | None = None,
    resolution: Resolution | None = None,
    *,
    shard: int | None = None,
    executor: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Result:
    """Measure a system on the test part of its own data, or on other data.

    >>> result = fieldloom.evaluate("runs/digits")
    >>> result.value("psnr")

    system: or the folder of its run. source: other data, a path to them, or for a system of ``fit``
    the signal in memory, as ``fit`` takes it: only their reconstruction is measured. folder: a
    folder for report.html, report.json and images, which are drawn at this resolution; None: none
    are written. shard, executor, workers: find the expensive parts in shards, as ``encode`` does;
    the figures are the same, and the same call goes on where it was stopped, if there is a folder.
    overwrite: whether a report that is there is replaced; one in the run's own folder
    always is.

    Raises InputError where the data are not of the system's kind, or have changed, and for a folder
    with another report.
    """
    if folder is not None and folder != system:
        check_free(Path(folder) / "report.json", overwrite)
    origin = _origin(system, source)
    system = _system(system)
    foreign = source is not None
    with ExitStack() as stack:
        data = source if isinstance(source, Source) else _read(system, source, stack)
        find, place = None, Path(folder) / EVALUATED if folder is not None else None
        if (executor, workers, shard) != (None, None, None):
            place = place or Path(stack.enter_context(TemporaryDirectory()))
            how = How(shard, executor or "local", workers)
            find = finder(place, how, origin, foreign)
        result = evaluation.evaluate(system, data, foreign, find)
        if folder is not None:
            report.write(Run(folder), system, data, result, resolution)
        if find is not None and place is not None:
            remove(place)
    return result


def _read(system: System, source: Any, stack: ExitStack) -> Source:
    """The data at a path, or of a fit's signal in memory, whose file lasts as long as the stack."""
    if source is None or isinstance(source, str | Path) or system.family.has_code:
        return source_of(system, source)
    folder = Path(stack.enter_context(TemporaryDirectory()))
    spec = keep(source, folder, kind_of(system.modality)).sections["source"]
    if "name" not in spec:  # a mesh, which is read as the run's own
        return source_of(system, spec["path"])
    return open_source({"source": spec}, system.modality, system.permit, quiet=True)


def encode(
    system: Trained,
    path: str | Path,
    source: Source | str | Path | None = None,
    *,
    format: Format | None = None,
    worst: float = math.inf,
    shard: int | None = None,
    executor: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
) -> EncodedJob:
    """Encode a whole data set, and write the codes into a folder or a file.

    >>> codes = fieldloom.encode("runs/digits", "runs/digits/encoded").codes

    A job that was stopped is resumed by the same call. ``System.encode`` encodes data in memory.

    system: or the folder of its run. path: a folder of shards, or, with a suffix, one file:
    safetensors, or fit-a-nef's layout (.hdf5). source: data, or a path to them; None: the test part
    of the system's own. worst: signals of a larger final error have failed. overwrite: whether a
    file that is there already is replaced.

    Returns the codes (signals, tokens, width), the index of each in the source and its final error,
    which are read from the shards when they are asked for, and why others failed. Raises InputError
    where the path holds another job's codes, or the system cannot encode; Interrupted where the
    user stops it.
    """
    path = as_path(path)
    kind = format_of(path) if format is None else format
    if kind != "shards" and not (is_begun(path, kind) and is_encoded(path)):
        check_free(path, overwrite)
    origin = _origin(system, source)
    system = _system(system)
    data, indices = held_out_part(system, source)
    return encode_into(
        system,
        data,
        indices,
        path,
        kind,
        worst,
        shard=shard,
        executor=executor,
        workers=workers,
        origin=origin,
    )


def render(
    system: Trained,
    path: str | Path,
    code: Code | None = None,
    data: Data | Array | None = None,
    *,
    resolution: Resolution | None = None,
    crop: Crop | tuple[float, float, float, float] | None = None,
    frame: float | None = None,
    frames: int = 36,
    held: bool = False,
    depth: bool = False,
    cameras: str | Cameras = "orbit",
    overwrite: bool = False,
) -> Path:
    """Draw one datum into a file: an image, a video, audio, or a shape or scene from all around.

    >>> fieldloom.render("runs/digits", "digit.png", system.sample_codes(1), resolution=512)

    system: or the folder of its run. path: its suffix says the format: PNG, TIFF, MP4, GIF, WAV.
    code:   (1, tokens, width); None: the code of ``data``, one datum, or of a run that fits one.
    resolution: of images and video the longer side, or (rows, columns). None: as trained.
    crop:   of images and video, a part: left, top, right, bottom as fractions of width and height.
    frame:  of video, the image at this fraction of its time.
    frames: of shapes and scenes, the number of views all around.
    held:   of scenes, the held-out views of ``data``, each next to its original.
    depth:  of scenes, depths instead of colours: images from near (black) to far, or in a file
            ``.npy`` numbers in the unit of the cameras, float32 (views, height, width).
    cameras: of scenes, ``orbit``, or the input's own in the file's order: ``input`` all of them,
            ``train`` those trained on, ``held`` those held out; or cameras in the data's
            coordinates, with intrinsics of images of the training size. A run that fits one datum
            reads it again where there is no ``data``. A file ``.json`` gets the cameras alone.
    overwrite: whether a file that is there already is replaced.

    Raises InputError for what this kind of data does not have, for another kind of file, and for a
    file that is there already.
    """
    path = as_path(path)
    check_free(path, overwrite)
    system = _system(system)
    part = crop if crop is None or isinstance(crop, Crop) else _crop(crop)
    drawer = drawer_of(system, Options(resolution, part, frame, frames, held, depth, cameras))
    drawer.check(path)
    datum = None if data is None else system.as_data(data)
    if datum is not None and len(datum) != 1:
        raise InputError(f"data: {len(datum)} of them where one is drawn: take data.part([0]).")
    if datum is None and drawer.needs_data and not system.family.has_code:
        source, indices = held_out_part(system)
        datum = source.take(indices[:1])
    if code is None and datum is not None and system.family.has_code:
        code = system.encode(datum)
    elif code is None and system.family.has_code:
        raise InputError("render: a code or a datum is needed.")
    elif code is None:
        code = system.family.conditioner.origin(1).detach()
    return drawer.draw(system.one_code(code), path, datum).path


def show(
    system: Trained,
    codes: Code | None = None,
    names: Sequence[str] = (),
    *,
    half: bool = False,
    height: int = HEIGHT,
) -> Shown:
    """A page that evaluates fields in the browser; a notebook shows it where it is returned.

    >>> fieldloom.show(system, system.sample_codes(4))

    system: or the folder of its run. codes: (functions, tokens, width), of one for each choice of
    the page's picker; None: of a run that fits one datum. names: of the functions. half: whether
    weights are half-precision numbers. height: of the frame, in pixels. ``pages.write_page`` writes
    the same page into a file.

    Raises InputError for data or fields that no page shows.
    """
    system = _system(system)
    return Shown(make_page(system, system.as_code(codes), names, half=half), height)


def view(
    runs: str | Path | Sequence[str | Path],
    port: int | None = None,
    *,
    open: bool = False,
    host: str | None = None,
    token: bool = False,
    device: str = "auto",
    upload_megabytes: int | float = 64,
    upload_seconds: int | float = 60,
    trust: Sequence[str] = (),
    network: bool = False,
    large: bool = False,
) -> None:
    """Show runs in a browser, and wait until its page is closed by the button, or by Ctrl-C.

    >>> fieldloom.view(["runs/digits", "runs/letters"], open=True)

    runs: the folder of a run, or several. port: None: the first free one from 8000 on; 0: any free
    one. open: whether a browser is opened. host: the address that is listened at, 0.0.0.0 for all
    of the machine's, which needs the token that is printed; None: this machine alone. token:
    whether one is needed on this machine, too. upload_megabytes, upload_seconds: the largest file
    that may be dropped on the page, and how long it may take. device, trust, network, large: as of
    ``train``.

    Raises InputError for a folder that is no run, and for an address that cannot be had.
    """
    from fieldloom.viewer.serving import view_runs  # late: no other call needs a server

    view_runs(
        [runs] if isinstance(runs, str | Path) else runs,
        host=host,
        port=port,
        open=open,
        token=token,
        device=device,
        upload_megabytes=upload_megabytes,
        upload_seconds=upload_seconds,
        permit=Permit((trust,) if isinstance(trust, str) else tuple(trust), network, large),
    )


def _origin(system: Trained, source: Any) -> Origin | None:
    """Where workers find a system and its data; None where they are in memory."""
    if isinstance(system, System) or not isinstance(source, str | Path | None):
        return None
    return Origin(str(system), None if source is None else str(source))


def _system(system: Trained) -> System:
    return system if isinstance(system, System) else load(system)


def _crop(sides: Any) -> Crop:
    if not isinstance(sides, tuple | list) or len(sides) != 4:
        raise InputError(f"crop = {quote(sides)}: four numbers, left, top, right, bottom.")
    return Crop(*sides)
