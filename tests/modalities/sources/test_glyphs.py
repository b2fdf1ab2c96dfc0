"""Glyphs of fonts: how they stand, how they are divided, and their truth at any resolution."""

import numpy as np
import pytest
import torch
from fontTools import subset

from data_on_disk import COUNT
from fieldloom.errors import InputError
from fieldloom.geometry.outlines import area
from fieldloom.modalities import Grid
from fieldloom.modalities.grid import Placement
from fieldloom.modalities.sources import SOURCES, Source, glyphs, spec_of
from fieldloom.modalities.sources.fonts import bundled_fonts
from fonts_by_hand import BARS, write_font

GREY = Grid(size=16, channels=1)


def read(path, modality=GREY, **more) -> Source:
    return SOURCES["glyphs"](modality, str(path), **more)


@pytest.fixture(scope="module")
def dejavu(tmp_path_factory):
    """A folder of two of matplotlib's fonts, with the few letters that are used here."""
    folder = tmp_path_factory.mktemp("dejavu")
    options = subset.Options(name_IDs=["*"], layout_features=[], hinting=False)
    for file in bundled_fonts():
        if file.stem in ("DejaVuSans", "DejaVuSerif-Bold"):
            font = subset.load_font(str(file), options)
            chosen = subset.Subsetter(options)
            chosen.populate(text="AEFHILSTWagjlopsx")
            chosen.subset(font)
            font.save(folder / file.name)
    return folder


@pytest.fixture(scope="module")
def letters(dejavu) -> Source:
    """Plain letters of two fonts, and three changed copies of each."""
    return read(dejavu, characters="axp", copies=4)


@pytest.fixture
def bars(tmp_path):
    """Three fonts of six boxes; of the second and the third ``a`` and ``b`` are the same."""
    moved = {c: [(x + 50, y, z + 50, w) for x, y, z, w in boxes] for c, boxes in BARS.items()}
    other = {c: [(x, y, z + 9, w) for x, y, z, w in boxes] for c, boxes in BARS.items()}
    wide = {c: [(x, y, z + 33, w) for x, y, z, w in boxes] for c, boxes in BARS.items()}
    write_font(tmp_path / "1.ttf", other, "One")
    write_font(tmp_path / "2.ttf", wide | {"a": BARS["a"], "b": BARS["b"]}, "Two")
    write_font(tmp_path / "3.ttf", moved, "Three")
    return tmp_path


def test_what_a_path_of_fonts_holds(bars):
    assert spec_of(str(bars))["name"] == spec_of(str(bars / "1.ttf"))["name"] == "glyphs"


def test_classes_are_characters_and_an_attribute_tells_the_font(letters):
    assert letters.names == ("a", "x", "p")
    font = letters.attributes["font"]
    assert font.names == ("DejaVu Sans", "DejaVu Serif Bold")
    assert len(letters.data) == len(font.index) == 2 * 3 * 4
    assert letters.labels.tolist() == [0, 1, 2] * 8
    assert font.index.tolist() == [0, 0, 0, 1, 1, 1] * 4


def test_ink_is_one_and_p_hangs_below_the_line(letters):
    data = letters.read(torch.arange(6)).tensor[:, 0]
    rows = [image.amax(1).nonzero()[:, 0] for image in data]
    for a, x, p in (rows[:3], rows[3:]):
        assert abs(a[-1] - x[-1]) <= 1 < p[-1] - x[-1]
        assert abs(a[0] - x[0]) <= 1
    assert data[:, 0, 0].max() == 0
    assert data.amax((1, 2)).min() > 0.9


def test_truth_at_the_size_of_the_data_is_the_data(letters):
    every = torch.arange(len(letters.data))
    error = (letters.truth(every, 16) - letters.read(every).tensor).abs().max()
    assert error <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("resolution", [32, 80, (48, 16)])
