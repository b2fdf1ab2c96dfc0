"""What bounds the inside of meshes that files get wrong: the right points are inside."""

import numpy as np
import pytest
import torch

from fieldloom.geometry.boundary import find_boundary
from fieldloom.geometry.inside import inside, signed_distance, winding_number
from fieldloom.geometry.mesh import Mesh
from solids import ball, box, flip, join, loosen, move, sheet, tube

POINTS = (
    torch.rand(1500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
)
BALL = ball(16)  # of the radius 0.7
HOLE = Mesh(BALL.vertices, BALL.faces[BALL.vertices[BALL.faces].mean(1)[:, 2] < 0.66])
SMALL = ball(16, 0.5)
LEFT, RIGHT = move(SMALL, [-0.2, 0, 0]), move(SMALL, [0.2, 0, 0])


def depth_of_ball(radius=0.7, at=(0.0, 0.0, 0.0)):
    return radius - (POINTS - torch.tensor(at)).norm(dim=1)


def depth_of_shell():
    return torch.minimum(depth_of_ball(), -depth_of_ball(0.35))


def depth_of_two():
    return torch.maximum(*(depth_of_ball(0.5, (x, 0.0, 0.0)) for x in (-0.2, 0.2)))


def depth_of_tube():
    radius, z = POINTS[:, :2].norm(dim=1), POINTS[:, 2]
    return torch.stack([0.6 - radius, radius - 0.4, 0.6 - z.abs()]).amin(0)


def nowhere():
    return torch.full((len(POINTS),), -1.0)


@pytest.mark.parametrize(
    ("mesh", "depth", "closed", "near"),
    [
        (BALL, depth_of_ball, True, 0.03),
        (flip(BALL), depth_of_ball, True, 0.03),
        (join(BALL, flip(BALL)), depth_of_ball, True, 0.03),  # double-sided
        (join(BALL, BALL), depth_of_ball, True, 0.03),
        (loosen(BALL), depth_of_ball, True, 0.03),
        (loosen(BALL, 0.999), depth_of_ball, False, 0.03),  # cracks at every edge
        (join(BALL, ball(16, 0.35)), depth_of_ball, True, 0.03),
        (join(BALL, flip(ball(16, 0.35))), depth_of_shell, True, 0.03),
        (flip(join(BALL, flip(ball(16, 0.35)))), depth_of_shell, True, 0.03),
        (join(BALL, flip(BALL), ball(16, 0.35), flip(ball(16, 0.35))), depth_of_shell, True, 0.03),
        (join(LEFT, RIGHT), depth_of_two, True, 0.03),
        (join(LEFT, flip(RIGHT)), depth_of_two, True, 0.03),
        (join(flip(LEFT), RIGHT, RIGHT), depth_of_two, True, 0.03),
        (HOLE, depth_of_ball, False, 0.06),
        (join(HOLE, flip(HOLE)), depth_of_ball, False, 0.06),
        (loosen(HOLE), depth_of_ball, False, 0.06),
        (tube(), depth_of_tube, False, 0.07),
        (flip(tube()), depth_of_tube, False, 0.07),
        (join(tube(), flip(tube())), depth_of_tube, False, 0.07),
        (loosen(tube()), depth_of_tube, False, 0.07),
        (join(BALL, sheet(0.9, -0.8)), depth_of_ball, None, 0.03),  # on the ground
        (sheet(), nowhere, False, 0),
        (join(sheet(), flip(sheet())), nowhere, False, 0),
        (join(sheet(), sheet()), nowhere, False, 0),
    ],
)  # fmt: skip
def test_the_inside_of(mesh, depth, closed, near):
    """Of points further from the true surface than ``near``, all are on their side."""
    true, found = depth(), inside(mesh, POINTS, 2.0)
    sure = true.abs() > near
    assert torch.equal(found[sure], true[sure] > 0)
    assert closed in (None, find_boundary(mesh).closed)
    share = found.double().mean().item()
    assert share == pytest.approx((true > 0).double().mean().item(), rel=0.08)


def test_what_was_mended_is_told():
    told = lambda mesh: find_boundary(mesh)[2:]
    assert told(BALL) == (0, 0, 0, False)
    assert told(flip(BALL)) == (0, 0, 0, True)
    assert told(join(BALL, flip(BALL))) == (len(BALL.faces), 0, 0, False)
    assert told(join(BALL, BALL)) == (len(BALL.faces), 0, 0, False)
    assert told(join(LEFT, flip(RIGHT))) == (0, 0, len(RIGHT.faces), False)
    assert told(sheet()) == (0, 2, 0, False)
    turned = BALL.faces.copy()
    turned[:7] = turned[:7, ::-1]
    assert told(Mesh(BALL.vertices, turned)) == (0, 0, 7, False)


@pytest.mark.parametrize(
    "mesh",
    [BALL, flip(BALL), join(LEFT, RIGHT), HOLE, tube(), flip(tube()), ball(16, share=0.5),
     join(BALL, flip(ball(12, 0.3))), join(HOLE, move(box(0.1), [0.3, 0, 0]))],
)  # fmt: skip
def test_well_oriented_meshes_stay_as_they_are(mesh):
    assert find_boundary(mesh).mesh is mesh


def test_boxes_that_share_a_wall_are_solid():
    pair = join(box(0.25, (-0.25, 0, 0)), box(0.25, (0.25, 0, 0)))
    found = inside(pair, POINTS)
    assert torch.equal(found, (POINTS.abs() < torch.tensor([0.5, 0.25, 0.25])).all(1))
    assert find_boundary(pair)[1:4] == (True, 2, 2)  # the wall is there twice, and bounds nothing


def test_sheets_in_a_stack_hold_less_than_winding_numbers_say():
    """Below ten leaves that face upwards winding numbers add up to 4."""
    stack = join(*(sheet(0.5, z) for z in np.linspace(-0.5, 0.5, 10)))
    assert (winding_number(stack, POINTS).abs() > 0.5).double().mean() > 0.2
    found = inside(stack, POINTS)
    assert found.double().mean() < 0.02
    assert not found[(POINTS.abs() > 0.5).any(1)].any()


def test_distances_have_the_sign_of_the_inside():
    wrong = join(LEFT, flip(RIGHT), RIGHT, flip(RIGHT))
    far = signed_distance(wrong, POINTS[:500])
    assert torch.equal(far < 0, inside(wrong, POINTS[:500]))
    middle = signed_distance(wrong, torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64))
    assert middle.item() == pytest.approx(-0.3, abs=0.02)


def test_the_boundary_does_not_depend_on_place_and_unit():
    for mesh in (loosen(tube()), join(LEFT, flip(RIGHT)), join(BALL, sheet(3.0, -0.8))):
        far = Mesh(mesh.vertices * 1e-3 + [0.5, 0.25, -1.0], mesh.faces)
        assert find_boundary(far)[1:] == find_boundary(mesh)[1:]
        assert np.array_equal(find_boundary(far).mesh.faces, find_boundary(mesh).mesh.faces)
