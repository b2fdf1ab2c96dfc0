"""Streams of Hugging Face: their rows, kept in the cache as they come."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from fieldloom.errors import InputError, quote_path, shorten
from fieldloom.modalities.sources.archives import Found
from fieldloom.modalities.sources.cache import cache_folder
from fieldloom.modalities.sources.files import Refused
from fieldloom.modalities.sources.folders import walk
from fieldloom.modalities.sources.hub_files import (
    allowed_folders,
    find_folder,
    offline,
    read_cell,
)
from fieldloom.modalities.sources.hub_loading import (
    Rows,
    check_columns,
    check_images,
    check_labels,
    load,
)
from fieldloom.modalities.sources.paths import stamp_file
from fieldloom.modalities.sources.shards import index_archives
from fieldloom.modalities.sources.source import Limit
from fieldloom.modalities.sources.stored import find_stored
from fieldloom.modalities.sources.streams import KEY, LABEL, Row, Stream, Written, write_stream
from fieldloom.modalities.sources.tars import Wanted


def stream_rows(
    path: str, part: str, key: str, label: str | None, limit: Limit, network: bool
) -> Rows:
    """Rows of a stream, kept in the cache: the first ``limit`` of them, or all."""
    name, wanted = quote_path(path), Wanted(KEY, LABEL)
    folder = folder_of_stream(path, part, key, label)
    begin = lambda written: begin_stream(path, part, key, label, network, written)
    written = write_stream(folder, limit, name, begin)
    if not written.rows:
        raise InputError(f"{name} has no rows: a source has at least one image.")
    files = [find_stored(folder / shard) for shard in written.shards]
    members, _ = index_archives(Found(files, written.shards, {}), wanted, str(folder))
    members = members.keep(range(min(limit or len(members), len(members))))
    return Rows(
        range(len(members)),
        members.read,
        members.stamp,
        None if label is None else [one for one in members.labels if one is not None],
        written.about["classes"],
        {"rows": f"the first {len(members):,} rows of a stream"},
    )


@contextmanager
def begin_stream(
    path: str, part: str, key: str, label: str | None, network: bool, written: Written
) -> Iterator[Stream]:
    """A context with the rows of a stream after those that are written."""
    import datasets

    name, roots = quote_path(path), allowed_folders(path)
    with nullcontext() if network else offline():
        stream = load(path, part, network, streaming=True)
        features, columns = stream.features, [key] if label is None else [key, label]
        if features is not None:
            check_columns(list(features), key, label, name)
            check_images(features[key], key, name)
            stream = stream.decode(False).select_columns(columns)
        feature = features[label] if features is not None and label is not None else None
        check = None if label is None else check_labels(feature, label, name)
        about = {
            "classes": getattr(feature, "names", None),
            "datasets": datasets.__version__,
        }
        if written.rows and written.about == about and written.state is not None:
            stream.load_state_dict(written.state)
        elif written.rows:  # of another version, which may say it otherwise
            stream = stream.skip(written.rows)

        def rows() -> Iterator[Row]:
            found = iter(stream)
            for number in count(written.rows):
                try:
                    row = next(found, None)
                except Exception as error:  # datasets, Arrow, the network: each in its own way
                    raise InputError(
                        f"row {number} of {name} cannot be read: {shorten(str(error))}."
                    ) from None
                if row is None:
                    return
                check_columns(list(row), key, label, name)
                image = _read_content(row[key], f"row {number} of {name}", roots, network)
                yield Row(image, None if check is None else check(number, row[label]))

        told = (stream.info.splits or {}).get(part)
        numbers = (getattr(told, key, None) or None for key in ("num_examples", "num_bytes"))
        yield Stream(rows(), lambda: _state_of(stream), about, *numbers)


def _state_of(stream: Any) -> Any:
    """Where a stream goes on, as JSON; None where it does not say so."""
    try:
        return json.loads(json.dumps(stream.state_dict()))
    except (NotImplementedError, TypeError, ValueError):
        return None


def _read_content(cell: Any, name: str, roots: list[Path], network: bool) -> bytes:
    """The bytes of a row's image; none where it cannot be read, which is said when it is opened."""
    try:
        found = read_cell(cell, name, roots, network)
        return found.read_bytes() if isinstance(found, Path) else bytes(found)
    except Refused:
        raise
    except (InputError, OSError):
        return b""


def folder_of_stream(path: str, part: str, key: str, label: str | None) -> Path:
    """The folder in the cache that keeps a stream: of a folder's files as they are now, of a name
    as it was when the stream began."""
    root = find_folder(path)
    files = [] if root is None else sorted(stamp_file(f) for f, reason in walk(root) if not reason)
    about = json.dumps([1, path if root is None else str(root), part, key, label, files])
    digest = hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
    readable = re.sub(r"[^\w-]+", "_", Path(path).name)[:40]
    return cache_folder() / "streams" / f"{readable}-{digest}"
