"""Pages in a browser: their pixels are PyTorch's, and their controls do what they say."""

import json
import math

import fieldloom
import pytest
import torch
from browser import browse, find_browser
from fieldloom.errors import InputError
from fieldloom.pages import make_page

EVIL = '</script><script>document.title="run"</script>&<b>'
FIELD = {"name": "siren", "width": 12, "depth": 3, "frequency": 10.0}

SYSTEMS = {
    "grey": {"modality": {"size": [20, 30]}},
    "colour": {"modality": {"size": 16, "channels": 3, "range": "unit"}},
    "letters": {"modality": {"size": 16, "range": "unit", "coverage": True}, "loss": "bce"},
    "video": {"modality": {"name": "video", "size": [4, 12, 16], "channels": 3}},
    "hash grid": {
        "modality": {"size": 24, "channels": 3, "range": "unit"},
        "field": {"name": "grid-mlp", "width": 8, "depth": 2},
        "conditioner": "flat-weights",
        "encoder": "nothing",
    },
    "sphere": {"modality": {"name": "sphere", "size": [12, 24], "channels": 3}},
}


def make_system(name):
    own = {"prior": "none", "field": FIELD, "seed": 3, **SYSTEMS[name]}
    return fieldloom.build("mnif", "tiny", **own)


def draw_codes(system, count=3):
    generator = torch.Generator().manual_seed(0)
    scale = 0.3 if "grid.weight" in system.family.field.slots else 1.0
    return scale * torch.randn(count, *system.family.code_shape, generator=generator)


class Opened:
    """A page that is open, and what it draws."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder

    def open(self, text, width=240, height=300):
        path = self.folder / "page.html"
        path.write_text(text)
        self.page.open(path, width)
        self.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.ask("page.drawn")

    def ask(self, expression):
        """The value of an expression, awaited."""
        told = self.page.call(
            "Runtime.evaluate", expression=f"(async () => await ({expression}))()",
            awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def pixels(self, width, height, exact=False):
        """The page's view, drawn at this size: (height, width, 4), rows from the top."""
        uniforms = f"page.uniforms({width}, {height})"
        uniforms = f"{{ ...{uniforms}, raw: 1 }}" if exact else uniforms
        found = self.ask(
            f"page.painter.read({width}, {height}, {uniforms}, {json.dumps(exact)})"
            ".then(x => JSON.stringify([...x]))"
        )
        numbers = torch.tensor(json.loads(found), dtype=torch.float32)
        return numbers.view(height, width, 4).flip(0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    if find_browser() is None:
        pytest.skip("needs Chromium")
    folder = tmp_path_factory.mktemp("browser")
    with browse(folder / "profile") as page:
        yield Opened(page, folder)


def draw_right(system, code, view, time, width, height):
    """What PyTorch makes of a view of a plane: (height, width, channel), not clamped."""
    rows, columns = system.modality.shape()[-2:]
    pixel = max(columns / width, rows / height) / view["zoom"]
    along = lambda middle, count, step: middle + (torch.arange(count) + 0.5 - count / 2) * step
    y = along(view["y"], height, pixel / rows).double()
    x = along(view["x"], width, pixel / columns).double()
    place = system.modality.placement
    to_coords = lambda fraction: place.low + (place.high - place.low) * fraction
    axes = [to_coords(y), to_coords(x)]
    if len(system.modality.shape()) == 3:
        axes.insert(0, to_coords(torch.tensor([time], dtype=torch.float64)))
    coords = torch.cartesian_prod(*axes).float()[None]
    steep = 1.0
    if system.modality.coverage:
        steep = min(rows / (pixel * rows) / rows, columns / pixel / columns)
        steep = 1 / pixel
    (values,) = system.evaluate(code, coords, steep=steep)
    data = system.modality.denormalize(values)[0].view(height, width, -1)
    inside = (y >= 0) & (y <= 1), (x >= 0) & (x <= 1)
    return data, inside[0][:, None] & inside[1][None]


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "sphere"])
def test_pixels_are_those_of_pytorch_at_three_zooms(name, opened):
    system = make_system(name)
    code = draw_codes(system, 1)
    opened.open(make_page(system, code))
    width, height = 64, 48
    for view in ({"x": 0.5, "y": 0.5, "zoom": 1}, {"x": 0.3, "y": 0.7, "zoom": 7.5},
                 {"x": 0.81, "y": 0.12, "zoom": 120}):  # fmt: skip
        opened.ask(f"void Object.assign(page.view, {json.dumps(view)})")
        right, inside = draw_right(system, code, view, 0.5, width, height)
        found = opened.pixels(width, height)[..., :3]
        shown = (right.clamp(0, 1) * 255).expand(-1, -1, 3)
        off = ((found - shown).abs() > 1).any(-1) & inside
        assert off.float().mean() <= 1e-3, (view, (found - shown).abs()[inside].max())
        assert (found[~inside] == 128).all()
        numbers = opened.pixels(width, height, exact=True)[..., : right.shape[-1]]
        assert (numbers - right)[inside].abs().quantile(0.999) < 1e-3
    assert len(opened.page.requests()) == 1