def test_truth_at_any_resolution_averages_to_the_truth(letters, resolution):
    some = torch.tensor([0, 5, 7, 23])
    height, width = (resolution,) * 2 if isinstance(resolution, int) else resolution
    found = letters.truth(some, resolution)
    assert found.shape == (4, 1, height, width)
    assert found.dtype == torch.float32
    averaged = torch.nn.functional.avg_pool2d(found, (height // 16, width // 16))
    torch.testing.assert_close(averaged, letters.truth(some, 16), atol=1e-6, rtol=0)


def test_a_bar_covers_what_its_numbers_say(tmp_path):
    write_font(tmp_path / "a.ttf", {"a": [(0, 0, 250, 1000)], "b": [(0, 0, 1000, 500)]})
    source = read(tmp_path, characters="ab", copies=1, margin=0.0, split=(1.0, 0.0))
    a, b = source.truth(torch.arange(2), 4)[:, 0]
    torch.testing.assert_close(a, torch.tensor([0, 0.5, 0.5, 0]).expand(4, 4))
    torch.testing.assert_close(b, torch.tensor([0.0, 0, 1, 1])[:, None].expand(4, 4))


def test_samples_at_corners_stay_the_centres_of_their_pixels(tmp_path):
    """With ``corner`` 2 n - 1 samples have those of n among them."""
    modality = Grid(size=9, channels=1, coords=Placement("corner"))
    path = write_font(tmp_path / "a.ttf", {"a": [(0, 0, 1000, 500)], "b": [(0, 0, 500, 1000)]})
    source = read(path, modality, characters="ab", copies=1, split=(1.0, 0.0))
    fine, coarse = (source.truth(torch.arange(2), n)[:, 0] for n in (17, 9))
    # A pixel of 9 is one of 17, and a half of each neighbour.
    weights = torch.tensor([0.25, 0.5, 0.25])
    kernel = (weights[:, None] * weights)[None, None]
    blurred = torch.nn.functional.conv2d(fine[:, None], kernel, padding=1)[:, 0]
    torch.testing.assert_close(blurred[:, 2:-1:2, 2:-1:2], coarse[:, 1:-1, 1:-1])


def test_images_that_are_not_square_hold_all_glyphs(dejavu):
    source = read(dejavu, Grid(size=(12, 30), channels=1), characters="Wg", copies=1, margin=0.1)
    data = source.data.tensor[:, 0]
    assert data.shape[1:] == (12, 30)
    assert max(data[:, 0].max(), data[:, -1].max(), data[..., 0].max(), data[..., -1].max()) == 0


def test_colour_data_are_grey(dejavu):
    source = read(dejavu, Grid(size=16), characters="A", copies=1)
    assert source.data.shape == (2, 3, 16, 16)
    assert torch.equal(source.data.tensor[:, 0], source.data.tensor[:, 2])
    assert source.truth(torch.tensor([0]), 20).shape == (1, 3, 20, 20)


def test_copies_differ_and_only_a_little(dejavu):
    source = read(dejavu, characters="AIWgjlosx", fonts=("DejaVu Sans",), copies=6)
    data = source.truth(torch.arange(54), 16).reshape(6, 9, 256)
    plain, copies = data[0], data[1:]
    assert (copies - plain).abs().mean(2).min() > 1e-3
    assert len(torch.unique(data.reshape(54, -1), dim=0)) == 54
    ink = copies.sum(2) / plain.sum(1)
    assert ink.min() > 0.5
    assert ink.max() < 1.6
    none = read(dejavu, characters="AIg", copies=2, affine=0.0, weight=0.0)
    assert torch.equal(none.data.tensor[:6], none.data.tensor[6:])


def test_no_copy_is_cut_off_at_the_edge(dejavu):
    source = read(dejavu, characters="Wgj", copies=30, margin=0.02)
    drawing, every = source.truth.__self__, torch.arange(180)
    pieces, image = drawing.outline(every)
    pixel = ((drawing.frame[1] - drawing.frame[0]) / 16).prod()
    areas = [-area(pieces[image == i]) / pixel for i in range(180)]
    torch.testing.assert_close(
        source.truth(every, 16).sum((1, 2, 3)), torch.tensor(areas).float(), atol=1e-4, rtol=0
    )


def test_weight_alone_changes_strokes(dejavu):
    more = {"characters": "lo", "fonts": ("DejaVu Sans",), "copies": 40, "affine": 0.0}
    ink = read(dejavu, **more).read(torch.arange(80)).tensor.sum((1, 2, 3)).reshape(40, 2)
    assert (ink.amin(0) < 0.93 * ink[0]).all()
    assert (ink.amax(0) > 1.07 * ink[0]).all()


def test_the_same_data_every_time_and_in_any_company(dejavu, letters):
    again = read(dejavu, characters="axp", copies=4)
    assert again.facts() == letters.facts()
    changes = letters.truth.__self__.change(4, 2)
    fewer = read(
        dejavu, characters="x", fonts=("DejaVu Serif Bold",), copies=4
    ).truth.__self__.change(0, 2)
    assert np.array_equal(changes.matrix, fewer.matrix)
    assert changes.weight == fewer.weight


def test_the_pixels_of_every_machine(dejavu):
    """No machine and no order of sums may change the pixels of letters (DejaVu 2.37)."""
    source = read(dejavu, characters="HILTEFgS", copies=8)
    assert source.facts()["fingerprint"] == "17010e17aaee7623"


def test_large_sets_are_drawn_as_they_are_read(dejavu, letters, monkeypatch):
    monkeypatch.setattr(glyphs, "DECODED", 1)
    lazy = read(dejavu, characters="axp", copies=4)
    assert not isinstance(lazy.data.values, torch.Tensor)
    some = torch.tensor([3, 23, 8])
    assert torch.equal(lazy.take(some).tensor, letters.take(some).tensor)
    assert lazy.facts() == letters.facts()
    assert lazy.data.values.read(slice(2, 4)).shape == (2, 1, 16, 16)


def test_a_limit_takes_as_many_of_each_character_and_plain_ones_first(dejavu, letters):
    few = read(dejavu, characters="axp", copies=4, limit=7)
    assert torch.equal(few.data.tensor[:6], letters.data.tensor[:6])
    assert few.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.equal(few.truth(torch.tensor([6]), 9), letters.truth(torch.tensor([6]), 9))


# -- division


def parts_of(source) -> tuple[set, set]:
    """(character, font) of the glyphs of both parts."""
    font = source.attributes["font"].index
    of = lambda part: {(int(source.labels[i]), int(font[i])) for i in part}
    return of(source.train), of(source.test)


@pytest.mark.parametrize("hold_out", ["random", "characters", "fonts"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_copy_of_what_is_held_out_is_trained_on(bars, hold_out, shuffle):
    more = {"hold_out": hold_out, "split": (0.4, 0.4), "shuffle": shuffle, "limit": 83}
    source = read(bars, characters="abcdef", copies=5, **more)
    train, test = parts_of(source)
    assert train
    assert test
    assert not train & test
    if hold_out != "random":
        axis = ["characters", "fonts"].index(hold_out)
        assert not {glyph[axis] for glyph in train} & {glyph[axis] for glyph in test}
    assert not set(source.train.tolist()) & set(source.test.tolist())
    assert "to test of other" in source.summary.describe()


def test_glyphs_drawn_just_as_one_that_is_held_out_are_in_no_part(bars):
    source = read(bars, characters="abcdef", copies=2, hold_out="fonts", test=("Three",))
    train, test = parts_of(source)
    assert source.attributes["font"].names == ("One", "Two", "Three")
    assert test == {(i, 2) for i in range(COUNT)}
    assert train == {(i, 0) for i in range(COUNT)} | {(i, 1) for i in range(2, COUNT)}
    assert "4 unused, drawn just as one of the test" in source.summary.describe()
    pixels = {x.tobytes() for x in source.data.tensor[source.test].numpy()}
    assert not pixels & {x.tobytes() for x in source.data.tensor[source.train].numpy()}


def test_named_characters_are_held_out(bars):
    source = read(bars, characters="abcdef", copies=2, hold_out="characters", test=("b", "e"))
    train, test = parts_of(source)
    assert {character for character, _ in test} == {1, 4}
    assert {character for character, _ in train} == {0, 2, 3, 5}
    assert "to test of other characters (b, e)" in source.summary.describe()


def test_numbers_of_what_is_held_out(bars):
    source = read(bars, characters="abcdef", copies=2, hold_out="characters", split=(4, 2))
    assert len({character for character, _ in parts_of(source)[1]}) == 2


# -- what is said and refused


def test_sets_of_characters():
    assert glyphs.choose_characters("digits") == "0123456789"
    assert glyphs.choose_characters(("digits", "a0b", "b")) == "0123456789ab"
    assert len(glyphs.choose_characters(("letters", "digits", "signs"))) == 94
    assert glyphs.choose_characters("é5é") == "é5"


@pytest.mark.parametrize("asked", ["", "a b", "\n", (), ("digits", "\t"), "\udce9"])
def test_characters_that_nothing_draws(asked):
    with pytest.raises(InputError, match=r"source\.characters"):
        glyphs.choose_characters(asked)


def test_characters_of_a_set_that_no_font_draws_are_said(bars):
    source = read(bars, characters=("lowercase", "a"), copies=1)
    assert source.names == tuple("abcdef")
    assert "20 characters in no font (g, h, i, j, k and 15 more)" in source.summary.describe()
    with pytest.raises(InputError, match="draws 0, 1, 2, 3, 4 and 5 more"):
        read(bars, characters="digits")


def test_fonts_are_passed_over_and_chosen_by_name(bars):
    write_font(bars / "4.ttf", {"z": BARS["a"]}, "Signs")
    write_font(bars / "5.ttf", {"a": [(0, 0, 900, 10)]}, "One")
    (bars / "notes.txt").write_text("x")
    write_font(bars / "6.ttf", {"b": [(0, -3000, 900, 10)]}, "Mathematics")
    source = read(bars, characters="abcdef")
    line = source.summary.describe()
    assert line.startswith("152 glyphs, 6 classes (a, b, c, d, e and 1 more), 16 x 16, 4 fonts")
    assert "(One, Two, Three, One (2))" in line
    assert "5 of 24 glyphs are not in these fonts" in line
    assert "1 not fonts (.txt), 1 without these characters (Signs)" in line
    assert "1 far larger than the others (Mathematics)" in line
    for name in ("Two", "Mathematics"):
        chosen = read(bars, characters="b", fonts=(name,))
        assert chosen.attributes["font"].names == (name,)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fonts": ("Tow",)}, "unknown font 'Tow'; did you mean 'Two'"),
        ({"characters": "aé"}, "no font that is read of .* draws é"),
        ({"test": ("a",)}, "set source.hold_out to one of these"),
        ({"test": ("z",), "hold_out": "characters"}, "unknown character 'z'"),
        ({"test": ("Thre",), "hold_out": "fonts"}, "did you mean 'Three'"),
        ({"test": ("One", "Two", "Three"), "hold_out": "fonts"}, "nothing to train on"),
        ({"split": (7, 99), "hold_out": "fonts"}, "does not fit"),
        ({"modality": Grid(axes=3)}, "two axes"),
    ],
)
def test_what_is_wrong_is_one_sentence(bars, more, said):
    with pytest.raises(InputError, match=said):
        read(bars, **{"characters": "abcdef", **more})


def test_nothing_to_train_on_without_a_named_test(tmp_path):
    write_font(tmp_path / "a.ttf", dict.fromkeys("abcd", BARS["a"]))
    with pytest.raises(InputError, match=r"source.split = .*drawn just as one of the test are not"):
        read(tmp_path, characters="abcd", split=(0.5, 0.5))


def test_a_glyph_that_crosses_itself_too_often_is_of_a_font(bars, monkeypatch):
    monkeypatch.setattr("fieldloom.geometry.coverage.MOST", 0)
    with pytest.raises(InputError, match="^font 'One' has outlines of 2 curves, which cross"):
        read(bars, characters="a")


def test_a_folder_without_fonts(tmp_path):
    (tmp_path / "a.woff2").write_bytes(b"wOF2")
    with pytest.raises(InputError, match=r"holds no fonts, but 1 .woff2. Files of fonts end in"):
        read(tmp_path)


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_broken_font_among_many_is_passed_over(bars):
    for i in range(12):
        write_font(bars / f"more{i}.ttf", BARS, f"More {i}")
    (bars / "broken.ttf").write_bytes(b"\0\1\0\0 no more")
    assert "1 unreadable (broken.ttf)" in read(bars, characters="a").summary.describe()


def test_matplotlibs_fonts_are_there_without_a_path():
    source = SOURCES["glyphs"](GREY, characters="Q", copies=2, fonts=("DejaVu Sans Mono",))
    assert source.data.shape == (2, 1, 16, 16)
    line = source.summary.describe()
    assert "1 font (DejaVu, which come with matplotlib; Bitstream Vera licence)" in line
