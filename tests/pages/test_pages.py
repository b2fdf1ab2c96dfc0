"""Pages on other devices: slow and small ones, such that fail, touch screens, large screens."""

import json
from itertools import pairwise

import pytest
import torch

import fieldloom
from fieldloom.pages import make_page
from fieldloom.pages.still import BYTES
from pages.test_page import FIELD, SYSTEMS, draw_codes, make_system

SOUND = {"name": "audio", "size": 300, "channels": 2, "rate": 8000}
SHAPE = {"name": "voxel", "size": 24, "range": "unit", "up": 1}
SCENE = {"name": "views", "size": 24, "radius": 2.5}


def build(modality, **own):
    return fieldloom.build("mnif", "tiny", prior="none", field=FIELD, modality=modality, **own)


@pytest.fixture
def injected(opened):
    """Runs a script before those of the pages that the test opens."""
    told = []
    method = "Page.addScriptToEvaluateOnNewDocument"
    yield lambda script: told.append(opened.page.call(method, source=script)["identifier"])
    for identifier in told:
        opened.page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)


def read(opened, expression):
    """Numbers of the page, by an expression of a typed array or of arrays of them."""
    text = f"Promise.resolve({expression}).then(x => JSON.stringify(x.length && x[0].length "
    text += "? x.map(y => [...y]) : [...x]))"
    return torch.tensor(json.loads(opened.ask(text)))


def test_sizes_beside_the_weights():
    systems = [make_system(name) for name in SYSTEMS]
    systems += [build(SOUND), build(SHAPE), build(SCENE, renderer="plucker")]
    for system in systems:
        page = make_page(system, draw_codes(system, 2))
        *others, last = page.split('<script type="text/plain" id="numbers')[1:]
        weights = sum(map(len, others)) + last.index("</script>")
        assert len(page) - weights < 100_000
        still = page.split('<img id="still" src="')[1].split('"')[0]
        assert len(still) <= BYTES
        assert still.startswith("data:image/jpeg;base64,/9j/")


def test_without_webgl_a_picture_stays(opened, injected):
    injected("HTMLCanvasElement.prototype.getContext = () => null;")
    system = make_system("colour")
    path = opened.folder / "page.html"
    path.write_text(make_page(system, draw_codes(system, 2)))
    opened.page.open(path, 300)
    told = opened.ask("""(async () => {
      while (wrong.hidden) await new Promise(done => setTimeout(done, 5));
      return wrong.textContent;
    })()""")
    assert told.startswith("This browser offers no WebGL 2, which draws the field.")
    shown = "['still', 'canvas', 'save', 'item', 'value'].map(id => find(id).checkVisibility("
    assert opened.page.ask(f"{shown}{{ visibilityProperty: true }}))") == [True, *[False] * 4]
    size = opened.ask("still.decode().then(() => [still.naturalWidth, still.naturalHeight])")
    assert size == [16, 16]
    assert len(opened.page.requests()) == 1


def test_without_drawing_into_floats(opened, injected):
    injected("WebGL2RenderingContext.prototype.getExtension = () => null;")
    system = build(SOUND)
    code = draw_codes(system, 1)
    opened.open(make_page(system, code))
    assert opened.ask("page.painter.floats") is False
    found = read(opened, "page.whole()")
    assert (found - (system.predict(code).tensor[0] * 2 - 1)).abs().max() < 1e-3
    system = make_system("grey")
    opened.open(make_page(system, code := draw_codes(system, 1)), 64, 300)
    numbers = opened.pixels(30, 20, exact=True)[..., 0]
    assert (numbers - system.predict(code).tensor[0, 0]).abs().max() < 1e-3


def test_small_textures(opened, injected):
    injected("""const ask = WebGL2RenderingContext.prototype.getParameter;
      WebGL2RenderingContext.prototype.getParameter = function (name) {
        return name === this.MAX_TEXTURE_SIZE ? 32 : ask.call(this, name);
      };""")
    system = make_system("grey")
    opened.open(make_page(system, draw_codes(system, 1)), 100, 300)
    assert opened.ask("page.canvas.width") == 100
    assert opened.ask("[page.painter.full.width, page.painter.full.height].sort()")[1] == 32
    many = "page.painter.setNumbers(new Float32Array(4 * 2048 * 33))"
    told = opened.ask(f"(() => {{ try {{ {many} }} catch (error) {{ return error.message; }} }})()")
    assert "more weights than this graphics device can hold" in told


