"""What an encoder sees, where that is less than what is predicted."""

from functools import partial

import pytest
import torch

from fieldloom.assembly import build, objective_of
from fieldloom.encoders import Transformer
from fieldloom.metrics.losses import mse
from fieldloom.modalities import MODALITIES, Views
from fieldloom.modalities.grid import Context
from fieldloom.objectives import Reptile
from fieldloom.renderers import Direct, Plucker, plucker
from fieldloom.types import Cameras, Signal
from given import data_of

image = partial(MODALITIES["image"], range="unit")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_few_points_are_predicted_from_a_whole_grid():
    modality, data = image(size=6), torch.rand(2, 3, 6, 6)
    batch = modality.observe(data, points=5, generator=seeded(), keep_grid=True)
    assert batch.context.grid == (6, 6)
    torch.testing.assert_close(modality.assemble(batch.context.values).tensor, data)
    assert batch.target.grid is None
    assert batch.target.coords.shape == (2, 5, 2)
    plain = modality.observe(data, points=5, generator=seeded())
    assert plain.context is plain.target
    torch.testing.assert_close(plain.target.values, batch.target.values)
    labelled = modality.observe(data_of(data, label=torch.tensor([1, 0])), points=5, keep_grid=True)
    assert labelled.context.label.tolist() == labelled.target.label.tolist() == [1, 0]


def test_hidden_points_are_drawn_for_each_signal():
    modality = image(size=20, context=Context(hide=(0.2, 0.6)))
    data = torch.rand(50, 3, 20, 20)
    batch = modality.observe(data, generator=seeded())
    hidden = 1 - batch.context.mask.float().mean(1)
    assert 0.1 < hidden.min() < 0.3 < 0.5 < hidden.max() < 0.7
    assert batch.target.mask is None  # all is predicted
    torch.testing.assert_close(batch.target.values, batch.context.values)
    other = modality.observe(data, generator=seeded(1)).context.mask
    assert not torch.equal(batch.context.mask, other)
    # outside training: the mean share, the same points of every signal and every time
    found = modality.encoding(data)
    assert abs(1 - found.mask.float().mean() - 0.4) < 0.05
    assert torch.equal(found.mask, modality.encoding(data[:1]).mask.expand(50, -1))


def test_an_encoder_of_points_gets_known_ones():
    modality = image(size=8, context=Context(hide=0.5))
    batch = modality.observe(torch.rand(4, 3, 8, 8), points=10, generator=seeded())
    assert batch.context.coords.shape == (4, 10, 2)
    assert batch.context.mask.all()
    few = Signal(torch.rand(1, 4, 2), torch.rand(1, 4, 1), torch.arange(1),
                 mask=torch.tensor([[True, False, False, True]]))  # fmt: skip
    assert few.sample_known(3, seeded()).mask.sum() == 2  # both known ones, and one more


@pytest.mark.parametrize(("name", "axes"), [("image", 2), ("audio", 1), ("video", 3)])
def test_a_smaller_grid_is_the_mean_of_cells(name, axes):
    modality = MODALITIES[name](size=6, range="unit", context=Context(size=2))
    data = torch.rand(2, modality.channels, *(6,) * axes)
    context = modality.observe(data, points=3, keep_grid=True).context
    assert modality.axes == context.grid == (2,) * axes
    cells = data
    for axis in range(2, 2 + axes):
        cells = cells.unflatten(axis, (2, 3)).mean(axis + 1)
    torch.testing.assert_close(modality.assemble(context.values, 2).tensor, cells)
    torch.testing.assert_close(context.coords, modality.grid(2).expand(2, -1, -1))
    torch.testing.assert_close(modality.encoding(data).values, context.values)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(dict(hide=1.0), "hide"), (dict(hide=(0.5, 0.2)), "hide"), (dict(size=9), "more than")],
)
def test_contexts_that_cannot_be_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        image(size=6, context=Context(**wrong))


def posed(views=7, objects=3, size=4):
    generator = seeded(3)
    from fieldloom.geometry.cameras import orbit

    c2w = torch.stack([orbit(views, 1.5, 20.0 + i, 2) for i in range(objects)]).float()
    intrinsics = torch.tensor([5.0, 5.0, 2.0, 2.0]).expand(objects, views, 4)
    data = torch.rand(objects, views, 3, size, size, generator=generator)
    return data, {"c2w": c2w, "intrinsics": intrinsics}


def select_views(signal, data, size=4):
    """Which views of each object a signal of whole views holds."""
    pictures = signal.values.unflatten(1, (-1, size * size)).mT.unflatten(-1, (size, size))
    return [
        [next(j for j, view in enumerate(own) if torch.equal(view, one)) for one in some]
        for own, some in zip(data, pictures, strict=True)
    ]


