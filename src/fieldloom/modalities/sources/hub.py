"""Data sets of Hugging Face: saved in a folder, in its cache, or fetched where that is allowed."""

from __future__ import annotations

import builtins
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.folders import UNREADABLE
from fieldloom.modalities.sources.formats import Encoded
from fieldloom.modalities.sources.hub_files import (
    allowed_folders,
    is_address,
    offline,
    read_cell,
)
from fieldloom.modalities.sources.hub_loading import (
    Rows,
    check_columns,
    check_images,
    check_labels,
    find_saved,
    load,
)
from fieldloom.modalities.sources.hub_streams import stream_rows
from fieldloom.modalities.sources.images import Cache, load_images
from fieldloom.modalities.sources.numbers import Range
from fieldloom.modalities.sources.paths import Each, stamp_file
from fieldloom.modalities.sources.source import (
    Filter,
    Limit,
    Source,
    Split,
    choose,
    make_source,
)
from fieldloom.modalities.sources.summary import Summary
from fieldloom.permit import NOTHING, Permit

PATHS = 1000
"""Rows whose paths are read at a time."""


def read_huggingface(
    modality: Grid,
    path: str,
    part: str = "train",
    key: str = "image",
    label: str | None = None,
    split: Split = (0.9, 0.1),
    shuffle: bool = True,
    limit: Limit = None,
    streaming: bool = False,
    filter: Filter = "bicubic",
    range: Range = None,
    cache: Cache = "none",
    permit: Permit = NOTHING,
) -> Source:
    """A data set of Hugging Face, by name or saved in a folder (needs the extra ``datasets``).

    part: which of its splits; key: the column of images; label: the column of labels, integers or
    texts; the names of a ``ClassLabel`` are the classes, in their order, with data or without.
    range: the numbers that become 0 and 1 (see ``numbers``). cache: ``decoded`` keeps the images of
    large sets decoded on the disk.
    streaming: the first ``limit`` rows, or all, are read one after the other, and their images and
    labels kept in the cache (``streams``); nothing else is fetched or prepared.
    A name is looked up in the local cache, and fetched only where the user allows the network.
    """
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise InputError(
            "source 'huggingface' needs the package datasets: pip install 'fieldloom[datasets]'."
        ) from None
    name = quote_path(path)
    if streaming and find_saved(path, part) is None:
        rows = stream_rows(path, part, key, label, limit, permit.network)
    else:
        rows = take_rows(path, part, key, label, limit, permit.network, streaming)
    data, good, taken = load_images(
        Each(rows.numbers, lambda row: f"row {row} of {name}"),
        rows.read,
        modality,
        filter,
        permit.large,
        range,
        stamps=Each(builtins.range(len(rows.numbers)), rows.stamp),
        place=f"{path}\0huggingface {part} {key} {limit} {streaming}",
        cache=cache,
    )
    bad = sorted({*builtins.range(len(rows.numbers))} - {*good})
    unreadable = {UNREADABLE: [f"row {rows.numbers[i]}" for i in bad]}
    return make_source(
        data,
        None if rows.labels is None else [rows.labels[i] for i in good],
        split,
        shuffle,
        filter=filter,
        classes=rows.classes,
        summary=Summary("image", 0, {**rows.taken, **taken}, unreadable, "row"),
    )


def take_rows(
    path: str, part: str, key: str, label: str | None, limit: Limit, network: bool, first: bool
) -> Rows:
    """Rows of a table, which Arrow maps into memory: an image is read when it is asked for.

    first: whether they are the first ``limit`` rows, whatever their classes.
    """
    import datasets

    name = quote_path(path)
    with nullcontext() if network else offline():
        table = load(path, part, network)
    if first and limit is not None:
        table = table.select(range(min(limit, len(table))))
    if not len(table):
        raise InputError(f"{name} has no rows: a source has at least one image.")
    check_columns(table.column_names, key, label, name)
    check_images(table.features[key], key, name)
    try:  # not decoded: whether a path is followed is decided in ``read_cell``
        encoded = table.select_columns([key]).with_format(None)
        encoded = encoded.cast_column(key, datasets.Image(decode=False))
    except Exception as error:  # Arrow fails in many ways
        raise InputError(
            f"source.key: the column '{key}' of {name} holds no images: {shorten(str(error))}."
        ) from None
    labels = None if label is None else _read_labels(table, label, name)
    which, roots = choose(limit or len(table), len(table), labels), allowed_folders(path)
    stamp = " ".join(stamp_file(Path(file["filename"])) for file in table.cache_files)

    def read(i: int) -> Encoded:
        try:
            cell = encoded[which[i]][key]
        except Exception as error:  # Arrow fails in many ways
            raise InputError(
                f"row {which[i]} of {name} cannot be read: {shorten(str(error))}."
            ) from None
        return read_cell(cell, f"row {which[i]} of {name}", roots, network)

    def stamp_of(i: int) -> str:
        return f"{stamp} {which[i]} {files.get(which[i], '')}"

    files = _stamp_files(encoded, key)
    return Rows(
        which,
        read,
        stamp_of,
        None if labels is None else [labels[i] for i in which],
        None if label is None else getattr(table.features[label], "names", None),
        {"rows": f"the first {len(table):,} rows of a stream"} if first else {},
    )


def _stamp_files(encoded: Any, key: str) -> dict[int, str]:
    """The stamps of images that are files of their own, by their rows.

    Their paths alone are read, a thousand rows at a time.
    """
    found = dict[int, str]()
    for first in range(0, len(encoded), PATHS):
        cells = encoded.with_format("arrow")[first : first + PATHS][key].combine_chunks()
        inside = cells.field("bytes").is_valid().to_pylist()
        paths = cells.field("path").to_pylist()
        for i, (held, where) in enumerate(zip(inside, paths, strict=True), first):
            if not held and where and not is_address(where):
                found[i] = stamp_file(Path(where))
    return found


def _read_labels(table: Any, label: str, name: str) -> list[int | str]:
    """The labels of all rows: texts, or integers. Raises InputError for a row that has none."""
    check = check_labels(table.features[label], label, name)
    return [check(i, one) for i, one in enumerate(table.with_format(None)[label])]
