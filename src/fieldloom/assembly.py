"""From a recipe to a system and its data: names become parts, and settings are parsed, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from fieldloom import memory, registry
from fieldloom import recipe as recipes
from fieldloom.aliases import NAMES
from fieldloom.arguments import check_unit_range
from fieldloom.codecs import CODECS
from fieldloom.conditioners import CONDITIONERS
from fieldloom.denoisers import DENOISERS
from fieldloom.encoders import ENCODERS
from fieldloom.errors import InputError, quote, set_key, unknown
from fieldloom.family import Family
from fieldloom.fields import ARRANGEMENTS, FIELDS, GRIDS
from fieldloom.metrics.losses import LINKS, LOSSES
from fieldloom.modalities import MODALITIES, Modality
from fieldloom.modalities.sources import SOURCES, Source
from fieldloom.modalities.sources.kinds import check_kind, check_path
from fieldloom.objectives import (
    CRITICS,
    OBJECTIVES,
    PENALTIES,
    CodecLoss,
    Objective,
    PriorLoss,
)
from fieldloom.pages.notebook import show_codes
from fieldloom.permit import NOTHING, Permit
from fieldloom.priors import PRIORS
from fieldloom.progress import announce
from fieldloom.renderers import RENDERERS, Looking, Volume
from fieldloom.settings import Evaluation, Stage, parse_settings, parse_stage
from fieldloom.sizing import size_by_data
from fieldloom.system import System
from fieldloom.types import Data

TABLES: Mapping[str, Mapping[str, Any]] = {
    "source": SOURCES,
    "modality": MODALITIES,
    "renderer": RENDERERS,
    "field": FIELDS,
    "arrangement": ARRANGEMENTS,
    "grid": GRIDS,
    "conditioner": CONDITIONERS,
    "encoder": ENCODERS,
    "start": ENCODERS,
    "unseen": ENCODERS,
    "objective": OBJECTIVES,
    "penalty": PENALTIES,
    "critic": CRITICS,
    "prior": PRIORS,
    "codec": CODECS,
    "denoiser": DENOISERS,
}


def register(kind: str, name: str, part: Callable[..., Any]) -> None:
    """Let recipes of this process name a part: ``register("field", "gabor", Gabor)``.

    kind: the key of a recipe that it belongs to (``field``, ``conditioner``, ``codec`` ...).
    Raises InputError for a kind that there is not, for what a part was called before (``aliases``),
    and as ``registry.register`` does.
    """
    if kind not in TABLES:
        raise unknown("kind of part", str(kind), TABLES)
    new = NAMES.get(kind, {}).get(name) if isinstance(name, str) else None
    if new is not None:  # recipes that say so mean another part
        raise InputError(f"register: {kind} '{name}' is an old name of '{new}': take another.")
    if name in TABLES[kind]:
        raise InputError(f"register: {kind} '{name}' is the package's own: take another name.")
    registry.register(kind, name, part)


def build(
    recipe: str | recipes.Recipe,
    variant: str | None = None,
    *,
    trust: Sequence[str] = (),
    large: bool = False,
    **overrides: Any,
) -> System:
    """The system that a recipe describes, untrained: a name, a path, or a dict.

    trust: modules whose classes the recipe may name as ``module:Class``. large: try sizes beyond
    this machine's memory. overrides: sections or keys that replace the recipe's:
    ``build("mnif", "digits", seed=1, field={"width": 64})``. Raises InputError for whatever does
    not fit, naming it.
    """
    trust = (trust,) if isinstance(trust, str) else tuple(trust)
    return assemble(read_recipe(recipe, variant, overrides), Permit(trust, large=large))


def read_recipe(recipe: Any, variant: str | None, overrides: Mapping[str, Any]) -> recipes.Recipe:
    """The resolved recipe of a name, a path, or a dict, with the overrides of its sections or keys.

    Raises InputError where it is none of these, or cannot be read.
    """
    for what, value in (("the recipe", recipe), ("overrides", overrides)):
        recipes.check_values(value, what)
    if isinstance(recipe, str):
        return recipes.load(f"{recipe}:{variant}" if variant else recipe, change=overrides)
    if variant:
        raise InputError("variant: a recipe given as a dict has its variants merged already.")
    if not isinstance(recipe, Mapping):
        raise InputError(f"recipe = {quote(recipe)} is not right: it is a name, or a dict.")
    return recipes.add_settings(recipes.resolve(recipe, overrides))


PLAIN: Mapping[str, Any] = {"seed": int, "format": int, "loss": str, "recipe": str, "paper": str,
                               "kernels": str}  # fmt: skip
"""Keys of a recipe that are no tables, with their types."""

SETTINGS: Mapping[str, Any] = {"train": Stage, "evaluate": Evaluation}
"""Tables of a recipe that are settings and no parts."""


def parse_overrides(
    recipe: recipes.Recipe, overrides: Iterable[str], permit: Permit = NOTHING
) -> list[recipes.Recipe]:
    """Layers over a recipe from ``"a.b=value"`` strings; values are read by the type of their key.

    ``source.path=2024-05-01`` is a path, ``field.width=64`` a number. The types are those of the
    parts that the recipe names when all overrides are applied (``registry.parse_value``). Names
    come first, whatever their order, since another name replaces the whole part.
    """
    split = [recipes.split_override(text) for text in overrides]
    split.sort(key=lambda one: one[0][-1] != "name")
    draft = recipe
    for keys, raw in split:
        layer = recipes.nest(keys, registry.parse_value(raw, Any))
        draft = recipes.resolve(draft, layer, warn=False)
    return [
        recipes.nest(keys, registry.parse_value(raw, annotation_of(draft, keys, permit)))
        for keys, raw in split
    ]


def annotation_of(recipe: recipes.Recipe, keys: Sequence[str], permit: Permit = NOTHING) -> Any:
    """The type of a key of a recipe; Any where it has none."""
    section, *rest = keys
    if section in PLAIN and not rest:
        return PLAIN[section]
    if section in TABLES:
        return registry.annotation_of(section, recipe.get(section), rest, TABLES, permit)
    if section == "train":
        rest = rest[1:]
    if section in SETTINGS and rest:
        table = {section: {"settings": SETTINGS[section]}}
        return registry.annotation_of(section, "settings", rest, table)
    return Any


def assemble(recipe: recipes.Recipe, permit: Permit = NOTHING) -> System:
    """The untrained system of a resolved recipe. permit: what the user allows."""
    recipes.validate(recipe)

    def make() -> System:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.get("seed", 0))
            return _assemble(recipe, permit)

    return make() if permit.large else memory.make_within_limit(make, "this recipe")


ASSUMED = 100
"""Training signals, where a recipe does not tell their number."""


def assemble_without_data(
    recipe: recipes.Recipe,
    signals: int | None = None,
    permit: Permit = NOTHING,
    prior: bool = False,
) -> System:
    """An untrained system of a resolved recipe, without its data, to find its costs.

    Facts of the data are assumed: this number of training signals (None: as many as are known, or
    as ``source.split`` says, or ``ASSUMED``), and scenes at distances 1 to 2 from the camera where
    the recipe has no others.
    prior: whether its prior is made, too; where the data are not known yet, without classes.
    """
    known = recipe.get("known", {})
    if signals is None:
        source = recipe.get("source")
        split = source.get("split", [1]) if isinstance(source, Mapping) else [1]
        signals = known.get("signals") or (int(split[0]) if split[0] > 1 else ASSUMED)
    known = {"known": {"signals": signals, "classes": known.get("classes", 0)}}
    recipe = {k: value for k, value in recipe.items() if prior or k != "prior"} | known
    renderer = recipe.get("renderer")
    if isinstance(renderer, Mapping) and renderer.get("name") in ("volume", "occupancy"):
        recipe["renderer"] = {"near": 1.0, "far": 2.0, **renderer}
    return assemble(recipe, permit)


SIZES = ("width", "depth", "heads", "experts", "latent", "tokens", "scales")
"""Arguments of parts that say how large these are."""


def sizes_left_out(recipe: recipes.Recipe) -> dict[str, dict[str, int]]:
    """Sizes that the parts of a recipe take by themselves, since it names none: part -> sizes.

    Bundled recipes name all; a part that replaces another has those of a published system, which
    may be a hundred times as large.
    """
    found: dict[str, dict[str, int]] = {}

    def look(path: str, section: str, spec: Any) -> None:
        spec = {"name": spec} if isinstance(spec, str) else spec
        if not isinstance(spec, Mapping):
            return
        make = TABLES[section].get(str(spec.get("name")))
        own = {} if make is None else registry.parameters_of(make)
        taken = {k: own[k].default for k in SIZES if k in own and k not in spec}
        if sizes := {k: size for k, size in taken.items() if isinstance(size, int)}:
            found[f"{path} = '{spec['name']}'"] = sizes
        for key, inner in spec.items():
            if key in TABLES:
                look(f"{path}.{key}", key, inner)

    for section in TABLES.keys() & recipe.keys() - {"source", "modality"}:
        look(section, section, recipe[section])
    return dict(sorted(found.items()))


def require_sections(recipe: recipes.Recipe) -> None:
    """Raise InputError where a recipe lacks a section without which there is no system."""
    for section in ("modality", "field"):
        if section not in recipe:
            raise InputError(f"the recipe has no section '{section}'.")


def _assemble(recipe: recipes.Recipe, permit: Permit) -> System:
    make = partial(registry.build, tables=TABLES, permit=permit)
    require_sections(recipe)
    settings = parse_settings(recipe)
    modality = make_modality(recipe["modality"], permit)
    spec = recipe.get("renderer", "direct")
    render = make("renderer", spec, unit_length=modality.unit_length)
    if isinstance(render, Volume) and (render.low, render.high) != (modality.low, modality.high):
        raise InputError(
            f"renderer.range goes from {render.low:g} to {render.high:g}, modality.range from "
            f"{modality.low:g} to {modality.high:g}: set both alike."
        )
    domain = render.domain(modality.coord_dim, modality.value_dim)
    field = make(
        "field",
        size_by_data(recipe["field"], modality),
        coord_dim=domain.coord,
        value_dim=domain.value,
        direction_dim=domain.direction,
    )
    try:  # before a conditioner makes weights for them
        memory.require(memory.bytes_of(slot.shape for slot in field.slots.values()))
    except memory.TooMuch as error:
        spec = recipe["field"] if isinstance(recipe["field"], Mapping) else {}
        raise registry.refusal("the field", spec, error) from error
    conditioner = make("conditioner", recipe.get("conditioner", "shared"), slots=field.slots)
    family = Family(field, conditioner)
    if isinstance(render, Looking) and family.has_code:
        raise InputError(
            f"renderer '{type(render).__name__.lower()}' is of one scene, and this conditioner has "
            "codes of several: take renderer 'volume', or conditioner 'shared'."
        )
    provided: dict[str, Any] = {
        "code_shape": family.code_shape,
        "signals": settings.signals,
        "classes": settings.classes,
    }
    sizes = {key: getattr(modality, key) for key in ("axes", "coord_dim", "grid_dim", "value_dim")}
    batch = settings.field_stage.batch
    encoder = make("encoder", recipe.get("encoder", "nothing"), batch=batch, **provided, **sizes)
    spec = recipe.get("prior", "none")
    layout = conditioner.layout  # the weights of a code, which denoisers and codecs may need
    prior = None if spec == "none" else make("prior", spec, layout=layout, **provided)
    loss = recipe.get("loss", "mse")
    if loss not in LOSSES:
        raise unknown("loss", str(loss), LOSSES)
    if loss in LINKS and modality.low != 0:
        raise InputError(
            f"loss = '{loss}' takes data in [0, 1]: set modality.range to 'unit', not 'signed'."
        )
    link = LINKS.get(loss)
    parts = (modality, render, LOSSES[loss], family, encoder, prior)
    return System(*parts, recipe, link, permit, show_codes)


def objective_of(system: System) -> Objective:
    """What the stage ``field`` of a system's recipe minimises."""
    spec, modality = system.recipe.get("objective", "reconstruction"), system.modality
    loss = system.recipe.get("loss", "mse")
    if getattr(modality, "coverage", False) and loss not in LINKS:
        raise InputError(
            f"modality.coverage needs a field of logits: set loss to 'bce', not '{loss}'."
        )
    provided = {
        "family": system.family,
        "encoder": system.encoder,
        "render": system.render,
        "loss_fn": system.loss_fn,
        "prior": system.prior,
        "link": system.link,
        "coord_dim": modality.grid_dim,
        "grid_dim": modality.grid_dim,
        "value_dim": modality.value_dim,
        "span": modality.high - modality.low,
        "silence": (modality.low + modality.high) / 2 if modality.fidelity == "snr" else None,
    }

    def make() -> Objective:
        with torch.random.fork_rng(devices=[]):  # a critic is drawn from the seed, too
            torch.manual_seed(system.settings.seed)
            return registry.build("objective", spec, TABLES, system.permit, **provided)

    made = make() if system.permit.large else memory.make_within_limit(make, "the objective")
    return made.to(system.device)


