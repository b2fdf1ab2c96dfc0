"""Schemas of the text files of a run and of a job, one for each kind of file.

Recipes need none: the constructors of the parts are their schema.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from fieldloom.errors import InputError, quote, shorten
from fieldloom.recipe import STAGES

Count = Annotated[int, Field(ge=0, lt=2**63)]
Word = Annotated[str, Field(max_length=4096)]
StageName = Annotated[str, Field(pattern=f"^({'|'.join(STAGES)})$")]


class Schema(BaseModel):
    """Values are not converted to other types; further keys are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=True)


class Provenance(RootModel[dict[Word, Word]]):
    """What made a file: name -> fingerprint."""


class Sizes(Schema):
    """The sizes of a system: tokens and width of a code, and numbers of weights.

    learnable: parameters of the family; inference: weights of one field; prior: its parameters.
    """

    code: Annotated[list[Count], Field(min_length=2, max_length=2)]
    learnable: Count
    inference: Count
    prior: Count | None


class ModelNumbers(Schema):
    """Numbers of ``model.safetensors``. sizes: None in files of old versions."""

    finished: list[StageName] = []
    sizes: Sizes | None = None


class Checkpoint(Schema):
    """Numbers of ``state.safetensors``. steps: of the recipe that it was trained by; None in files
    of old versions.
    """

    stage: StageName
    step: Count
    steps: Count | None = None


class Line(Schema):
    """A line of ``log.jsonl``: a stage, a step, and numbers."""

    __pydantic_extra__: dict[str, float | None]

    stage: StageName
    step: Count


class Job(Schema):
    """A job, the same as another if all entries are. ``places``: digest of indices.

    kind: the verb; options: what it was told, by name. Manifests of ``encode`` have neither, as
    those of older versions.
    """

    signals: Annotated[int, Field(ge=1, lt=2**63)]
    shard: Annotated[int, Field(ge=1, lt=2**63)]
    worst: float | None
    data: Word
    places: Word
    system: Word
    kind: Word = "encode"
    options: dict[Word, Word] = {}

    def content(self) -> dict[str, Any]:
        """The entries as a manifest has them."""
        return self.model_dump(exclude={"kind", "options"} if self.kind == "encode" else set())


class Shard(Schema):
    """A finished shard: its number of data, and index of a failed one -> why it failed.

    hash: of the bytes of its file; seconds: what it took. None in manifests of older versions.
    """

    count: Count
    failed: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], Word]
    hash: Word | None = None
    seconds: float | None = None


class Manifest(Schema):
    """``manifest.json`` of a job. shards: of older versions, which had no rows of each.

    about: what a person asks of a job: the run and the data, which may have been moved since.
    """

    job: Job
    shards: list[Shard] = []
    about: dict[Word, Word] = {}

    def content(self) -> dict[str, Any]:
        """The entries as the file has them."""
        return self.model_dump() | {"job": self.job.content()}


class Holder(Schema):
    """``.lock`` of a run: who writes into it."""

    host: Word
    process: Count
    start: Word


LARGEST = 1 << 28
"""Bytes of a text file: a manifest of a million shards has a tenth of it."""

Kind = TypeVar("Kind", bound=BaseModel)


def parse_json(text: str, path: Path) -> Any:
    """JSON as Python has it. Raises InputError, which names the file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = shorten(str(error))
        raise InputError(f"'{path}' is damaged and cannot be read: {why}.") from None


def read_text(path: Path) -> str:
    """A text file. Raises InputError where it cannot be read, is no text, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise InputError(f"'{path}' is damaged: it has more than {LARGEST >> 20} MiB.")
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is damaged: it is no text ({error.reason}).") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from None


def validate_content(schema: type[Kind], content: Any, path: Path) -> Kind:
    """The content as its schema has it. Raises InputError naming the file and the entry."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "its content"
        reason, given = first["msg"].lower(), quote(first["input"])
        raise InputError(
            f"'{path}' is damaged: {shorten(where)} is {given}, but {reason}."
        ) from None
