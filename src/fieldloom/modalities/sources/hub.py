"""Data sets of Hugging Face: saved in a folder, in its cache, or fetched where that is allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldloom.errors import InputError, name_argument, name_value, quote, quote_path, shorten
from fieldloom.modalities.grid import Grid
from fieldloom.modalities.sources.files import Refused, locate, resolve_inside
from fieldloom.modalities.sources.folders import UNREADABLE
from fieldloom.modalities.sources.formats import Encoded
from fieldloom.modalities.sources.images import load_images
from fieldloom.modalities.sources.numbers import Range
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


def allows() -> str:
    """The end of a sentence about something that would be downloaded."""
    return f"{name_argument('network', True)} allows it"


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
    permit: Permit = NOTHING,
) -> Source:
    """A data set of Hugging Face, by name or saved in a folder (needs the extra ``datasets``).

    part: which of its splits; key: the column of images; label: the column of labels, integers or
    texts; the names of a ``ClassLabel`` are the classes, in their order, with data or without.
    range: the numbers that become 0 and 1 (see ``numbers``).
    streaming: read the first ``limit`` rows alone, without fetching or preparing the others.
    A name is looked up in the local cache, and fetched only where the user allows the network.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "source 'huggingface' needs the package datasets: pip install 'fieldloom[datasets]'."
        ) from None
    if streaming and limit is None:
        raise InputError("source.streaming needs source.limit, the number of rows that are read.")
    first = limit if streaming else None
    table, name = _load_table(path, part, permit.network, first), quote_path(path)
    if not len(table):
        raise InputError(f"{name} has no rows: a source has at least one image.")
    for column in [key] if label is None else [key, label]:
        if column not in table.column_names:
            has = shorten(", ".join(table.column_names))
            raise InputError(f"source: no column '{shorten(column)}' in {name}; it has {has}.")
    _check_images(table.features[key], key, name)
    try:  # not decoded: whether a path is followed is decided here
        encoded = table.select_columns([key]).with_format(None)
        encoded = encoded.cast_column(key, datasets.Image(decode=False))
    except Exception as error:  # Arrow fails in many ways
        raise InputError(
            f"source.key: the column '{key}' of {name} holds no images: {shorten(str(error))}."
        ) from None
    given = None if label is None else _read_labels(table, label, name)
    which = choose(limit or len(table), len(table), given)
    roots, names = _allowed_folders(path), [f"row {i} of {name}" for i in which]
    read = lambda i: _read_row(encoded, which[i], key, names[i], roots, permit.network)
    data, good, taken = load_images(names, read, modality, filter, permit.large, range)
    readable = set(good)
    streamed = {"rows": f"the first {len(table):,} rows of a stream"} if streaming else {}
    bad = [f"row {row}" for i, row in enumerate(which) if i not in readable]
    return make_source(
        data,
        None if given is None else [given[which[i]] for i in good],
        split,
        shuffle,
        filter=filter,
        classes=None if label is None else getattr(table.features[label], "names", None),
        summary=Summary("image", taken=streamed | taken, passed_over={UNREADABLE: bad}, unit="row"),
    )


def _check_images(feature: Any, key: str, name: str) -> None:
    """Raise InputError for a column that does not hold one image a row: one list of them, say."""
    import datasets

    image = isinstance(feature, datasets.Image)
    plain = getattr(feature, "dtype", "") in ("string", "large_string", "binary", "large_binary")
    pair = isinstance(feature, dict) and feature.keys() <= {"bytes", "path"}
    if not (image or plain or pair):
        raise InputError(
            f"source.key: the column '{shorten(key)}' of {name} holds no images, one a row, but "
            f"{shorten(str(feature))}."
        )


def _read_labels(table: Any, label: str, name: str) -> list[int | str]:
    """The labels of all rows: texts, or integers. Raises InputError for a row that has none."""
    import datasets

    feature = table.features[label]
    wrong = InputError(f"source.label: '{label}' of {name} must hold integers or texts.")
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):
        raise wrong  # other features would be decoded, or fetched
    given = list(table.with_format(None)[label])
    known = range(len(feature.names)) if isinstance(feature, datasets.ClassLabel) else None
    for i, one in enumerate(given):
        if one is None or (known and one == -1):  # -1 is Hugging Face's number of no class
            raise InputError(
                f"source.label: row {i} of {name} has no label (its '{label}' is {one}): leave "
                "source.label out, or take a part whose rows all have one."
            )
        if not isinstance(one, int | str):
            raise wrong
        if known and one not in known:
            raise InputError(
                f"source.label: row {i} of {name} has the label {one}, where there are "
                f"{len(known)} classes, from 0 on."
            )
    return given


def _find_folder(path: str) -> Path | None:
    """The folder at a path, if there is one."""
    found = os.path.abspath(locate(path))
    return Path(found) if path and os.path.isdir(found) else None