def objective_of_stage(system: System, stage: str) -> Objective:
    """What a stage of a system's training minimises. Raises InputError where there is none."""
    if stage == "field":
        return objective_of(system)
    if system.prior is None:
        raise InputError(f"the recipe has no prior, and so no stage '{stage}'.")
    return CodecLoss(system.prior.codec) if stage == "codec" else PriorLoss(system.prior)


def depths_of(recipe: recipes.Recipe) -> dict[str, Any]:
    """``near`` and ``far`` of a recipe's renderer, as far as it gives numbers that may be them.

    Of volume rendering also its ``scale``, of ``occupancy`` its ``contract``, None where the data
    decide.
    """
    renderer = recipe.get("renderer")
    given: Mapping[str, Any] = renderer if isinstance(renderer, Mapping) else {"name": renderer}
    found = {key: given[key] for key in ("near", "far") if type(given.get(key)) in (int, float)}
    known: dict[str, Any] = {k: float(value) for k, value in found.items() if 0 <= value < math.inf}
    if given.get("name") == "occupancy":
        known["contract"] = given.get("contract")
    scale = given.get("scale", 1.0)
    whole = (
        given.get("name") in ("volume", "occupancy")
        and type(scale) in (int, float)
        and 0 < scale < math.inf
    )
    return known | ({"scale": float(scale)} if whole else {})