@pytest.mark.parametrize("modality", [{"size": [20, 30]}, SOUND])
def test_a_device_that_is_lost_and_comes_back(modality, opened):
    system = build(modality)
    codes = draw_codes(system, 2)
    opened.open(make_page(system, codes))
    opened.ask("void page.choose(1)")
    opened.ask("void (lost = page.painter.gl.getExtension('WEBGL_lose_context')).loseContext()")
    opened.ask("page.draw()")
    assert "goes on when it is back" in opened.page.ask("wrong.textContent")
    opened.ask("void lost.restoreContext()")
    opened.ask("""(async () => {
      while (!wrong.hidden) await new Promise(done => setTimeout(done, 5));
      return page.drawn;
    })()""")
    assert opened.page.ask("busy.textContent") == ""
    right = system.predict(codes[1:]).tensor[0]
    if modality is SOUND:
        found = (read(opened, "page.whole()") + 1) / 2
    else:
        found = opened.pixels(30, 20, exact=True)[..., 0]
    assert (found - right).abs().max() < 1e-3


PRETEND = """
  page.painter.batches = [], pixels = 0, now = 0;
  page.painter.drawField = (target, uniforms, part) => {
    pixels += part.width * part.height;
    page.painter.drawn?.push({ target, ...part });
  };
  page.painter.finish = async () => {
    const took = pixels * PACE(pixels);
    page.painter.batches.push({ took, pixels });
    pixels = 0;
    return took;
  };
  page.painter.measured = false;
"""
"""A device of a pace: how many milliseconds a pixel takes, while nothing is drawn in truth."""


@pytest.mark.parametrize("pace", [1e-6, 1e-3, 0.05, 5.0])
def test_no_batch_is_long_whatever_the_pace(pace, opened):
    """Arithmetic: input waits for one batch at most, and what moves is drawn 20 times a second."""
    if pace == 1e-6:
        opened.open(make_page(make_system("video"), draw_codes(make_system("video"), 1)), 160, 400)
    opened.settle()
    opened.ask(f"void (() => {{ {PRETEND.replace('PACE(pixels)', str(pace))} }})()")
    opened.ask("page.draw()")
    batches = opened.ask("page.painter.batches")
    assert max(batch["took"] for batch in batches) <= 35
    area = opened.ask("page.canvas.width * page.canvas.height")
    assert sum(batch["pixels"] for batch in batches) >= area  # all pixels, in the end
    opened.ask("void (page.painter.batches = [])")
    opened.ask("page.playing = {}, page.draw()")
    (frame,) = opened.ask("page.painter.batches")
    assert frame["took"] <= 33.4  # with a frame of the screen, 16.7 ms, 20 a second
    assert pace > 1e-3 or frame["pixels"] == area  # a fast device draws all of them
    opened.ask("void (page.playing = null)")


def test_expensive_middle_parts_are_met_carefully(opened):
    """A batch whose pixels take 8 times as long as those before is still short."""
    opened.open(make_page(make_system("grey"), draw_codes(make_system("grey"), 1)), 160, 400)
    own = "(page.painter.batches.length > 7 ? 0.08 : 0.01)"
    opened.ask(f"void (() => {{ {PRETEND.replace('PACE(pixels)', own)} }})()")
    opened.ask("page.draw()")
    assert max(batch["took"] for batch in opened.ask("page.painter.batches")) <= 100


def test_a_slow_device_shows_the_whole_at_sizes_between(opened):
    """From 9 pixels on, each time 16 times as many; then all of them, which are right."""
    system = make_system("grey")
    code = draw_codes(system, 1)
    opened.open(make_page(system, code), 160, 400)
    opened.ask(
        f"void (() => {{ {PRETEND.replace('PACE(pixels)', '3')} page.painter.cost = 3; }})()"
    )
    opened.ask("""void (() => {
      const painter = page.painter, refine = painter.refine;
      painter.sizes = [];
      painter.refine = (target, ...given) => {
        painter.sizes.push(target.width * target.height);
        return refine.call(painter, target, ...given);
      };
    })()""")
    opened.ask("page.draw()")
    *between, last = opened.ask("page.painter.sizes")
    assert last == opened.ask("canvas.width * canvas.height")
    assert len(between) >= 2
    assert all(8 < b / a < 32 for a, b in pairwise(between))
    assert last / between[-1] > 4


