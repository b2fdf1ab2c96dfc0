"""Loading a data set of Hugging Face, as a table or as a stream, and checks of its columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fieldloom.errors import InputError, name_value, quote, quote_path, shorten
from fieldloom.modalities.sources.formats import Encoded
from fieldloom.modalities.sources.hub_files import allows, check_card, check_state, find_folder


class Rows(NamedTuple):
    """The rows of a data set that are used.

    numbers: of the rows. read, stamp: index into ``numbers`` -> the image, and a text that changes
    when it may have. labels: their classes, which ``classes`` names, where these are numbers.
    taken: what is said of them (``Summary.taken``).
    """

    numbers: Sequence[int]
    read: Callable[[int], Encoded]
    stamp: Callable[[int], str]
    labels: Sequence[int | str] | None
    classes: Sequence[str] | None
    taken: Mapping[str, str]


def load(path: str, part: str, network: bool, streaming: bool = False) -> Any:
    """A part of a data set: a table of rows, or a stream of them (where it is not a saved one)."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

    name, root = quote_path(path), find_folder(path)
    plain = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith("buckets/")
    if root is None and (path in FORMATS or not (plain or network)):
        raise InputError(
            f"{name_value('source.path', name)} is no folder, and no name of a data set; of an "
            f"address {allows()}."
        )
    try:
        if saved := find_saved(path, part):
            check_state(saved / "state.json")
            return datasets.load_from_disk(str(saved))
        if root is not None and not network:
            check_card(root)
        where = path if root is None else str(root)
        return datasets.load_dataset(where, split=part, streaming=streaming)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what datasets raises is its own, Arrow's, or the network's
        fault = "is no data set that can be loaded"
        if root is None and not network:
            fault = f"is no folder, and not in the local cache: {allows()} to be fetched"
        raise InputError(
            f"{name_value('source.path', name)} {fault} ({shorten(str(error))})."
        ) from None


def find_saved(path: str, part: str) -> Path | None:
    """The folder of a data set that ``save_to_disk`` wrote, or of its part, where there is one.

    Raises InputError where it has no such part.
    """
    root = find_folder(path)
    if root is not None and (root / "dataset_dict.json").is_file():
        if part != Path(part).name or not (root / part / "state.json").is_file():
            raise InputError(f"source.part: {quote_path(path)} has no part {quote(part)}.")
        root = root / part
    return root if root is not None and (root / "state.json").is_file() else None


def check_columns(there: Sequence[str], key: str, label: str | None, name: str) -> None:
    """Raise InputError where a data set has no such columns."""
    for column in [key] if label is None else [key, label]:
        if column not in there:
            has = shorten(", ".join(there))
            raise InputError(f"source: no column '{shorten(column)}' in {name}; it has {has}.")


def check_images(feature: Any, key: str, name: str) -> None:
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


def check_labels(feature: Any, label: str, name: str) -> Callable[[int, Any], int | str]:
    """What returns the label of a row, given its number and what the row has, or raises InputError.

    feature: of the column; None where it is not known. Raises InputError for no column of labels.
    """
    import datasets

    wrong = InputError(f"source.label: '{label}' of {name} must hold integers or texts.")
    if not isinstance(feature, datasets.Value | datasets.ClassLabel | None):
        raise wrong  # other features would be decoded, or fetched
    known = range(len(feature.names)) if isinstance(feature, datasets.ClassLabel) else None

    def check(row: int, one: Any) -> int | str:
        if one is None or (known and one == -1):  # -1 is Hugging Face's number of no class
            raise InputError(
                f"source.label: row {row} of {name} has no label (its '{label}' is {one}): leave "
                "source.label out, or take a part whose rows all have one."
            )
        if not isinstance(one, int | str):
            raise wrong
        if known and one not in known:
            raise InputError(
                f"source.label: row {row} of {name} has the label {one}, where there are "
                f"{len(known)} classes, from 0 on."
            )
        return one

    return check