def open_source(
    recipe: recipes.Recipe, modality: Modality, permit: Permit = NOTHING, quiet: bool = False
) -> Source:
    """The data of a recipe, in the size and channels of its modality.

    One line on the standard error says what was read (``Summary``). quiet: it was said before.
    """
    if "source" not in recipe:
        fix = set_key("source.path", "FOLDER")
        raise InputError(f"the recipe has no section 'source': {fix} gives it data.")
    begins = "modality" in recipe and "known" not in recipe
    spec = recipe["source"]
    spec = {"name": spec} if isinstance(spec, str) else spec
    if isinstance(spec, Mapping):  # else the registry raises the error
        check_path(spec)
        check_kind(spec, modality.kind, recipe.get("recipe", "") if begins else None)
    if begins:  # the size of the recipe, not of data
        points = parse_stage("field", recipe.get("train", {}).get("field", {})).points
        size = modality.value_dim  # bytes a point
        if points is None:
            size += memory.FLOAT * (modality.coord_dim + modality.value_dim)
        shape = modality.shape()
        memory.check(f"one datum of the size {shape}", math.prod(shape) * size, permit)
    known = {
        "modality": modality,
        "suggest": begins,  # a run's recipe is complete
        "depths": depths_of(recipe),
    }
    source = registry.build("source", recipe["source"], TABLES, permit, **known)
    if not isinstance(source, Source):
        kind = type(source).__name__
        raise InputError(
            f"source: a reader returned a {kind}; it must return a Source, as make_source makes it."
        )
    if spec.get("name") not in SOURCES:
        check_source(source, modality)
    if not quiet:
        announce(f"read: {source.summary.describe()}")
    return source


