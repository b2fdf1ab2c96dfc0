"""Pages in a browser: their pixels are PyTorch's, and their controls do what they say."""

import io
import json
import math

import pytest
import torch
from scipy.io import wavfile
from torch.nn import functional as F

import fieldloom
from fieldloom.errors import InputError
from fieldloom.geometry.preview import AMBIENT, COLOUR, LIGHTS, preview
from fieldloom.pages import compile_code, make_page
from fieldloom.programs import run
from fieldloom.renderers import composite

EVIL = '</script><script>document.title="run"</script>&<b>'
FIELD = {"name": "siren", "width": 12, "depth": 3, "frequency": 10.0}

SYSTEMS = {
    "grey": {"modality": {"size": [20, 30]}},
    "colour": {"modality": {"size": 16, "channels": 3, "range": "unit"}},
    "x before y": {"modality": {"size": [20, 30], "coords": {"order": "reversed"}}},
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

    def open(self, text, width=150, height=320):
        path = self.folder / "page.html"
        path.write_text(text)
        self.page.open(path, width)
        self.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.settle()

    def settle(self):
        """Wait until all that was asked for is drawn."""
        self.ask("""(async () => {
          for (let last = null; last !== page.drawn;) await (last = page.drawn);
        })()""")

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


def place_pixels(system, view, time, width, height):
    """The coordinates of a view's pixels, float64 (height * width, coord), which of them lie within
    the data, (height, width), and the steepness."""
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
    coords = torch.cartesian_prod(*axes)
    if place.order == "reversed":
        coords = coords.flip(-1)
    inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))
    return coords, inside, 1 / pixel if system.modality.coverage else 1.0


def draw_right(system, code, view, time, width, height):
    """What PyTorch makes of a view of a plane: (height, width, channel), not clamped."""
    coords, inside, steep = place_pixels(system, view, time, width, height)
    (values,) = system.evaluate(code, coords.float()[None], steep=steep)
    return system.modality.denormalize(values)[0].view(height, width, -1), inside


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


@pytest.mark.parametrize("name", ["colour", "letters"])
def test_the_nearest_view_is_that_of_float64(name, opened):
    """At the largest zoom, on an edge, within 2/255."""
    system = make_system(name)
    code, size, modality = draw_codes(system, 1), 64, system.modality
    program = compile_code(system, code)
    row = torch.linspace(-0.9, 0.9, 4001, dtype=torch.float64)
    values = run(program, torch.stack([torch.full_like(row, 0.1), row], 1))[:, 0]
    crossing = int((values - values.median()).sign().diff().nonzero()[0])
    opened.open(make_page(system, code))
    view = {"x": (float(row[crossing]) + 1) / 2, "y": 0.55}
    opened.ask(f"Object.assign(page.view, {json.dumps(view)}), page.zoom(1e9), page.drawn")
    state = opened.ask("page.view.state()")
    assert state["zoom"] == 1e5 if name == "colour" else 1e2 < state["zoom"] < 1e5
    coords, _, steep = place_pixels(system, state, 0.5, size, size)
    y = run(program, coords)
    right = (steep * y).sigmoid() if modality.coverage else y
    right = (right - modality.low) / (modality.high - modality.low)
    found = opened.pixels(size, size, exact=True)[..., : right.shape[1]]
    assert (found.flatten(0, 1) - right).abs().max() < 2 / 255


