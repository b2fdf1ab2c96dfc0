"""A system: modality, renderer, family, encoder and prior, built from a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from fieldloom import recipe as recipes
from fieldloom.conditioners import CONDITIONERS
from fieldloom.encoders import ENCODERS, Encoder
from fieldloom.errors import InputError, unknown
from fieldloom.family import Family
from fieldloom.fields import FIELDS
from fieldloom.metrics.mismatch import MISMATCHES
from fieldloom.modalities import MODALITIES, Modality
from fieldloom.modalities.modality import Resolution
from fieldloom.modalities.sources import SOURCES, Source
from fieldloom.objectives import OBJECTIVES, PENALTIES, Objective
from fieldloom.priors import CODECS, DENOISERS, PRIORS, Prior
from fieldloom.registry import build as make
from fieldloom.renderers import RENDERERS, Renderer
from fieldloom.types import Code, Mismatch, Signal, Values, layer_of

TABLES: Mapping[str, Mapping[str, Any]] = {
    "source": SOURCES,
    "modality": MODALITIES,
    "renderer": RENDERERS,
    "field": FIELDS,
    "conditioner": CONDITIONERS,
    "encoder": ENCODERS,
    "start": ENCODERS,
    "unseen": ENCODERS,
    "objective": OBJECTIVES,
    "penalty": PENALTIES,
    "prior": PRIORS,
    "codec": CODECS,
    "denoiser": DENOISERS,
}

CACHED = 1 << 18
"""Values of one hidden layer that are evaluated at a time: 1 MiB of float32."""


class System(nn.Module):
    """Data are tensors (batch, channel, *axes) in [0, 1]; codes are (batch, tokens, width).

    ``prior`` is None in a recipe without one. ``recipe`` is the resolved recipe, kept for saving;
    ``finished`` the stages of training that the weights have behind them.
    """

    def __init__(
        self,
        modality: Modality,
        render: Renderer,
        mismatch: Mismatch,
        family: Family,
        encoder: Encoder,
        prior: Prior | None,
        recipe: recipes.Recipe,
    ) -> None:
        super().__init__()
        self.modality, self.render, self.mismatch, self.recipe = modality, render, mismatch, recipe
        self.family, self.encoder, self.prior = family, encoder, prior
        self.finished: list[str] = []
        self.eval()

    @property
    def generates(self) -> bool:
        """Whether there is a prior, and it is trained."""
        return self.prior is not None and "prior" in self.finished

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # -- data <-> codes

    def encode(self, data: Tensor, batch: int | None = None) -> Code:
        """The codes of data (batch, channel, *axes): (batch, tokens, width).

        batch: so many signals at a time; None: the recipe's micro-batch, or, where the codes of a
        batch depend on one another, the batch that it trains with.
        """
        field = self.recipe.get("train", {}).get("field", {})
        whole = field.get("batch", 32)
        size = batch or (field.get("micro", whole) if self.encoder.separable else whole)
        parts = [self.modality.observe(part).context for part in data.split(size)]
        return torch.cat([self.encode_signal(part) for part in parts])

    def encode_signal(self, signal: Signal) -> Code:
        """The codes of a batch of signals, whole grids or scattered points."""
        self.eval()
        with torch.no_grad():
            signal = signal.to(self.device)
            return self.encoder(signal, self.family, self.render, self.mismatch).detach()

    def decode(self, code: Code, resolution: Resolution | None = None) -> Tensor:
        """The data of codes, at any resolution: (batch, channel, *axes), clamped to [0, 1]."""
        return self.predict(code, resolution).clamp(0, 1)

    def predict(self, code: Code, resolution: Resolution | None = None) -> Tensor:
        """As ``decode``, not clamped."""
        coords = self.modality.grid(resolution).to(self.device)
        values = torch.cat(list(self.evaluate(code.to(self.device), coords)))
        return self.modality.assemble(values.cpu(), resolution)

    @torch.inference_mode()
    def evaluate(
        self, code: Code, coords: Tensor, dtype: torch.dtype | None = None
    ) -> Iterator[Values]:
        """Values of each code in turn at coords (1, points, coord): one (1, points, value) a code.

        One instance at a time, in pieces whose hidden layers stay in the cache: faster on a CPU
        than any larger batch. dtype: of all weights but the first layer's, where coordinates and
        phases of many periods meet (in bfloat16 they would cost 10 dB); None is their own.
        """
        weights = self.family.conditioner(code)
        if dtype is not None:
            first = layer_of(next(iter(self.family.field.slots)))
            weights = {n: w if layer_of(n) == first else w.to(dtype) for n, w in weights.items()}
        widest = max(slot.shape[-1] for slot in self.family.field.slots.values())
        piece = max(1, CACHED // widest) if code.is_cpu else 1 << 20
        for i in range(len(code)):
            own = {n: w if len(w) == 1 else w[i : i + 1] for n, w in weights.items()}
            pieces = [
                self.render(partial(self.family.field, weights=own), part)
                for part in coords.split(piece, 1)
            ]
            yield torch.cat(pieces, 1).float()

    def reconstruct(self, data: Tensor, resolution: Resolution | None = None) -> Tensor:
        """decode(encode(data))."""
        return self.decode(self.encode(data), resolution)

    # -- sampling

    def sample(
        self,
        count: int,
        resolution: Resolution | None = None,
        label: int | Tensor | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Tensor:
        """New data from the prior. options: the prior's own (guidance, steps, sampler ...)."""
        return self.decode(self.sample_codes(count, label, seed, **options), resolution)

    def sample_codes(
        self, count: int, label: int | Tensor | None = None, seed: int = 0, **options: Any
    ) -> Code:
        if self.prior is None:
            raise InputError("this recipe has no prior to sample from.")
        if not self.generates:
            raise InputError("the prior is not trained yet: --stage prior with --resume trains it.")
        self.eval()
        generator = Generator().manual_seed(seed)
        return self.prior.sample(count, label, generator=generator, **options)

    def interpolate(
        self, a: Tensor, b: Tensor, steps: int = 16, resolution: Resolution | None = None
    ) -> Tensor:
        """From datum a to b (channel, *axes) along the line between their codes, ends included.

        Returns (steps, channel, *axes).
        """
        ends = self.encode(torch.stack([a, b]))
        share = torch.linspace(0, 1, steps, device=ends.device)
        return self.decode(torch.lerp(ends[:1], ends[1:], share.view(-1, 1, 1)), resolution)

    # -- training

    def objective(self) -> Objective:
        """The objective of the stage ``field``."""
        spec = self.recipe.get("objective", "reconstruction")
        known = {
            "family": self.family,
            "encoder": self.encoder,
            "render": self.render,
            "mismatch": self.mismatch,
        }
        return make("objective", spec, TABLES, **known)