def _load_table(path: str, part: str, network: bool, first: int | None = None) -> Any:
    """A part of a data set as a table of rows. first: stream it, and take as many rows."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

    name, root = quote_path(path), _find_folder(path)
    plain = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith("buckets/")
    if root is None and (path in FORMATS or not (plain or network)):
        raise InputError(
            f"{name_value('source.path', name)} is no folder, and no name of a data set; of an "
            f"address {allows()}."
        )
    try:
        if root is not None and (root / "dataset_dict.json").is_file():
            if part != Path(part).name or not (root / part / "state.json").is_file():
                raise InputError(f"source.part: {name} has no part {quote(part)}.")
            root = root / part
        if root is not None and (root / "state.json").is_file():
            _check_state(root / "state.json")
            saved = datasets.load_from_disk(str(root))
            return saved if first is None else saved.select(range(min(first, len(saved))))
        if root is not None and not network:
            _check_card(root)
        with nullcontext() if network else _offline():
            where = path if root is None else str(root)
            if first is None:
                return datasets.load_dataset(where, split=part)
            stream = datasets.load_dataset(where, split=part, streaming=True)
            undecoded = stream if stream.features is None else stream.decode(False)
            return datasets.Dataset.from_list(list(undecoded.take(first)), stream.features)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what datasets raises is its own, Arrow's, or the network's
        fault = "is no data set that can be loaded"
        if root is None and not network:
            fault = f"is no folder, and not in the local cache: {allows()} to be fetched"
        raise InputError(
            f"{name_value('source.path', name)} {fault} ({shorten(str(error))})."
        ) from None


class DataFile(BaseModel):
    filename: str


class State(BaseModel):
    """A ``state.json``, which ``save_to_disk`` writes."""

    model_config = ConfigDict(strict=True)

    data_files: list[DataFile] = Field(alias="_data_files")


def _check_state(file: Path) -> None:
    """Raise Refused where a state names tables outside its folder, InputError if it is broken."""
    try:
        for one in State.model_validate_json(file.read_bytes()).data_files:
            resolve_inside(file, one.filename)
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{quote_path(file)} is no file of a saved data set: {shorten(str(error))}."
        ) from None


def _check_card(root: Path) -> None:
    """Raise Refused where a data set's card names files outside its folder."""
    from huggingface_hub import RepoCard

    for file in (root / "README.md", root / ".huggingface.yaml"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            card = RepoCard(text if file.suffix == ".md" else f"---\n{text}\n---\n")
            for name in _iterate_texts(card.data.to_dict().get("configs")):
                if _is_address(name):
                    raise Refused(f"{quote_path(file)} names {quote_path(name)}: {allows()}.")
                resolve_inside(file, name)


def _iterate_texts(tree: Any) -> Iterator[str]:
    """All texts in nested lists and dictionaries."""
    if isinstance(tree, str):
        yield tree
    for one in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _iterate_texts(one)


def _is_address(name: str) -> bool:
    """Whether a name is an address, not a path: fsspec's ``protocol://``, and chains of them."""
    return "://" in name or "::" in name


_guard = Lock()


@contextmanager
def _offline() -> Iterator[None]:
    """A context with the effect of HF_HUB_OFFLINE=1; its switches belong to the whole process."""
    from datasets import config
    from huggingface_hub import constants

    with _guard:
        before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
        config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _allowed_folders(path: str) -> list[Path]:
    """The folders from which a row's image may be read: the data set's own, and the caches."""
    from datasets import config
    from huggingface_hub import constants

    caches = config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE
    own = _find_folder(path)
    folders = [Path(os.path.abspath(x)) for x in caches] + ([] if own is None else [own])
    return [*folders, *(folder.resolve() for folder in folders)]  # datasets tells resolved ones


def _read_row(
    table: Any, index: int, key: str, name: str, roots: list[Path], network: bool
) -> Encoded:
    """The image of a row: bytes, a file of the data set, or the bytes fetched from an address."""
    try:
        row = table[index][key]
    except Exception as error:  # Arrow fails in many ways
        raise InputError(f"{name} cannot be read: {shorten(str(error))}.") from None
    if isinstance(row, dict) and row.get("bytes") is not None:
        return row["bytes"]
    where = row.get("path") if isinstance(row, dict) else None
    if where is None:
        raise InputError(f"{name} holds no image.")
    if _is_address(where):
        if not network:
            raise Refused(f"{name} is fetched from {quote_path(where)}: {allows()}.")
        from datasets.utils.file_utils import xopen

        try:
            with xopen(where, "rb") as file:
                return file.read()
        except Exception as error:  # the network fails in many ways
            raise InputError(
                f"{name}, {quote_path(where)}, cannot be fetched: {shorten(str(error))}."
            ) from None
    found = Path(os.path.abspath(where))
    if not any(found.is_relative_to(root) for root in roots):
        raise Refused(f"{name} lies at {quote_path(where)}, outside the data set's folder.")
    return found