def test_support_and_query_are_different_views():
    modality = Views(size=4, range="unit", support=(1, 3), query=2, held=1)
    data, cameras = posed()
    counts = set()
    for seed in range(20):
        batch = modality.observe(data_of(data, **cameras), generator=seeded(seed), keep_grid=True)
        support, query = select_views(batch.context, data), select_views(batch.target, data)
        counts.add(len(support[0]))
        for seen, asked in zip(support, query, strict=True):
            assert not set(seen) & set(asked)
            assert len(asked) == 2
            assert 6 not in seen + asked  # held out
        assert any(support[0] != other for other in support[1:]) or len(support[0]) == 1
    assert counts == {1, 2, 3}
    few = modality.observe(data_of(data, **cameras), points=5, generator=seeded(), keep_grid=True)
    assert few.target.coords.shape == (3, 5, 6)
    assert few.context.grid[1:] == (4, 4)
    scattered = modality.observe(data_of(data, **cameras), points=5, generator=seeded())
    assert scattered.context.coords.shape == (3, 5, 6)


def test_codes_are_found_from_views_at_even_distances():
    modality = Views(size=4, range="unit", support=(1, 3), held=1)
    data, cameras = posed()
    assert select_views(modality.encoding(data_of(data, **cameras)), data) == [[0, 2, 4]] * 3
    two = modality.support(data_of(data, **cameras), count=2)
    assert select_views(two, data) == [[0, 3]] * 3
    with pytest.raises(ValueError, match="from 1 to 6"):
        modality.support(data_of(data, **cameras), count=7)
    with pytest.raises(ValueError, match="more than the 6 views"):
        Views(size=4, support=6, query=1, held=1).observe(data_of(data, **cameras))
    with pytest.raises(ValueError, match="support"):
        Views(size=4, support=(3, 1))


def test_rays_are_joined_to_pixels():
    modality = Views(size=4, range="unit", support=2)
    data, cameras = posed()
    signal = modality.encoding(data_of(data, **cameras))
    for rays, expected in (("plucker", plucker(signal.coords)), ("origin", signal.coords)):
        encoder = Transformer((2, 8), modality.axes, 3, 6, grid_dim=2, width=8, depth=1,
                              heads=2, patch=1, rays=rays)  # fmt: skip
        torch.testing.assert_close(encoder.patches(signal)[..., 3:], expected)
        torch.testing.assert_close(encoder.patches(signal)[..., :3], signal.values)


RECIPES = ["laginr:tiny", "ipc:tiny", "transinr:tiny", "learned-init:tiny"]


@pytest.mark.parametrize("name", RECIPES)
def test_small_recipes_learn(name):
    """A few dozen steps on two pictures halve the error with which the untrained system starts."""
    system = build(name)
    objective = objective_of(system).train()
    system.train()
    torch.manual_seed(0)
    data = torch.rand(2, 1, 8, 8)
    adam = torch.optim.Adam(objective.players["field"]["shared"], 1e-2)
    losses = []
    for _ in range(60):
        batch = system.modality.observe(data, keep_grid=system.encoder.reads_grid)
        loss, _ = objective.loss("field", batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    system.eval()
    larger = system.reconstruct(data, resolution=20).tensor
    assert larger.shape == (2, 1, 20, 20)
    assert torch.isfinite(larger).all()


def test_reptile_pulls_the_origin_towards_the_end_of_descent():
    system = build("learned-init:tiny", objective="reptile")
    objective = objective_of(system).train()
    system.train()
    batch = system.modality.observe(torch.rand(2, 1, 8, 8))
    loss, _ = objective.loss("field", batch)
    loss.backward()
    code = system.encoder(batch.context, system.family, Direct(), mse).detach()
    start = system.family.conditioner.start
    torch.testing.assert_close(start.grad, (start - code).mean(0, keepdim=True).detach())
    with pytest.raises(ValueError, match="needs an encoder that descends"):
        objective_of(build("laginr:tiny", objective="reptile"))
    assert isinstance(objective, Reptile)


def test_light_fields_are_rendered_from_the_code_of_a_few_views():
    small = {"field": {"width": 12, "features": 12, "tokens": 3},
             "encoder": {"width": 12, "depth": 1, "heads": 2, "patch": 4},
             "modality": {"size": 8, "held": 1}}  # fmt: skip
    system = build("laginr:multiview128", source={"name": "multiview", "path": "none"}, **small)
    data, cameras = posed(size=8)
    code = system.encode(data_of(data, **cameras))
    assert code.shape == (3, 3, 12)
    assert isinstance(system.render, Plucker)
    novel = {key: value[:, -1:] for key, value in cameras.items()}
    assert system.predict(code, cameras=Cameras(**novel)).shape == (3, 1, 3, 8, 8)