def build(recipe: str | recipes.Recipe, variant: str | None = None, **overrides: Any) -> System:
    """The system that a recipe describes, untrained: a name, a path, or a dict.

    overrides: sections or keys that replace the recipe's: ``build("mnif", "digits", seed=1,
    field={"width": 64})``. Raises InputError for whatever does not fit, naming it.
    """
    if isinstance(recipe, str):
        recipe = recipes.load(f"{recipe}:{variant}" if variant else recipe)
    elif variant:
        raise InputError("variant: a recipe given as a dict has its variants merged already.")
    recipe = recipes.merge(recipe, overrides)
    recipes.validate(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.get("seed", 0))
        return _assemble(recipe)


def _assemble(recipe: recipes.Recipe) -> System:
    for section in ("modality", "field"):
        if section not in recipe:
            raise InputError(f"the recipe has no section '{section}'.")
    facts = recipe.get("known", {})  # what the source said when the run began
    signals, classes = facts.get("signals", 0), facts.get("classes", 0)
    modality = make("modality", recipe["modality"], TABLES)
    render = make("renderer", recipe.get("renderer", "direct"), TABLES)
    domain = render.domain(modality.coord_dim, modality.value_dim)
    field = make(
        "field",
        recipe["field"],
        TABLES,
        coord_dim=domain.coord,
        value_dim=domain.value,
        direction_dim=domain.direction,
    )
    conditioner = make(
        "conditioner", recipe.get("conditioner", "shared"), TABLES, slots=field.slots
    )
    family = Family(field, conditioner)
    batch = recipe.get("train", {}).get("field", {}).get("batch", 32)
    known = {"code_shape": family.code_shape, "signals": signals, "classes": classes}
    encoder = make("encoder", recipe.get("encoder", "nothing"), TABLES, batch=batch, **known)
    drawn = recipe.get("prior", "none")
    prior = None if drawn == "none" else make("prior", drawn, TABLES, **known)
    loss = recipe.get("loss", "mse")
    if loss not in MISMATCHES:
        raise unknown("loss", str(loss), MISMATCHES)
    return System(modality, render, MISMATCHES[loss], family, encoder, prior, recipe)


def open_source(recipe: recipes.Recipe, modality: Modality) -> Source:
    """The data of a recipe, in the size and channels of its modality."""
    if "source" not in recipe:
        raise InputError("the recipe has no section 'source': give --set source.name=folder.")
    return make("source", recipe["source"], TABLES, modality=modality)
