"""Data, cameras and lazy values: what is checked, what stays a view, what is read and when."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fieldloom import recipe as recipes
from fieldloom.errors import InputError
from fieldloom.evaluation import batches, evaluate
from fieldloom.modalities import Grid
from fieldloom.modalities.sources import SOURCES, images, source
from fieldloom.modalities.sources.source import FirstItems, make_source
from fieldloom.preparation import prepare
from fieldloom.training import train
from fieldloom.types import Cameras, Data, Lazy

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


def test_all_tensors_move_together():
    moved = everything().to("meta")
    assert moved.tensor.device.type == "meta"
    assert {value.device.type for value in moved.extras().values()} == {"meta"}


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
    assert isinstance(first, FirstItems)
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


def test_memory_mapped_values_stay_in_their_file(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), np.uint8))
    mapped = torch.from_numpy(np.load(tmp_path / "a.npy", mmap_mode="c"))
    held = torch.from_numpy(np.load(tmp_path / "a.npy"))
    sources = [make_source(x, None, (0.8, 0.2), shuffle=True, limit=7) for x in (mapped, held)]
    assert sources[0].facts() == sources[1].facts()
    inside = sources[0].take(torch.tensor([3])).tensor
    assert inside.untyped_storage().data_ptr() == mapped.untyped_storage().data_ptr()
    assert torch.equal(inside, held[[3]])


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(path)
    (tmp_path / "images" / "a" / "none.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Folders are read lazily; how many images each reading decodes."""
    monkeypatch.setattr(images, "DECODED", 24 * 64 - 1)
    monkeypatch.setattr(source, "PIECE", 2 * 64)
    asked, read = [], images.LazyImages.read

    def counted(self, which):
        found = read(self, which)
        asked.append(len(found))
        return found

    monkeypatch.setattr(images.LazyImages, "read", counted)
    return asked


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_a_folder_is_the_same_lazily(folder, reads, monkeypatch):
    grid = Grid(size=8, channels=1)
    lazy = SOURCES["folder"](grid, str(folder))
    assert isinstance(lazy.data.values, Lazy)
    assert reads == []
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    eager = SOURCES["folder"](grid, str(folder))
    assert isinstance(eager.data.values, Tensor)
    assert lazy.data.shape == eager.data.shape == (24, 1, 8, 8)
    assert lazy.facts() == eager.facts()
    assert max(reads) == 2
    assert torch.equal(lazy.labels, eager.labels)
    for which in (slice(3, 9), [20, 1, 1], torch.tensor([-1]), []):
        assert torch.equal(lazy.data.part(which).tensor, eager.data.part(which).tensor)
    (folder / "b" / "01.png").write_bytes(b"gone since")
    with pytest.raises(InputError, match=r"b/01\.png' is no image that can be read"):
        lazy.data.part([12])  # the first after the twelve of class a


def recipe_of(folder, steps: int = 6) -> dict:
    own = recipes.load("mnif:tiny")
    field = own["train"]["field"] | {"steps": steps, "batch": 4, "save_every": 2}
    changed = {
        "source": {"name": "folder", "path": str(folder), "split": [0.75, 0.25]},
        "modality": {"name": "image", "size": 8, "channels": 1},
        "evaluate": {"metrics": ["psnr", "frechet"], "samples": 8},
    }
    return own | changed | {"train": own["train"] | {"field": field}}


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_a_run_on_lazy_data_is_that_on_eager_data(folder, reads, tmp_path, monkeypatch):
    """Trained, encoded, sampled, evaluated and resumed, with never the whole set in memory."""
    monkeypatch.setattr(batches, "WHOLE", 8 * 64)
    monkeypatch.setattr(batches, "MULTIPLE", 8)
    lazy = train(recipe_of(folder), str(tmp_path / "lazy"), device="cpu")
    _, own = prepare(lazy.recipe, torch.device("cpu"))
    result = evaluate(lazy, own)
    codes = lazy.encode(own.data)
    assert max(reads) <= 18  # a shard of codes has 16 to 512 signals: here all that train
    assert reads.count(4) >= 6  # the steps
    monkeypatch.setattr(images, "DECODED", 1 << 30)
    monkeypatch.setattr(batches, "WHOLE", 1 << 28)
    eager = train(recipe_of(folder), str(tmp_path / "eager"), device="cpu")
    _, own = prepare(eager.recipe, torch.device("cpu"))
    for name, value in eager.state_dict().items():
        assert torch.equal(lazy.state_dict()[name], value), name
    assert torch.equal(codes, eager.encode(own.data))
    exact = ("psnr", "frechet", "nearest.sample", "nearest.test")
    for one, other in zip(result.metrics, evaluate(eager, own).metrics, strict=True):
        assert one.name == other.name
        if one.name in exact:
            assert one.value == pytest.approx(other.value, rel=1e-6), one.name


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
def test_lazy_runs_resume_bit_for_bit(folder, reads, tmp_path, monkeypatch):
    whole = train(recipe_of(folder), str(tmp_path / "whole"), stage="field", device="cpu")
    steps, read = [], images.LazyImages.read

    def killed(self, which):
        steps.extend([1] * (isinstance(which, Tensor) and len(which) == 4))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return read(self, which)

    with monkeypatch.context() as patch:
        patch.setattr(images.LazyImages, "read", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(folder), str(tmp_path / "cut"), stage="field", device="cpu")
    resumed = train(None, str(tmp_path / "cut"), stage="field", device="cpu", resume=True)
    assert reads.count(4) == 6 + 3 + 4  # checkpoints lie two steps apart
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
