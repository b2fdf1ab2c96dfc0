"""Every field's program gives the field's values."""

import pytest
import torch

from fieldloom.fields import Experts, FourierMlp, GridMlp, Local, Siren, WaveMlp
from fieldloom.fields.arrangements import RandomAffine
from fieldloom.fields.encodings import Embedding, Fourier
from fieldloom.fields.experts import Head, Tiling
from fieldloom.fields.grids import DenseGrid, HashGrid, KPlanes, TriPlane
from fieldloom.programs import compile_field, run
from fieldloom.programs.run import lose_by_half

SMALL = dict(width=12, depth=4)
EXPERTS = dict(width=8, depth=4)
FIELDS = {
    "siren": (Siren, dict(width=12, depth=4)),
    "siren, functa": (Siren, dict(width=12, depth=3, bias="zero", offset=0.5)),
    "siren, mnif": (Siren, dict(width=12, depth=3, frequency=(10.0, 20.0, 30.0), output="sine")),
    **{f"wave {n}": (WaveMlp, SMALL | dict(activation=n)) for n in
       ("sine", "h-sine", "finer", "gaussian", "gabor")},
    **{f"fourier {n}": (FourierMlp, SMALL | dict(encoding=Fourier(n, 4, 8.0, include_input=True)))
       for n in ("octaves", "log", "gaussian", "learned", "none")},
    "fourier, ipc": (FourierMlp, SMALL | dict(normalize=True, scale=0.5, output="sigmoid")),
    "fourier, grid": (FourierMlp,
                      SMALL | dict(encoding=Fourier("octaves", 3, grid=Embedding(5, 6)))),
    "nef": (FourierMlp, SMALL | dict(output_bias=False, activation="gelu", offset=0.25)),
    "hash": (GridMlp, dict(grid=HashGrid(4, 4, 2.0, log2_hashmap_size=6), width=16)),
    "smooth": (GridMlp, dict(grid=HashGrid(3, 4, interpolation="smooth", features=3), width=16)),
    "dense": (GridMlp, dict(grid=DenseGrid(2, 3), width=16, offset=0.5, output="tanh")),
    "tri-plane": (GridMlp, dict(grid=TriPlane((4, 8), 3), width=16)),
    "k-planes": (GridMlp, dict(grid=KPlanes((4, 8), 3), width=16)),
    "experts": (Experts, EXPERTS | dict(tiling=Tiling(2))),
    "experts, linear": (Experts, EXPERTS | dict(tiling=Tiling((4, 2, (1, 3, 2)[:2], 1), "linear"))),
    "experts, box": (Experts, EXPERTS | dict(tiling=Tiling(3, "linear", low=(-1.0, -0.5),
                                                           high=(0.7, 1.25)))),
    "experts, random": (Experts, EXPERTS | dict(tiling=Tiling(3, arrangement=RandomAffine()))),
    "experts, residual": (Experts, EXPERTS | dict(tiling=Tiling(2), residual=True, skip=(2,))),
    "experts, constant": (Experts, EXPERTS | dict(encoding=Fourier("constant", 5))),
    "experts, context": (Experts, EXPERTS | dict(tiling=Tiling((1, 2, 2, 1)), context=6)),
    "experts, tiled context": (Experts,
                               EXPERTS | dict(tiling=Tiling((3, 2, 2, 1), "linear"), context=6)),
    "local": (Local, dict(width=16, features=16, tokens=7)),
    "local, compose": (Local, dict(width=16, features=16, tokens=7, aggregate="compose")),
    "local, stack": (Local, dict(width=16, features=16, tokens=7, modulate="stack", offset=0.5)),
}  # fmt: skip


def draw_weights(field, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: slot.init(generator)[None] for name, slot in field.slots.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_a_program_gives_the_values_of_its_field(name):
    kind, settings = FIELDS[name]
    field = kind(2, 3, **settings)
    weights = draw_weights(field)
    if "grid.weight" in weights:
        weights["grid.weight"] *= 1e3
    coords = 2.2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) - 1.1
    program = compile_field(field, weights, 2)
    with torch.inference_mode():
        right, found = field(coords[None], weights)[0], run(program, coords)
    assert found.shape == right.shape
    torch.testing.assert_close(found, right, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", [GridMlp, Experts])
def test_radiance(kind):
    settings = dict(head=Head("radiance", 2, 8), width=8, depth=6)
    field = kind(3, 4, 3, **settings)
    weights, coords = draw_weights(field), torch.rand(50, 6) * 2 - 1
    with torch.inference_mode():
        right, found = (
            field(coords[None], weights)[0],
            run(compile_field(field, weights, 6), coords),
        )
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("frequency", "least", "most"), [(30.0, 1e-4, 0.02), (3000.0, 0.1, 10.0)])
def test_half_precision_costs_sines_of_high_frequency_most(frequency, least, most):
    field = Siren(1, 1, width=32, depth=4, frequency=(frequency, 30.0, 30.0, 30.0))
    assert least < lose_by_half(compile_field(field, draw_weights(field), 1)) < most
