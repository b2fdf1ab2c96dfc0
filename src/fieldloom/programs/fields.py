"""The program of each kind of field, from its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldloom.errors import InputError
from fieldloom.fields import Experts, Field, FourierMlp, GridMlp, Local, Siren, WaveMlp
from fieldloom.fields.encodings import Encoding
from fieldloom.fields.grids import KPlanes, TriPlane
from fieldloom.fields.waves import WAVES
from fieldloom.nn.layers import ACTIVATIONS
from fieldloom.programs.program import Builder, Embed, Lookup, Planes, Program, Tiled

One = Mapping[str, Tensor]
"""The weights of one function, without a batch."""


def compile_field(field: Field, weights: Mapping[str, Tensor], coord_dim: int) -> Program:
    """The program of a field and its weights (1, ...), by slot.

    coord_dim: of all coordinates, directions included. Raises InputError for several functions, and
    for a field of another kind.
    """
    for name, x in weights.items():
        if len(x) != 1:
            raise InputError(f"a program is of one function: the slot '{name}' has {len(x)}.")
    for kind, build in FIELDS.items():
        if isinstance(field, kind):
            builder = Builder(coord_dim)
            build(builder, field, {name: x[0].detach().cpu() for name, x in weights.items()})
            return builder.program()
    known = ", ".join(kind.__name__ for kind in FIELDS)
    raise InputError(f"a field '{type(field).__name__}' has no program; {known} have.")


def siren(b: Builder, field: Siren, weights: One) -> None:
    x = b.coords()
    for i, w0 in enumerate(field.frequencies):
        x = layer(b, x, str(i), weights)
        if i < field.depth - 1 or field.output == "sine":
            x = b.activate(x, "sine", w0)
    b.affine(x, offset=field.offset)


def wave_mlp(b: Builder, field: WaveMlp, weights: One) -> None:
    x, last = b.coords(), len(field.calls)
    for i, call in enumerate(field.calls):
        x = b.activate(layer(b, x, str(i), weights), name_of(call), field.frequency, field.scale)
    b.affine(layer(b, x, str(last), weights), offset=field.offset)


def fourier_mlp(b: Builder, field: FourierMlp, weights: One) -> None:
    if field.normalize:
        matrices = {name: w for name, w in weights.items() if name.endswith(".weight")}
        unit = {name: F.normalize(w, dim=-2, eps=1e-12) for name, w in matrices.items()}
        weights = {**weights, **unit}
    x = b.affine(b.coords(), scale=field.scale)
    if field.learned:
        angles = b.affine(layer(b, x, "0", weights), scale=field.bandwidth)
        eye = torch.eye(b.width(angles))
        waves = b.waves(angles, torch.cat([eye, eye], 1), halves(len(eye), sine_first=True))
        x = b.concat(x, waves) if field.include_input else waves
    else:
        x = encode(b, x, field.encoding, weights)
    for i in field.layers:
        x = layer(b, x, str(i), weights)
        x = b.activate(x, name_of(field.activation if i < field.layers[-1] else field.output))
    b.affine(x, offset=field.offset)


def grid_mlp(b: Builder, field: GridMlp, weights: One) -> None:
    where, span = b.coords(0, field.coord_dim), field.high - field.low
    table, grid = weights["grid.weight"], field.grid
    count, planes = len(field.lattices.rows), math.comb(field.coord_dim, 2)
    features = table.shape[1]
    x = b.add(
        Lookup(count * features, (where,), table, field.lattices, field.smooth, field.low, span)
    )
    if isinstance(grid, TriPlane):
        width = count // planes * features
        x = b.add(Planes(width, (x,), planes, features, isinstance(grid, KPlanes)))
    for i in range(field.trunk - 1):
        x = b.activate(layer(b, x, str(i), weights), name_of(field.activation))
    values = layer(b, x, str(field.trunk - 1), weights)
    if not field.radiance:
        b.affine(b.activate(values, name_of(field.output)), offset=field.offset)
        return
    seen = b.concat(x, *directions(b, field.coord_dim, field.views))
    hidden = b.activate(layer(b, seen, str(field.trunk), weights), name_of(field.activation))
    b.concat(layer(b, hidden, str(field.trunk + 1), weights), values)


def experts(b: Builder, field: Experts, weights: One) -> None:
    where = b.coords(0, field.coord_dim)
    encoded = encode(b, where, field.encoding, weights)
    x = encoded
    if "context" in weights:
        x, weights = add_context(b, encoded, weights)
    for i in range(field.trunk):
        if i in field.skip:
            x = b.concat(x, encoded)
        y = tiled_layer(b, x, where, i, field, weights)
        if i == field.trunk - 1 and not field.radiance:
            x = b.activate(y, name_of(field.output))
        elif field.residual and i > 0 and b.width(x) == b.width(y):
            x = b.affine(b.add_up(x, b.activate(y, name_of(field.activation))), math.sqrt(0.5))
        else:
            x = b.activate(y, name_of(field.activation))
    if not field.radiance:
        b.affine(x, offset=field.offset)
        return
    density = layer(b, x, str(field.trunk), weights)
    seen = b.concat(x, *directions(b, field.coord_dim, field.views))
    hidden = b.activate(layer(b, seen, str(field.trunk + 1), weights), name_of(field.activation))
    b.concat(layer(b, hidden, str(field.trunk + 2), weights), density)


def add_context(b: Builder, encoded: int, weights: One) -> tuple[int, One]:
    """The first layer's input, and the weights, without the context: it is the same for all points,
    so that what the first layer makes of it, in each tile, is the weight of one more input, 1."""
    inputs, matrix = b.width(encoded), weights["0.weight"]
    made = weights["context"].to(matrix) @ matrix[..., inputs:, :]
    one = b.linear(encoded, torch.zeros(inputs, 1), torch.ones(1))
    matrix = torch.cat([matrix[..., :inputs, :], made.unsqueeze(-2)], -2)
    return b.concat(encoded, one), {**weights, "0.weight": matrix}


def local(b: Builder, field: Local, weights: One) -> None:
    tokens, coords = weights["tokens"], b.coords()
    relu = lambda x: b.activate(x, "relu")
    fourier = lambda f: b.waves(coords, *coordinate_major(b.coord_dim, f))
    q = relu(layer(b, fourier(field.query), "query", weights))
    if field.attentive:
        keys, values = (project(tokens, name, weights) for name in ("k", "v"))
        found = b.attend(layer(b, q, "q", weights), keys, values, field.heads)
        m = layer(b, found, "o", weights)
    else:
        composed = F.normalize(tokens.mT @ weights["compose.weight"], dim=-2, eps=1e-12)
        m = relu(b.linear(q, composed, weights["compose.bias"]))
    h, total = m, None
    for level, frequencies in zip(field.levels, field.bands, strict=True):
        if not field.banded:
            h = relu(layer(b, h, f"hidden{level}", weights))
            continue
        band = relu(layer(b, fourier(frequencies), f"band{level}", weights))
        own = relu(b.add_up(band, layer(b, m, f"mod{level}", weights)))
        if level > 1:
            own = relu(layer(b, b.add_up(own, h), f"hidden{level}", weights))
        h = own
        out = layer(b, h, f"out{level}", weights)
        total = out if total is None else b.add_up(total, out)
    if total is None:
        total = layer(b, h, f"out{field.levels[-1]}", weights)
    b.affine(total, offset=field.offset)


FIELDS: dict[type, Callable[[Builder, Any, One], None]] = {
    Siren: siren,
    WaveMlp: wave_mlp,
    FourierMlp: fourier_mlp,
    GridMlp: grid_mlp,
    Experts: experts,
    Local: local,
}
"""Kind of field -> what builds its program."""


def layer(b: Builder, x: int, name: str, weights: One) -> int:
    """One linear layer, by its slots."""
    return b.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def project(tokens: Tensor, name: str, weights: One) -> Tensor:
    """One linear layer of constants."""
    found = tokens @ weights[f"{name}.weight"]
    return found + weights[f"{name}.bias"] if f"{name}.bias" in weights else found


def tiled_layer(b: Builder, x: int, where: int, i: int, field: Experts, weights: One) -> int:
    weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
    if weight.ndim == 2:
        return b.linear(x, weight, bias)
    affine, axes = field.affines[i], field.coord_dim
    if f"{i}.tiling" in weights:
        matrix, offset = weights[f"{i}.tiling"].split([axes, 1])
    else:
        matrix = affine.scale.diag() if affine.scale.ndim == 1 else affine.scale
        offset = affine.offset
    blend = field.blend == "linear"
    offset = offset.reshape(axes) - (0.5 if blend and field.centred else 0.0)
    own, width = field.tiles[i], weight.shape[-1]
    first, last = torch.tensor(field.ends, dtype=torch.float64)
    low, span = field.ends[0][0], field.ends[1][0] - field.ends[0][0]
    if first.unique().numel() > 1 or last.unique().numel() > 1:
        # axes with ends of their own: these go into q = ((p - low) / span) M + offset
        whole = matrix.double() / (last - first)[:, None]
        offset, matrix = (offset - first @ whole).to(matrix), whole.to(matrix)
        low, span = 0.0, 1.0
    return b.add(Tiled(width, (x, where), weight, bias, matrix, offset, own, blend, low, span))


def encode(b: Builder, x: int, encoding: Encoding, weights: One) -> int:
    """The encoding of coordinates (``fields.encodings``)."""
    inputs, parts = b.width(x), []
    if encoding.include_input or encoding.features == "none":
        parts.append(x)
    if encoding.features == "constant":
        count = encoding.count
        parts.append(b.linear(x, torch.zeros(inputs, count), torch.ones(count)))
    elif encoding.features == "gaussian":
        features = math.tau * weights["features"].double()
        quarters = halves(features.shape[1], sine_first=False)
        parts.append(b.waves(x, torch.cat([features, features], 1), quarters))
    elif encoding.features == "octaves":
        parts.append(b.waves(x, *interleaved(inputs, encoding.frequencies)))
    elif encoding.features == "log":
        parts.append(b.waves(x, *coordinate_major(inputs, encoding.frequencies)))
    if encoding.grid is not None:
        own, grid = weights["grid"], encoding.grid
        parts.append(b.add(Embed(own.shape[-1], (x,), own, grid.low, grid.high - grid.low)))
    return b.concat(*parts)


def directions(b: Builder, first: int, frequencies: Tensor) -> list[int]:
    """The direction and its octaves; nothing where the field sees none."""
    if b.coord_dim == first:
        return []
    direction = b.coords(first)
    if not len(frequencies):
        return [direction]
    return [direction, b.waves(direction, *interleaved(b.coord_dim - first, frequencies))]


def halves(count: int, sine_first: bool) -> Tensor:
    """Quarters of ``count`` sines and ``count`` cosines."""
    quarters = torch.arange(2).repeat_interleave(count)
    return quarters if sine_first else 1 - quarters


def coordinate_major(inputs: int, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and the quarters of ``nn.layers.fourier``."""
    matrix = torch.kron(torch.eye(inputs, dtype=torch.float64), frequencies[None])
    return torch.cat([matrix, matrix], 1), halves(matrix.shape[1], sine_first=False)


def interleaved(inputs: int, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and the quarters of ``nn.layers.fourier_interleaved``."""
    eye = torch.eye(inputs, dtype=torch.float64)
    matrix = torch.cat([f * eye for f in frequencies.repeat_interleave(2)], 1)
    quarters = torch.arange(2).repeat(len(frequencies)).repeat_interleave(inputs)
    return matrix, quarters


def name_of(call: Callable[..., Tensor]) -> str:
    """The name of an activation of ``nn.layers`` or of ``fields.waves``."""
    for name, own in ACTIVATIONS.items():
        if own is call:
            return name
    for name, wave in WAVES.items():
        if call is wave.call:
            return name
        if call is wave.first:
            return f"{name}-first"
    raise InputError(f"the activation '{call}' has no program.")
