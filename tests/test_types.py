"""Data, cameras and lazy values: what is checked, what stays a view, what is read and when."""

import pytest
import torch
from torch import Generator, Tensor

from fieldloom.errors import InputError
from fieldloom.modalities.sources.source import ChosenItems, make_source
from fieldloom.types import Cameras, Data, Lazy, draw_uniform

C2W, INTRINSICS = torch.eye(4).expand(3, 2, 4, 4), torch.ones(3, 2, 4)
VIEWS = Cameras(C2W, INTRINSICS)


def everything() -> Data:
    """Three items with all that data may have beside their values."""
    return Data(
        torch.arange(3 * 2 * 5).reshape(3, 2, 5).to(torch.uint8),
        Cameras(torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4)),
        coords=torch.rand(3, 2, 3),
        frame=torch.rand(3, 4),
        surface=torch.rand(3, 7, 3),
        index=torch.tensor([4, 5, 6]),
        label=torch.tensor([0, 1, 0]),
    )


class Counted:
    """Lazy values that tell how many items each reading took."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.asked = values, []
        self.shape, self.dtype = tuple(values.shape), values.dtype

    def read(self, which) -> Tensor:
        found = self.values[which].clone()
        self.asked.append(len(found))
        return found


# -- Data


def test_a_part_has_what_belongs_to_it():
    whole = everything()
    for which in ([2, 0], torch.tensor([2, 0]), (2, 0)):
        part = whole.part(which)
        assert len(part) == 2
        assert torch.equal(part.tensor, whole.tensor[[2, 0]])
        for name, value in whole.extras().items():
            assert torch.equal(part.extras()[name], value[[2, 0]]), name
    assert set(whole.extras()) == {
        "frame", "coords", "surface", "index", "label", "c2w", "intrinsics",
    }  # fmt: skip
    assert whole.part(slice(1, None)).index.tolist() == [5, 6]
    assert whole.part(whole.label == 0).index.tolist() == [4, 6]  # a mask
    assert whole.part([]).shape == (0, 2, 5)


@pytest.mark.parametrize("which", [slice(1, 3), slice(None), [1], torch.tensor([-1])])
def test_slices_and_single_items_are_views(which):
    whole = Data(torch.arange(24.0).reshape(3, 1, 8))
    part = whole.part(which).tensor
    assert part.untyped_storage().data_ptr() == whole.tensor.untyped_storage().data_ptr()
    some = torch.arange(3)[which]
    assert torch.equal(part, whole.tensor[some])


def test_several_items_are_copies():
    whole = Data(torch.zeros(3, 1, 8))
    whole.part([0, 2]).tensor.fill_(1)
    assert whole.tensor.sum() == 0


@pytest.mark.parametrize("which", [[3], [-4], [0, 3]])
def test_items_that_there_are_not(which):
    with pytest.raises(IndexError):
        Data(torch.zeros(3, 1, 8)).part(which)


def test_floats_and_clamping():
    stored = Data(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8), label=torch.tensor([1]))
    unit = stored.as_float()
    torch.testing.assert_close(unit.tensor, torch.tensor([[[0.0, 0.2, 1.0]]]))
    assert unit.label is stored.label
    raw = Data(torch.tensor([[[-1.0, 0.5, 2.0]]]))
    assert raw.as_float().tensor is raw.tensor
    assert raw.clamp().tensor.tolist() == [[[0, 0.5, 1]]]


def test_tensors_move_and_what_is_of_the_world_stays():
    """Not every device has float64: cameras, frames and surfaces do not move with the data."""
    data = everything()
    moved = data.to("meta")
    together = (moved.tensor, moved.coords, moved.index, moved.label)
    assert {x.device.type for x in together} == {"meta"}
    assert moved.cameras is data.cameras
    assert moved.frame is data.frame
    assert moved.surface is data.surface


def test_rows_are_picked_by_indices_beside_each_tensor():
    data, here = everything(), torch.tensor([1, 0])
    for some in (here, here[:1]):
        plain, rows = data.part(some), data.to("meta").rows(some, some.to("meta"))
        assert rows.shape == plain.shape
        assert rows.tensor.device.type == "meta"
        assert torch.equal(rows.extras()["c2w"], plain.extras()["c2w"])


def test_a_tensor_is_data_with_nothing_beside_it():
    values = torch.zeros(2, 1, 8)
    assert Data.of(values).tensor is values
    data = everything()
    assert Data.of(data) is data


WRONG = {
    "cameras of too many views": ({"cameras": VIEWS}, r"cameras of the shape \(3, 2, 4, 4\)"),
    "cameras of no batch": ({"cameras": Cameras(C2W[0], INTRINSICS[0])}, "cameras of the shape"),
    "coords of other points": ({"coords": torch.zeros(2, 3, 3)}, r"where \(2, 5, any\) belongs"),
    "coords of no axes": ({"coords": torch.zeros(2, 5)}, "coords of the shape"),
    "a frame of three": ({"frame": torch.zeros(2, 3)}, r"frame .* where \(2, 4\) belongs"),
    "one frame": ({"frame": torch.zeros(1, 4)}, "frame of the shape"),
    "a flat surface": ({"surface": torch.zeros(2, 7, 2)}, r"where \(2, any, 3\) belongs"),
    "an index too many": ({"index": torch.arange(3)}, r"index .* where \(2\) belongs"),
    "a label alone": ({"label": torch.tensor(1)}, r"label of the shape \(\)"),
    "labels in columns": ({"label": torch.zeros(2, 1)}, r"label of the shape \(2, 1\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_sentence(case):
    beside, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        Data(torch.zeros(2, 5, 8, 8), **beside)
    assert str(error.value).count(".") == 1


def test_values_without_items():
    with pytest.raises(InputError, match=r"data: the shape \(3,\) is that of no data"):
        Data(torch.zeros(3))


# -- Cameras


def test_cameras_of_each_item_and_of_all():
    cameras = Cameras(torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4))
    assert (cameras.count, cameras.batched) == (2, True)
    assert torch.equal(cameras.part([2]).c2w, cameras.c2w[[2]])
    assert torch.equal(cameras.views(slice(1)).intrinsics, cameras.intrinsics[:, :1])
    same = Cameras(cameras.c2w[0], cameras.intrinsics[0])
    assert (same.count, same.batched) == (2, False)
    assert same.part([2]) is same
    assert torch.equal(same.views([1]).c2w, same.c2w[[1]])
    assert cameras.to("meta").intrinsics.device.type == "meta"


@pytest.mark.parametrize(
    ("c2w", "intrinsics", "message"),
    [
        (torch.eye(4), torch.ones(4), "of the shapes"),
        (torch.zeros(2, 3, 4), torch.ones(2, 4), "of the shapes"),
        (torch.zeros(2, 4, 4), torch.ones(3, 4), "of the shapes"),
        (torch.zeros(2, 4, 4), torch.ones(1, 2, 4), "of the shapes"),
        (torch.zeros(0, 4, 4), torch.ones(0, 4), "of the shapes"),
        (torch.zeros(2, 4, 4).long(), torch.ones(2, 4), "two tensors of floats"),
    ],
)
def test_cameras_that_are_none(c2w, intrinsics, message):
    with pytest.raises(InputError, match=message):
        Cameras(c2w, intrinsics)


# -- Lazy


def test_lazy_values_are_read_by_parts():
    values = torch.rand(6, 1, 8)
    lazy = Counted(values)
    assert isinstance(lazy, Lazy)
    assert not isinstance(values, Lazy)
    data = Data(lazy, label=torch.arange(6))
    assert (len(data), data.shape, lazy.asked) == (6, (6, 1, 8), [])
    part = data.part([4, 1])
    assert torch.equal(part.tensor, values[[4, 1]])
    assert part.label.tolist() == [4, 1]
    assert torch.equal(data.part([5]).tensor, values[5:])
    assert torch.equal(data.part(slice(1, 4)).tensor, values[1:4])
    assert lazy.asked == [2, 1, 3]


def test_the_first_of_lazy_values():
    values = torch.rand(6, 1, 8)
    lazy = Counted(values)
    own = make_source(lazy, list("aabbab"), (0.5, 0.25), shuffle=True, limit=4)
    first = own.data.values
    assert isinstance(first, ChosenItems)
    assert isinstance(first, Lazy)
    assert (first.shape, first.dtype) == ((4, 1, 8), torch.float32)
    assert torch.equal(first.read(slice(None)), values[:4])
    assert torch.equal(first.read(torch.tensor([3, 0])), values[[3, 0]])
    with pytest.raises(IndexError):
        first.read(torch.tensor([5]))
    eager = make_source(values, list("aabbab"), (0.5, 0.25), shuffle=True, limit=4)
    assert own.facts() == eager.facts()
    assert torch.equal(own.labels, eager.labels)
    assert max(lazy.asked) == 4  # ``read`` above; facts read one after another


def test_a_generator_draws_on_its_own_device():
    drawn = draw_uniform((2, 3), Generator().manual_seed(0), torch.device("meta"))
    assert (drawn.device.type, drawn.shape) == ("meta", (2, 3))
    drawn = draw_uniform((3,), Generator().manual_seed(0), torch.device("cpu"))
    assert torch.equal(drawn, torch.rand(3, generator=Generator().manual_seed(0)))