def test_a_large_screen(opened):
    """Tiles cover 3840 x 2160 once, and at most two images of that size are held."""
    opened.open(make_page(make_system("grey"), draw_codes(make_system("grey"), 1)), 160, 400)
    opened.ask(f"""void (() => {{ {PRETEND.replace("PACE(pixels)", "1e-4")}
      const painter = page.painter;
      painter.drawn = [], painter.made = [], held = 0, most = 0;
      const count = (target, sign) => {{
        if (target) most = Math.max(most, held += sign * 4 * target.width * target.height);
      }};
      const make = painter.makeTarget, drop = painter.drop;
      painter.makeTarget = (...given) => {{
        const target = {{ width: given[0], height: given[1] }};
        count(target, 1), painter.made.push(target);
        return target;
      }};
      painter.drop = target => count(target, -1);
      painter.drawImage = () => {{}};
      painter.full = painter.coarse = null;
      Object.assign(page, {{ resize() {{}} }});
      canvas.width = 3840, canvas.height = 2160;
    }})()""")
    for _ in range(3):
        opened.ask("page.draw()")
    width, height = 3840, 2160
    assert opened.ask("most") <= 2 * 4 * width * height
    assert opened.ask("painter = page.painter, painter.made.length") <= 9  # kept between drawings
    covered = torch.zeros(height, width, dtype=torch.uint8)
    tiles = opened.ask("""(() => {
      const all = painter.drawn.filter(x => x.target === painter.full), last = all.length / 3;
      return all.slice(-last).map(({ x, y, width, height }) => [x, y, width, height]);
    })()""")
    for x, y, own_width, own_height in tiles:
        covered[y : y + own_height, x : x + own_width] += 1
    assert bool((covered == 1).all())


def touch(opened, kind, *points):
    points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    opened.page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)


@pytest.fixture
def phone(opened):
    """Opens a page on a touch screen of 360 x 640 pixels, two of the device's each."""

    def open(text):
        opened.open(text, 360, 640)
        opened.page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        opened.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=360, height=640, deviceScaleFactor=0.25, mobile=True,
        )  # fmt: skip
        opened.ask("new Promise(done => setTimeout(done, 50))")
        opened.settle()
        return opened.ask("canvas.getBoundingClientRect().top")

    yield open
    opened.page.call("Emulation.setTouchEmulationEnabled", enabled=False)


@pytest.mark.parametrize("modality", [{"size": [20, 30]}, SOUND, SYSTEMS["video"]["modality"]])
def test_a_phone(modality, opened, phone):
    system = build(modality)
    name = "An image with a name that is far longer than a telephone is wide, for certain"
    top = phone(make_page(system, draw_codes(system, 2), [name, name], name))
    assert opened.ask("document.scrollingElement.scrollWidth") <= 360
    controls = opened.ask("""[...document.querySelectorAll("button, select, input")]
      .filter(x => x.checkVisibility()).map(x => x.getBoundingClientRect())
      .map(x => [x.left, x.right, x.height, x.width])""")
    assert len(controls) > 4
    for first, last, high, wide in controls:
        assert first >= 0
        assert last <= 360
        assert min(high, wide) >= 40
    assert opened.ask("canvas.clientHeight") > 300
    seen = "page.ends || page.view.state()"
    zoom = lambda: opened.ask("page.ends ? 1 / (page.ends[1] - page.ends[0]) : page.view.zoom")
    touch(opened, "touchStart", (130, top + 100), (230, top + 100))
    touch(opened, "touchMove", (130, top + 100), (280, top + 100))
    touch(opened, "touchMove", (80, top + 100), (280, top + 100))
    touch(opened, "touchEnd")
    assert zoom() == pytest.approx(2, rel=0.02)  # the fingers are twice as far apart
    before = opened.ask(seen)
    touch(opened, "touchStart", (180, top + 100))
    touch(opened, "touchMove", (150, top + 100))
    touch(opened, "touchEnd")
    after = opened.ask(seen)
    moved = after[0] - before[0] if modality is SOUND else after["x"] - before["x"]
    whole = opened.ask("page.ends ? 360 : page.view.samples(...page.size)[0] / page.view.zoom")
    assert moved == pytest.approx(30 / whole / zoom(), rel=0.1)
    assert zoom() == pytest.approx(2, rel=0.02)


def wait_for_drawing(opened):
    """Until the page draws by itself what it did not before."""
    opened.ask("""(async () => {
      while (page.drawn === before) await new Promise(done => setTimeout(done, 5));
    })()""")
    opened.settle()


def test_another_screen_and_theme(opened):
    system = build(SOUND)
    opened.open(make_page(system, draw_codes(system, 1)), 120, 400)
    corner = "page.drawn.then(() => [...page.picture.data.slice(0, 3)])"
    light = opened.ask(corner)
    opened.ask("void (before = page.drawn)")
    opened.page.call("Emulation.setEmulatedMedia",
                     features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    wait_for_drawing(opened)
    dark = opened.ask(corner)
    assert sum(light) > 600
    assert sum(dark) < 100
    opened.open(make_page(make_system("grey"), draw_codes(make_system("grey"), 1)), 60, 400)
    right = """(async () => {
      await new Promise(done => setTimeout(done, 50));
      return canvas.width === 120
        && canvas.height === Math.round(2 * canvas.getBoundingClientRect().height);
    })()"""
    for i in range(100):  # a browser may say that there are two pixels, and not follow at once
        opened.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=60, height=400 + i % 2, deviceScaleFactor=2, mobile=False,
        )  # fmt: skip
        if opened.ask(right):
            return
    raise AssertionError(opened.ask("[canvas.width, canvas.height]"))
