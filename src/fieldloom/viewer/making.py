"""Making codes: samples, data, between two codes, along directions, and those of another run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fieldloom.errors import quote, shorten
from fieldloom.interpolation import interpolate_at
from fieldloom.modalities.sources import Source
from fieldloom.types import Code
from fieldloom.viewer.directions import SLIDERS, read_stored
from fieldloom.viewer.kept import Datum, Kept
from fieldloom.viewer.refusals import Refused
from fieldloom.viewer.runs import Viewed
from fieldloom.viewer.worker import stop_if_unwanted

MOST = 64
"""Codes that are made at a time."""

Name = Annotated[str, Field(max_length=64)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Sample(Request):
    """New samples of a seed. label: a class's name; guidance: None is the prior's own."""

    how: Literal["sample"]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    count: Count = 1
    label: Annotated[str, Field(max_length=4096)] | None = None
    guidance: Annotated[Number, Field(ge=-100, le=100)] | None = None


class Data(Request):
    """Data of a part, encoded. index: of the first, within the part."""

    how: Literal["data"]
    part: Literal["test", "train"] = "test"
    index: Annotated[int, Field(ge=0, lt=2**63)]
    count: Count = 1


class Between(Request):
    """A code on the way from one to another. at: 0 is the first, 1 the second."""

    how: Literal["between"]
    first: Name
    second: Name
    at: Annotated[Number, Field(ge=0, le=1)]


class Along(Request):
    """A code moved along principal directions. base: None is the mean of the training codes."""

    how: Literal["directions"]
    base: Name | None = None
    amounts: Annotated[list[Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=SLIDERS)]


class Other(Request):
    """The same code in this run. run: the id of the run that it is of."""

    how: Literal["other"]
    run: Name
    code: Name


Asked = Annotated[Sample | Data | Between | Along | Other, Field(discriminator="how")]
ADAPTER: TypeAdapter[Asked] = TypeAdapter(Asked)


def parse_asked(content: Any) -> Asked:
    """The request of a browser. Raises Refused with what is wrong in it."""
    try:
        return ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"][1:]) or "the request"
        reason = first["msg"][:1].lower() + first["msg"][1:]
        given = quote(first["input"])
        raise Refused(400, f"{shorten(where)}: {given}, but {shorten(reason)}.") from None


def make_codes(viewed: Viewed, asked: Asked, others: dict[str, Viewed]) -> list[Kept]:
    """The codes that are asked for, which the run keeps. others: all runs, by their ids."""
    viewed.look()
    system = viewed.require()
    if not system.family.has_code and not isinstance(asked, Data):
        raise Refused(409, "this run fits one datum: it has no codes.")
    match asked:
        case Sample():
            return sample(viewed, asked)
        case Data():
            return encode(viewed, asked)
        case Between():
            a, b = (viewed.keep.find(name) for name in (asked.first, asked.second))
            code = interpolate_at(a.code, b.code, torch.tensor([asked.at]), system.spherical)
            share = round(100 * asked.at)
            return [viewed.keep.add(code, f"{100 - share} % {a.name}, {share} % {b.name}")]
        case Along():
            if viewed.directions.found is None:
                raise Refused(409, "the principal directions are not found yet.")
            base = None if asked.base is None else viewed.keep.find(asked.base)
            code = viewed.directions.found.move(base and base.code, asked.amounts)
            return [
                viewed.keep.add(code, "the mean, moved" if base is None else f"{base.name}, moved")
            ]
        case Other():
            return [take_from(viewed, asked, others)]


def sample(viewed: Viewed, asked: Sample) -> list[Kept]:
    options: dict[str, Any] = {} if asked.guidance is None else {"guidance": asked.guidance}
    codes = viewed.require().sample_codes(asked.count, asked.label, asked.seed, **options).cpu()
    if not codes.isfinite().all():
        raise Refused(500, "samples hold numbers that are not finite: the prior is broken.")
    of = "" if asked.label is None else f", {asked.label}"
    names = [f"sample {asked.seed}.{i}{of}" for i in range(len(codes))]
    return [viewed.keep.add(code, name) for code, name in zip(codes.split(1), names, strict=True)]


def encode(viewed: Viewed, asked: Data) -> list[Kept]:
    source = viewed.source
    places = find_data(source, asked.part, asked.index, asked.count)
    names = [name_datum(source, asked.part, asked.index + i) for i in range(len(places))]
    data = [Datum(asked.part, asked.index + i) for i in range(len(places))]
    system = viewed.require()
    if not system.family.has_code:
        return [viewed.keep.find("c0")._replace(datum=data[0])]
    codes = None
    if asked.part == "train":
        within = torch.arange(asked.index, asked.index + len(places))
        codes = read_stored(viewed.run, system, within)
    found = list(codes.split(1)) if codes is not None else []
    for place in places if codes is None else ():
        stop_if_unwanted()
        found.append(system.encode(source.read(place[None])))
    kept = zip(found, names, data, strict=True)
    return [viewed.keep.add(code, name, datum) for code, name, datum in kept]


def find_data(source: Source, part: str, index: int, count: int = 1) -> torch.Tensor:
    """Indices in a source of data of a part, those that there are from an index on.

    Raises Refused where there is none.
    """
    places = source.test if part == "test" else source.train
    if index >= len(places):
        words = "held-out" if part == "test" else "training"
        there = f"0 to {len(places) - 1}" if len(places) else "none"
        raise Refused(404, f"there is no {words} datum {index}: there are {there}.")
    return places[index : index + count]


def name_datum(source: Source, part: str, index: int) -> str:
    """``held-out 3``, with its class where there is one."""
    words = "held-out" if part == "test" else "training"
    if source.labels is None or not source.names:
        return f"{words} {index}"
    place = int(find_data(source, part, index))
    return f"{words} {index}, {source.names[int(source.labels[place])]}"


def take_from(viewed: Viewed, asked: Other, others: dict[str, Viewed]) -> Kept:
    """A code of another run, as one of this. Raises Refused where they have other shapes."""
    other = others.get(asked.run)
    if other is None:
        raise Refused(404, "there is no such run.")
    kept, own = other.keep.find(asked.code), viewed.require().family.code_shape
    shape = tuple(kept.code.shape[1:])
    if shape != own:
        raise Refused(
            409, f"codes of '{shorten(other.name)}' are {shape} each, and this run's are {own}."
        )
    return viewed.keep.add(kept.code, f"{kept.name} of {other.name}")


def check_code(code: Code) -> None:
    """Raise Refused for a code whose numbers are not finite."""
    if not bool(code.isfinite().all()):
        raise Refused(409, "this code holds numbers that are not finite.")