def test_the_globe_shows_the_places_that_it_names(opened):
    system = make_system("sphere")
    code = draw_codes(system, 1)
    opened.open(make_page(system, code))
    opened.ask("void Object.assign(page.view, { longitude: 2, latitude: -0.4, zoom: 1 })")
    size = 40
    found = opened.pixels(size, size)[..., :3]
    checked = 0
    for row in range(2, size, 7):
        for column in range(2, size, 7):
            place = opened.ask(f"page.view.at([{column + 0.5}, {row + 0.5}], [{size}, {size}])")
            if place is None:
                assert (found[row, column] == 128).all()
                continue
            north, east = map(math.radians, place)
            where = [math.cos(north) * math.cos(east), math.cos(north) * math.sin(east)]
            (values,) = system.evaluate(code, torch.tensor([[[*where, math.sin(north)]]]))
            right = system.modality.denormalize(values)[0, 0].clamp(0, 1) * 255
            assert (found[row, column] - right).abs().max() <= 1.01
            checked += 1
    assert checked > 10


def test_controls(opened):
    system = make_system("grey")
    codes = draw_codes(system, 3)
    opened.open(make_page(system, codes, [EVIL, "b", "c"], title=EVIL))
    assert opened.page.ask("document.title") == EVIL
    assert opened.page.ask("document.querySelector('h1').textContent") == EVIL
    assert opened.page.ask("document.querySelectorAll('b').length") == 0
    assert opened.page.ask("item.options[0].text") == " ".join(EVIL.split())
    for which in (2, 1, 0):
        opened.ask(f"page.choose({which}), page.drawn")
        right, inside = draw_right(system, codes[which : which + 1], {"x": 0.5, "y": 0.5, "zoom": 1},
                                   0.5, 32, 32)  # fmt: skip
        numbers = opened.pixels(32, 32, exact=True)[..., :1]
        assert (numbers - right)[inside].abs().quantile(0.999) < 1e-3
    before = opened.ask("page.view.state()")
    press = lambda key: opened.page.ask(
        f"canvas.dispatchEvent(new KeyboardEvent('keydown', {{ key: {json.dumps(key)}, bubbles: true }}))"
    )
    press("+")
    assert opened.ask("page.view.state()")["zoom"] == 1.5 * before["zoom"]
    press("ArrowLeft")
    assert opened.ask("page.view.state()")["x"] < before["x"]
    press("0")
    assert opened.ask("page.view.state()") == before
    press("]")
    assert opened.ask("page.which") == 1
    saved = opened.ask(
        "page.makePng(80, 40).then(x => createImageBitmap(x)).then(x => [x.width, x.height])"
    )
    assert saved == [80, 40]
    opened.ask("page.tell(page.size.map(x => x / 2))")
    assert opened.page.ask("value.textContent").startswith("row ")


def test_the_wheel_keeps_the_place_below_the_pointer(opened):
    opened.open(make_page(make_system("grey"), draw_codes(make_system("grey"), 1)))
    size = opened.ask("page.size")
    point = [round(size[0] * 0.4), round(size[1] * 0.6)]
    before = opened.ask(f"page.view.at({point}, page.size)")
    top = opened.page.ask("canvas.getBoundingClientRect().top")
    opened.page.call(
        "Input.dispatchMouseEvent", type="mouseWheel", 
        x=point[0], y=point[1] + top, deltaX=0, deltaY=-300,
    )  # fmt: skip
    assert opened.ask("page.view.zoom") > 1.5
    rounded = top - round(top)  # events have whole pixels
    after = opened.ask(f"page.view.at([{point[0]}, {point[1]} - {rounded}], page.size)")
    assert after == pytest.approx(before, abs=5e-3)


def test_half_precision_and_size(opened):
    system = make_system("colour")
    code = draw_codes(system, 1)
    whole, half = make_page(system, code), make_page(system, code, half=True)
    assert len(half) < len(whole) < 60_000
    opened.open(half)
    right, inside = draw_right(system, code, {"x": 0.5, "y": 0.5, "zoom": 1}, 0.5, 32, 32)
    numbers = opened.pixels(32, 32, exact=True)[..., :3]
    assert (numbers - right)[inside].abs().max() < 0.05


def test_what_no_page_shows():
    audio = fieldloom.build("mnif", "tiny", modality={"name": "audio", "size": 64}, prior="none")
    with pytest.raises(InputError, match="a page shows"):
        make_page(audio, draw_codes(audio, 1))
    with pytest.raises(InputError, match="2 for 1 functions"):
        make_page(make_system("grey"), draw_codes(make_system("grey"), 1), ["a", "b"])


