"""What a data set of Hugging Face may name: its own files, and addresses where that is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldloom.errors import InputError, name_argument, quote_path, shorten
from fieldloom.modalities.sources.files import Refused, locate, resolve_inside
from fieldloom.modalities.sources.formats import Encoded


def allows() -> str:
    """The end of a sentence about something that would be downloaded."""
    return f"{name_argument('network', True)} allows it"


def find_folder(path: str) -> Path | None:
    """The folder at a path, if there is one."""
    found = os.path.abspath(locate(path))
    return Path(found) if path and os.path.isdir(found) else None


class DataFile(BaseModel):
    filename: str


class State(BaseModel):
    """A ``state.json``, which ``save_to_disk`` writes."""

    model_config = ConfigDict(strict=True)

    data_files: list[DataFile] = Field(alias="_data_files")


def check_state(file: Path) -> None:
    """Raise Refused where a state names tables outside its folder, InputError if it is broken."""
    try:
        for one in State.model_validate_json(file.read_bytes()).data_files:
            resolve_inside(file, one.filename)
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{quote_path(file)} is no file of a saved data set: {shorten(str(error))}."
        ) from None


def check_card(root: Path) -> None:
    """Raise Refused where a data set's card names files outside its folder."""
    from huggingface_hub import RepoCard

    for file in (root / "README.md", root / ".huggingface.yaml"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            card = RepoCard(text if file.suffix == ".md" else f"---\n{text}\n---\n")
            for name in _iterate_texts(card.data.to_dict().get("configs")):
                if is_address(name):
                    raise Refused(f"{quote_path(file)} names {quote_path(name)}: {allows()}.")
                resolve_inside(file, name)


def _iterate_texts(tree: Any) -> Iterator[str]:
    """All texts in nested lists and dictionaries."""
    if isinstance(tree, str):
        yield tree
    for one in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _iterate_texts(one)


def is_address(name: str) -> bool:
    """Whether a name is an address, not a path: fsspec's ``protocol://``, and chains of them."""
    return "://" in name or "::" in name


_guard = Lock()


@contextmanager
def offline() -> Iterator[None]:
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


def allowed_folders(path: str) -> list[Path]:
    """The folders from which a row's image may be read: the data set's own, and the caches."""
    from datasets import config
    from huggingface_hub import constants

    caches = config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE
    own = find_folder(path)
    folders = [Path(os.path.abspath(x)) for x in caches] + ([] if own is None else [own])
    return [*folders, *(folder.resolve() for folder in folders)]  # datasets tells resolved ones


def read_cell(cell: Any, name: str, roots: list[Path], network: bool) -> Encoded:
    """The image of a row: bytes, a file of the data set, or the bytes fetched from an address.

    cell: what stands in the column of images: bytes, a path, or ``{"bytes", "path"}``.
    roots: folders that files may lie in. Raises Refused for files elsewhere.
    """
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and cell.get("bytes") is not None:
        return cell["bytes"]
    where = cell.get("path") if isinstance(cell, dict) else cell
    if not isinstance(where, str):
        raise InputError(f"{name} holds no image.")
    if is_address(where):
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