@pytest.mark.parametrize("place", ["corner", "left", "right", "centre"])
def test_a_page_of_the_data_s_size_is_what_decode_makes(place, opened):
    coords = {"place": place, "low": -0.5, "high": 1.5}
    own = {"prior": "none", "field": FIELD, "modality": {"size": [9, 12], "coords": coords}}
    system = fieldloom.build("mnif", "tiny", **own)
    code = draw_codes(system, 1)
    opened.open(make_page(system, code))
    for more in (1, 3):
        height, width = 9 * more, 12 * more
        right = system.predict(code, (height, width)).tensor[0, 0]
        found = opened.pixels(width, height, exact=True)[..., 0]
        assert (found - right).abs().max() < 1e-3
        shown = opened.pixels(width, height)[..., 0]
        assert (shown - 255 * right.clamp(0, 1)).abs().max() <= 1
    coarse = opened.ask("page.uniforms(30, 40, 0, 0, [240, 320]).window")
    fine = opened.ask("page.uniforms(240, 320).window")  # 8 of its pixels are one of the coarse
    assert coarse == pytest.approx([*fine[:2], 8 * fine[2], 8 * fine[3]])
    own["modality"] = {"name": "audio", "size": 40, "channels": 1, "coords": coords}
    system = fieldloom.build("mnif", "tiny", **own)
    opened.open(make_page(system, code := draw_codes(system, 1)))
    found = opened.ask("page.whole().then(all => JSON.stringify([...all[0]]))")
    right = system.predict(code).tensor[0, 0] * 2 - 1
    assert (torch.tensor(json.loads(found)) - right).abs().max() < 1e-3