def check_source(source: Source, modality: Modality) -> None:
    """Raise InputError where a reader beyond the package's own gives what its data cannot be."""
    data: Any = source.data
    if not isinstance(data, Data):
        kind = type(data).__name__
        raise InputError(f"source: the reader's data are a {kind}: Data(values, ...) is needed.")
    modality.check_data(data)
    if isinstance(data.values, torch.Tensor):
        check_unit_range(data.values, "source: the reader's data")
    for name, part in (("train", source.train), ("test", source.test)):
        whole = isinstance(part, torch.Tensor) and part.dtype == torch.int64 and part.ndim == 1
        if not whole or (len(part) and not 0 <= int(part.min()) <= int(part.max()) < len(data)):
            raise InputError(
                f"source: the reader's {name} is no tensor (n,) of indices below {len(data)}."
            )
    if not len(source.train):
        raise InputError("source: the reader gives no data to train on.")
    label = data.label
    if label is not None and not 0 <= int(label.min()) <= int(label.max()) < len(source.names):
        raise InputError(
            f"source: the reader's labels go from {int(label.min())} to {int(label.max())}, and "
            f"names has {len(source.names)} classes."
        )


def make_modality(spec: Any, permit: Permit = NOTHING) -> Modality:
    """The modality that a recipe's section describes.

    Raises InputError, as ``registry.build`` does, and for a class that does not say what it must.
    """
    made = registry.build("modality", spec, TABLES, permit)
    for name in ("coord_dim", "channels"):
        if not isinstance(getattr(made, name, None), int):
            raise InputError(
                f"modality {type(made).__name__} states no {name}: a whole number, as an attribute "
                "of the class, or set where it is made."
            )
    for name in ("shape", "grid"):
        if getattr(type(made), name) is getattr(Modality, name):
            raise InputError(f"modality {type(made).__name__} has no method '{name}' of its own.")
    return made
