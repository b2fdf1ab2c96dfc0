"""Contact sheets: small images of data with their captions."""

import numpy as np
import torch

from fieldloom.drawing.contact import CAPTION, SIDE, draw_contact_sheet
from fieldloom.modalities import Grid, Points, Views
from fieldloom.modalities.sources.source import make_source

RED, BLUE = torch.tensor([255, 0, 0]), torch.tensor([0, 0, 255])


def colours(*each: torch.Tensor, size: int = 8) -> torch.Tensor:
    return torch.stack(each).byte()[:, :, None, None].repeat(1, 1, size, size)


def middles(sheet: np.ndarray, columns: int, count: int) -> list[list[int]]:
    """The colour in the middle of each tile."""
    step_y, step_x = SIDE + CAPTION + 2, SIDE + 2
    return [
        sheet[2 + i // columns * step_y + SIDE // 2, 2 + i % columns * step_x + SIDE // 2].tolist()
        for i in range(count)
    ]


def test_data_side_by_side():
    source = make_source(colours(RED, BLUE), ["a", "b"], (2, 0), shuffle=False)
    sheet = draw_contact_sheet(source, Grid(size=8))
    assert sheet.shape == (SIDE + CAPTION + 4, 2 * SIDE + 6, 3)
    assert middles(sheet, 2, 2) == [RED.tolist(), BLUE.tolist()]
    caption = sheet[SIDE + 2 :, : SIDE + 2]
    assert caption.min() < 50  # "0: a"


def test_evenly_spaced_of_many():
    values = colours(*[torch.tensor([i, 0, 0]) for i in range(100)], size=2)
    sheet = draw_contact_sheet(make_source(values, None, (100, 0), False), Grid(size=2), most=4)
    assert [red for red, _, _ in middles(sheet, 3, 4)] == [0, 25, 50, 75]


def test_frames_of_one_video():
    video = colours(RED, BLUE).transpose(0, 1)[None]
    source = make_source(video, None, (1, 0), shuffle=False)
    sheet = draw_contact_sheet(source, Grid(axes=3, size=(2, 8, 8)))
    assert middles(sheet, 2, 2) == [RED.tolist(), BLUE.tolist()]


def test_views_of_one_scene():
    source = make_source(colours(RED, BLUE, RED)[None], None, (1, 0), shuffle=False)
    sheet = draw_contact_sheet(source, Views(size=8))
    assert middles(sheet, 2, 3) == [RED.tolist(), BLUE.tolist(), RED.tolist()]


def test_scattered_points_are_not_shown():
    source = make_source(
        torch.rand(2, 5, 1), None, (2, 0), shuffle=False, extras={"coords": torch.rand(2, 5, 3)}
    )
    assert draw_contact_sheet(source, Points()) is None


def test_captions_are_indices_of_frames():
    """Frames 0, 2 and 4 of six."""
    modality = Grid(axes=3, size=(6, 8, 8))
    video = make_source(colours(*[RED] * 6).transpose(0, 1)[None], None, (1, 0), shuffle=False)
    assert list(modality.tiles(video.data, 3)) == [0, 2, 4]
    views = make_source(colours(*[RED] * 6)[None], None, (1, 0), shuffle=False)
    assert list(Views(size=8).tiles(views.data, 3)) == [0, 2, 4]
    images = make_source(colours(*[RED] * 6), None, (6, 0), shuffle=False)
    assert list(Grid(size=8).tiles(images.data, 3)) == [0, 2, 4]