def test_the_poles_and_the_seam_of_a_globe(opened):
    modality = {"name": "sphere", "size": [13, 24], "channels": 3, "coords": {"place": "corner"}}
    system = fieldloom.build("mnif", "tiny", prior="none", field=FIELD, modality=modality)
    code = draw_codes(system, 1)
    right = system.predict(code).tensor[0]  # the first row is a pole, the first column the seam
    opened.open(make_page(system, code), 64, 200)
    half = math.pi / 2
    for latitude, longitude, row in ((half, 0, 0), (half, 2, 0), (-half, 1, 12), (0, math.pi, 6),
                                     (0, -math.pi, 6)):  # fmt: skip
        seen = {"latitude": latitude, "longitude": longitude}
        opened.ask(f"void Object.assign(page.view, {json.dumps(seen)})")
        found = opened.pixels(9, 9, exact=True)[4, 4, :3]
        assert (found - right[:, row, 0]).abs().max() < 1e-3


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
        whole = {"x": 0.5, "y": 0.5, "zoom": 1}
        right, inside = draw_right(system, codes[which : which + 1], whole, 0.5, 32, 32)
        numbers = opened.pixels(32, 32, exact=True)[..., :1]
        assert (numbers - right)[inside].abs().quantile(0.999) < 1e-3
    before = opened.ask("page.view.state()")
    press = lambda key: opened.page.ask(
        "canvas.dispatchEvent(new KeyboardEvent('keydown', "
        f"{{ key: {json.dumps(key)}, bubbles: true }}))"
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


def test_a_video_plays_once_however_often_it_is_asked(opened):
    system = make_system("video")
    opened.open(make_page(system, draw_codes(system, 1)), 64, 160)
    opened.ask("void (page.about.time = 60), page.play(), page.play(), page.play(), page.drawn")
    opened.ask("void (page.goTo = time => { page.times = [...(page.times || []), time]; })")
    frame = "await new Promise(requestAnimationFrame);"
    times = opened.ask(
        f"(async () => {{ {frame} page.time = 0.25; page.times = []; {4 * frame} "
        "return page.times; })()"
    )
    assert 3 <= len(times) <= 5  # once a frame
    assert times[-1] >= 0.25  # it goes on from where the slider was moved to
    opened.ask("page.play()")
    assert opened.page.ask("play.textContent") == "Play"


def test_what_is_computed_while_another_is_chosen_is_nothing(opened):
    system = make_system("grey")
    opened.open(make_page(system, draw_codes(system, 2)))
    view = "page.painter.read(8, 8, page.uniforms(8, 8))"
    assert opened.ask(f"Promise.all([{view}, page.choose(1)]).then(x => x[0])") is None
    assert opened.ask(f"{view}.then(x => x.length)") == 256
    told = "Promise.all([page.makePng(8, 8).then(() => '', x => x.message), page.choose(0)])"
    assert "another function was chosen" in opened.ask(f"{told}.then(x => x[0])")


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
    assert len(half) < len(whole) < 80_000
    opened.open(half)
    right, inside = draw_right(system, code, {"x": 0.5, "y": 0.5, "zoom": 1}, 0.5, 32, 32)
    numbers = opened.pixels(32, 32, exact=True)[..., :3]
    assert (numbers - right)[inside].abs().max() < 0.05


def test_a_sound(opened):
    own = {"name": "audio", "size": 300, "channels": 2, "rate": 8000}
    system = fieldloom.build("mnif", "tiny", prior="none", field=FIELD, modality=own)
    codes = draw_codes(system, 2)
    opened.open(make_page(system, codes))
    right = system.predict(codes).tensor * 2 - 1
    for which in (1, 0):
        opened.ask(f"page.choose({which}), page.drawn")
        found = opened.ask("page.whole().then(all => JSON.stringify(all.map(x => [...x])))")
        assert (torch.tensor(json.loads(found)) - right[which]).abs().max() < 1e-3
    fine = opened.ask("page.samples(100, 50, 1200).then(x => JSON.stringify([...x[1]]))")
    finer = system.predict(codes[:1], 1200).tensor[0, 1, 100:150] * 2 - 1
    assert (torch.tensor(json.loads(fine)) - finer).abs().max() < 1e-3
    told = opened.ask(
        "page.makeWav().then(x => x.arrayBuffer())"
        ".then(x => JSON.stringify([...new Uint8Array(x)]))"
    )
    rate, sound = wavfile.read(io.BytesIO(bytes(json.loads(told))))
    assert rate == 8000
    assert (torch.tensor(sound.T / 32767) - right[0].clamp(-1, 1)).abs().max() < 1e-3
    opened.ask("page.zoom(4, 0.25)")
    assert opened.ask("page.ends") == pytest.approx([0.1875, 0.4375])
    opened.ask("void (page.about.rate = 100), page.play()")  # that of no loudspeaker
    assert opened.page.ask("play.textContent") == "Stop"
    played = "page.playing.buffer.duration / page.playing.playbackRate.value"
    assert opened.ask(played) == pytest.approx(3)
    opened.ask("page.stop()")
    dark = opened.ask("[...page.picture.data].filter((x, i) => i % 4 === 0 && x < 100).length")
    assert dark > 20


def find_rays(opened, size):
    """Origins and directions (size * size, 3) of the page's camera, rows from the top."""
    own = json.loads(opened.ask(f"JSON.stringify(page.uniforms({size}, {size}))"))
    x0, y0, dx, dy = own["window"]
    at = torch.arange(size, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(y0 + at.flip(0) * dy, x0 + at * dx, indexing="ij")
    eye, turn = torch.tensor(own["eye"]).double(), torch.tensor(own["turn"]).double().view(3, 3)
    d = torch.stack([x, y, -torch.ones_like(x)], -1).flatten(0, 1) @ turn
    return eye.expand_as(d), d


def test_a_shape_is_met_where_the_field_passes_a_half(opened):
    own = {"name": "voxel", "size": 24, "range": "unit", "up": 1}
    field = {"name": "siren", "width": 12, "depth": 3, "frequency": 3.0}
    system = fieldloom.build("mnif", "tiny", prior="none", field=field, modality=own)
    code, size = 2 * draw_codes(system, 1), 24
    opened.open(make_page(system, code), 64, 200)
    function = system.values_of(code)
    middle = float(function(torch.rand(1, 4000, 3) * 2 - 1).median())
    steps = torch.linspace(0, 1, 400, dtype=torch.float64)
    for tilt, cut in ((0.5, 1.0), (-0.3, 0.6)):
        opened.ask(f"void Object.assign(page.view, {{ angle: 1, tilt: {tilt}, cut: {cut} }})")
        eye, d = find_rays(opened, size)
        d = d / d.norm(dim=-1, keepdim=True)
        low, high = torch.full((3,), -1.0), torch.tensor([-1 + 2 * cut, 1, 1])
        ends = torch.stack([(low - eye) / d, (high - eye) / d]).sort(0).values
        t0, t1 = ends[0].amax(-1), ends[1].amin(-1)
        hit = t0 < t1
        t = t0[:, None] + (t1 - t0)[:, None] * steps
        points = (eye[:, None] + t[..., None] * d[:, None]).float()
        inside = function(points[hit].flatten(0, 1)[None]).view(int(hit.sum()), -1) > 0.5
        right = torch.full_like(t0, math.nan)
        first = t[hit].gather(1, inside.int().argmax(1, True))[:, 0]
        right[hit] = torch.where(inside.any(1), first, math.nan)
        found = opened.pixels(size, size, exact=True).flatten(0, 1)[:, 3].double()
        seen, there = found > 0, right.isfinite()
        assert 30 < there.sum() < size * size - 30, middle
        assert (seen == there).float().mean() > 0.99
        far = (found - right)[seen & there].abs()
        assert (far > 1.2e-2).float().mean() < 0.01, far.max()


def test_a_shape_is_that_of_the_package_s_renderer(opened):
    """The same silhouette but for 5 % of the pixels, none of them off by more than one, and the
    shades of the mesh's faces within 0.05 on nine tenths of those that no edge crosses."""
    own = {"name": "voxel", "size": 24, "range": "unit", "up": 1}
    field = {"name": "siren", "width": 12, "depth": 3, "frequency": 1.0}
    system = fieldloom.build("mnif", "tiny", prior="none", field=field, modality=own)
    code, size, azimuth, elevation, far = 2 * draw_codes(system, 1), 48, 35.0, 25.0, 200.0
    opened.open(make_page(system, code), 64, 200)
    check_framing(opened)
    camera = {"angle": math.radians(azimuth), "tilt": math.radians(elevation), "radius": far,
              "focal": far / 2 / 1.8}  # fmt: skip  # so far away that rays are nearly parallel
    opened.ask(f"void Object.assign(page.view, {json.dumps(camera)})")
    turn = torch.tensor(opened.ask("page.uniforms(1, 1).turn")).view(3, 3)
    found = opened.pixels(size, size, exact=True)
    seen = found[..., 3] > 0
    normals = found[..., :3] @ turn.T
    shade = torch.full_like(normals[..., 0], AMBIENT)
    for direction, strength in LIGHTS:
        light = torch.tensor(direction)
        shade += strength * (normals @ (light / light.norm())).clamp_min(0)
    shades = (shade[..., None] * torch.tensor(COLOUR).float()).clamp(0, 1)
    image = preview(system.mesh(code, 64), size, azimuth, elevation, up=1, span=1.8)
    right = torch.from_numpy(image).float() / 255
    there = (right < 0.99).any(-1)
    assert 200 < there.sum() < size * size - 200
    assert not (seen & ~F.max_pool2d(there[None].float(), 3, 1, 1)[0].bool()).any()
    assert (seen == there).float().mean() > 0.95  # a pixel is ``there`` where a part of it is
    whole = F.max_pool2d((~there)[None].float(), 3, 1, 1)[0] == 0
    off = (shades - right).abs().amax(-1)[seen & whole]
    assert len(off) > 200
    assert (off > 0.05).float().mean() < 0.1


def check_framing(opened):
    """The box of a shape is within the canvas from all sides, and fills half of it at least."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    for angle in (0, 0.6, 2, 4):
        for width, height in ((100, 50), (50, 100), (80, 80)):
            opened.ask(f"void (page.view.angle = {angle})")
            own = opened.ask(f"page.uniforms({width}, {height})")
            turn = torch.tensor(own["turn"]).view(3, 3)
            x, y, z = ((corners - torch.tensor(own["eye"])) @ turn.T).T
            left, bottom, dx, dy = own["window"]
            across, up = (-x / z - left) / dx, (-y / z - bottom) / dy
            assert min(across.min(), up.min()) > 0
            assert across.max() < width
            assert up.max() < height
            assert max(across.max() - across.min(), up.max() - up.min()) > min(width, height) / 2


RENDERERS = {
    "volume": {"renderer": {"name": "volume", "near": 1.0, "far": 4.0, "samples": 24}},
    "functa": {
        "renderer": {"name": "volume", "near": 1.0, "far": 4.0, "samples": 8, "last": "step",
                     "density": "softplus", "colour": "sigmoid", "directions": True,
                     "background": "black"},
    },
    "plucker": {"renderer": "plucker"},
}  # fmt: skip


@pytest.mark.parametrize("name", RENDERERS)
def test_scenes(name, opened):
    views = {"name": "views", "size": 24, "radius": 2.5, "elevation": 20.0}
    own = {"prior": "none", "field": FIELD, "modality": views, **RENDERERS[name]}
    system = fieldloom.build("mnif", "tiny", **own)
    code = draw_codes(system, 1)
    opened.open(make_page(system, code), 64, 200)
    size, cameras = 24, system.modality.cameras(8)
    right = system.predict(code, (size, size), cameras).tensor[0]  # (views, 3, height, width)
    assert right.std() > 0.01
    for view in (0, 3):
        opened.ask(f"void Object.assign(page.view, {{ angle: {2 * math.pi * view / 8} }})")
        found = opened.pixels(size, size, exact=True)[..., :3]
        far = (found - right[view].movedim(0, -1)).abs().amax(-1)
        assert (far > 1 / 255).float().mean() <= 2e-3, far.max()


def sum_all_bins(render, function, rays):
    """The colours of rays by the middles of all bins, whatever the grid says: (1, rays, 3)."""
    origin, direction = rays.split(3, -1)
    t = render.edges(rays)
    middle = (t[..., 1:] + t[..., :-1]) / 2
    delta = t.diff(dim=-1) * direction.norm(dim=-1, keepdim=True)
    if render.contraction != "none":
        end = torch.ones_like(t[..., :1])
        middle, delta = (
            torch.cat([middle, end * render.far], -1),
            torch.cat([delta, end * 1e10], -1),
        )
    with torch.inference_mode():
        points = render.place(origin, direction, middle)
        colour, density = render.activate(render.evaluate(function, points, direction))
    return composite(colour, density, middle, delta, render.background).colour


@pytest.mark.parametrize("contract", ["none", "ball", "cube"])
def test_the_bins_of_occupancy(contract, opened):
    views = {"name": "views", "size": 20, "radius": 1.5}
    render = {"name": "occupancy", "near": 0.3, "far": 4.0, "samples": 96, "bins": 128,
              "contract": contract, "resolution": 16, "directions": False,
              "empty": 0.0}  # fmt: skip
    field = {"name": "siren", "width": 12, "depth": 3, "frequency": 3.0}
    system = fieldloom.build("mnif", "tiny", prior="none", field=field, modality=views,
                             renderer=render, conditioner="shared", encoder="nothing")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for weight in system.family.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * weight.shape[-2] ** -0.5
    code = system.as_code(None)
    function = system.family.bind(code)
    torch.manual_seed(0)
    for _ in range(60):
        system.render.look(function)
    opened.open(make_page(system, code), 64, 200)
    rays = system.modality.grid((20, 20), system.modality.cameras(4))[:, :400]
    right = system.modality.denormalize(sum_all_bins(system.render, function, rays))
    found = opened.pixels(20, 20, exact=True)[..., :3].reshape(1, 400, 3)
    assert right.std() > 0.02
    assert (found - right).abs().quantile(0.99) < 1 / 255
    seen = system.predict(code, (20, 20), system.modality.cameras(4)).tensor[0, 0]
    error = float((found.view(20, 20, 3) - seen.movedim(0, -1)).square().mean())
    assert 10 * math.log10(1 / error) > 20  # by samples where the grid expects something


def test_what_no_page_shows():
    many = fieldloom.build("mnif", "tiny", modality={"size": 8, "channels": 2}, prior="none")
    with pytest.raises(InputError, match="these data have 2 channels"):
        make_page(many, draw_codes(many, 1))
    with pytest.raises(InputError, match="2 for 1 functions"):
        make_page(make_system("grey"), draw_codes(make_system("grey"), 1), ["a", "b"])
    with pytest.raises(InputError, match="are NaN or infinite"):
        make_page(make_system("grey"), math.nan * draw_codes(make_system("grey"), 1))
