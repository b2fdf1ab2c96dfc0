"""``fieldloom view`` through a browser: every control, and what is said where things go wrong."""

import json
import shutil
import time
import urllib.request
from queue import Queue
from threading import Thread

import pytest

from browser import browse, find_browser
from fieldloom.engine.lock import hold_lock
from fieldloom.errors import InputError
from fieldloom.viewer import runs
from fieldloom.viewer.serving import view_runs

WAIT = 120
"""Seconds until something must be there, on a machine that is busy."""

EVIL = '<img src=x onerror="document.title=1">&<b>'


class Server:
    """``view_runs`` in a thread."""

    def __init__(self, *folders, port=0):
        told = Queue()
        options = {"port": port, "say": told.put, "device": "cpu", "upload_megabytes": 1.0}
        self.thread = Thread(target=view_runs, args=(folders,), kwargs=options, daemon=True)
        self.thread.start()
        self.address = next(x for x in told.get(timeout=60).split() if x.startswith("http"))
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def end(self):
        request = urllib.request.Request(
            f"{self.address}api/close", b"{}", {"X-Fieldloom": "view"}, method="POST"
        )
        if self.thread.is_alive():
            urllib.request.urlopen(request).close()
        self.thread.join(60)
        assert not self.thread.is_alive()


class Opened:
    """The application in a tab."""

    def __init__(self, page, address):
        self.page, self.address = page, address

    def open(self, hash="", width=900):
        self.page.open("about:blank", width)
        self.page.open(f"{self.address}{hash}", width)

    def turn(self, hash):
        """Show another state, as the browser's buttons do; quicker than opening the page."""
        self.ask(f"""(async hash => {{
          const before = app.explorer;
          if (location.hash === hash) app.open();
          else location.hash = hash;
          while (app.explorer === before) await new Promise(done => setTimeout(done, 20));
        }})({json.dumps(hash)})""")

    def ask(self, expression):
        """The value of an expression, awaited."""
        told = self.page.call(
            "Runtime.evaluate", expression=f"(async () => await ({expression}))()",
            awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression, seconds=WAIT):
        """Wait until an expression holds; returns its value.

        One that fails does not hold yet: what it looks at is being drawn anew.
        """
        end = time.monotonic() + seconds
        trial = f"(async () => {{ try {{ return await ({expression}) }} catch {{ return 0 }} }})()"
        while not (found := self.ask(trial)):
            assert time.monotonic() < end, (expression, self.ask("document.body.innerText"))
            time.sleep(0.05)
        return found

    def drawn(self, count):
        """Wait until so many tiles are there and drawn."""
        waiting = "document.querySelectorAll('.gallery canvas.waiting').length"
        tiles = "document.querySelectorAll('.gallery .tile').length"
        self.until(f"{tiles} === {count} && !{waiting}")

    def staged(self, name):
        """Wait until the stage shows a function."""
        inside = "document.querySelector('iframe')?.contentWindow.fieldloom?.page"
        title = "document.querySelector('iframe').contentDocument.querySelector('h1').textContent"
        self.until(f"{inside} && {title} === {json.dumps(name)}")

    def press(self, text, within="body"):
        """Press the button with this text, as a click of the mouse or the space bar does."""
        found = f"[...document.querySelector('{within}').querySelectorAll('button')]"
        self.ask(f"void {found}.find(x => x.textContent === {json.dumps(text)}).click()")

    def enter(self, label, value, event="change"):
        """Give the control with this label a value."""
        words = f"x.textContent.startsWith({json.dumps(label)})"
        control = f"[...document.querySelectorAll('label')].find(x => {words})"
        self.ask(f"""(control => {{ control.value = {json.dumps(value)};
            control.dispatchEvent(new Event("{event}", {{ bubbles: true }})) }})
            ({control}.querySelector("input, select"))""")

    def pick(self, place):
        self.ask(f"void document.querySelectorAll('.pick')[{place}].click()")

    def state(self):
        return dict(x.split("=") for x in self.ask("location.hash").lstrip("#").split("&") if x)


@pytest.fixture(scope="module")
def folders(tiny_run, tmp_path_factory):
    """A run whose name holds HTML, another one, one that trains, and a damaged one."""
    root = tmp_path_factory.mktemp("viewed")
    names = (EVIL.replace("/", ""), "second", "training", "damaged")
    copies = [shutil.copytree(tiny_run, root / name) for name in names]
    (copies[3] / "model.safetensors").write_bytes(b"no tensors")
    with hold_lock(copies[2]):
        yield copies


@pytest.fixture(scope="module")
def opened(folders, tmp_path_factory):
    if find_browser() is None:
        pytest.skip("needs Chromium")
    server = Server(*folders)
    with browse(tmp_path_factory.mktemp("browser") / "profile") as page:
        tab = Opened(page, server.address)
        tab.open("#count=1")  # any test may be the first one of a worker
        tab.until("app.explorer")
        yield tab
    server.end()


def test_tiles_are_what_pytorch_draws(opened):
    opened.open("#seed=3&count=4&chosen=2")
    opened.drawn(4)
    assert opened.ask(
        "[...document.querySelectorAll('.gallery .name')].map(x => x.textContent)"
    ) == [f"sample 3.{i}" for i in range(4)]
    off = opened.ask("""(async () => {
      const { canvas, code } = app.explorer.gallery.tiles[1], { width, height } = canvas;
      const address = `/api/runs/0/codes/${code.id}/image?width=${width}&height=${height}`;
      const picture = await createImageBitmap(await (await fetch(address)).blob());
      const pen = new OffscreenCanvas(width, height).getContext("2d");
      pen.drawImage(picture, 0, 0);
      const read = x => x.getImageData(0, 0, width, height).data;
      const right = read(pen), found = read(canvas.getContext("2d"));
      const off = right.filter((x, i) => Math.abs(x - found[i]) > 1).length / right.length;
      return [off, new Set(right).size];
    })()""")
    assert off[0] <= 1e-3, off
    assert off[1] > 5, off
    opened.staged("sample 3.2")
    assert opened.ask("[...document.querySelectorAll('.pick')].map(x => x.ariaPressed)") == [
        "false", "false", "true", "false",
    ]  # fmt: skip
    check_names(opened)


def check_names(opened):
    """That they stay text, and that nothing is asked of another server."""
    assert EVIL in opened.ask("document.querySelector('h2').textContent")
    assert opened.ask("document.title") == "mnif:tiny - fieldloom"
    assert opened.ask("[...document.querySelectorAll('img')].every(x => x.src !== 'x')")
    asked = [url for url in opened.page.requests() if not url.startswith("blob:")]
    assert all(url.startswith(opened.address) for url in asked)


def test_every_control_of_the_gallery(opened):
    opened.turn("#count=4")
    opened.drawn(4)
    opened.enter("Seed", "5")
    opened.until("document.querySelector('.name').textContent === 'sample 5.0'")
    opened.press("Draw others")
    opened.until("document.querySelector('.name')?.textContent === 'sample 6.0'")
    opened.press("More")
    opened.drawn(8)
    assert opened.ask("document.querySelectorAll('.name')[4].textContent") == "sample 7.0"
    opened.enter("Class", "7")
    opened.drawn(4)
    opened.enter("Guidance", "2")
    opened.drawn(4)
    state = {"seed": "6", "count": "4", "label": "7", "guidance": "2"}
    assert opened.state() == state, opened.state()
    opened.enter("Show", "data")
    opened.drawn(4)
    opened.until("[...document.querySelectorAll('.pictures img')].every(x => x.naturalWidth)")
    opened.enter("From number", "2")
    opened.enter("Of", "train")
    opened.until("document.querySelector('.name')?.textContent.startsWith('training 0')")
    opened.pick(1)
    opened.until("document.querySelectorAll('.nearest img').length")
    opened.until("[...document.querySelectorAll('.nearest img')].every(x => x.naturalWidth)")
    first = "document.querySelector('.nearest li').textContent"
    opened.until(f"{first}.startsWith('training ')")


def test_between_two_tiles(opened):
    opened.turn("#count=4")
    opened.drawn(4)
    opened.press("Interpolate with another tile")
    opened.pick(3)
    opened.enter("How far between", "0.25", "input")
    opened.until("location.hash === '#count=4&other=3&at=0.25'")
    opened.until("""document.querySelector("iframe").contentDocument.querySelector("h1")
        .textContent.includes("25")""")
    opened.press("End")
    opened.staged("sample 0.0")
    opened.ask("""(tiles => {
      const dataTransfer = new DataTransfer(), bubbles = true, cancelable = true;
      const send = (tile, what) =>
        tile.dispatchEvent(new DragEvent(what, { dataTransfer, bubbles, cancelable }));
      send(tiles[1].querySelector("button"), "dragstart");
      send(tiles[2], "dragover");
      send(tiles[2], "drop");
    })(document.querySelectorAll(".tile"))""")
    opened.until("location.hash === '#count=4&chosen=1&other=2'")


def test_along_principal_directions(opened):
    opened.turn("#count=4&chosen=1")
    opened.drawn(4)
    opened.ask("void (document.querySelector('details.tool').open = true)")
    opened.until("document.querySelectorAll('.sliders input').length === 8")
    opened.enter("2:", "1.5", "input")
    opened.until("location.hash === '#count=4&chosen=1&along=0,1.5,0,0,0,0,0,0'")
    name = "document.querySelector('iframe').contentDocument.querySelector('h1').textContent"
    opened.until(f"{name} === 'sample 0.1, moved'")
    hash, shown = opened.ask("location.hash"), opened.ask(name)
    opened.open(hash)  # as a second tab does
    opened.drawn(4)
    opened.until(f"document.querySelector('iframe')?.contentWindow.fieldloom && {name} === "
                 f"{json.dumps(shown)}")  # fmt: skip
    opened.until("document.querySelectorAll('.sliders input')[1]?.value === '1.5'")
    opened.ask("void document.querySelector('.check input[type=checkbox]:not([value])').click()")
    opened.press("Random")
    opened.until("location.hash.includes('mean=1') && !location.hash.includes('1.5,0,0')")
    opened.press("Reset")
    opened.until("!location.hash.includes('along')")


def test_another_run_beside(opened):
    opened.turn("#count=4&beside=1")
    frames = "[...document.querySelectorAll('iframe')].map(x => x.contentWindow.fieldloom?.page)"
    opened.until(f"{frames}.filter(x => x).length === 2")
    assert opened.ask("document.querySelectorAll('.stage figcaption')[1].textContent") == (
        "the same code"
    )
    opened.ask("""(frame => {
      frame.contentWindow.fieldloom.page.zoom(4);
      frame.contentDocument.dispatchEvent(new Event("wheel"));
    })(document.querySelector("iframe"))""")
    opened.until(f"{frames}.every(page => page.view.zoom === 4)")
    opened.ask("void document.querySelector('.tool input[value=\"1\"]').click()")
    opened.until("document.querySelectorAll('iframe').length === 1")


def drop(opened, name, content):
    opened.ask(f"""(async () => {{
      const given = new DataTransfer();
      given.items.add(new File([{content}], {json.dumps(name)}));
      app.explorer.upload.zone.dispatchEvent(new DragEvent("drop",
        {{ dataTransfer: given, bubbles: true, cancelable: true }}));
    }})()""")


def test_a_file_of_ones_own(opened):
    opened.turn("#count=4")
    opened.drawn(4)
    drop(opened, f"{EVIL}.exe", "'no image'")
    opened.until("document.querySelector('.tool .wrong').textContent.includes('.png')")
    drop(opened, "large.png", "new Uint8Array(1.1e6)")
    opened.until("document.querySelector('.tool .wrong').textContent.includes('too large')")
    picture = "await (await fetch('/api/runs/0/data/test/3/image?size=64')).blob()"
    drop(opened, f"{EVIL}.png", picture)
    opened.until(
        "!document.querySelector('progress[aria-label=Reconstruction]').closest('[hidden]')"
    )
    opened.until("app.explorer.upload.job")
    opened.press("Cancel")
    opened.until("document.querySelector('.tool .wrong').textContent.includes('ancel')")
    drop(opened, "another.png", picture)
    opened.until("app.explorer.upload.job")
    first = opened.ask("app.explorer.upload.job")
    drop(opened, "mine.png", picture)
    opened.until("document.querySelectorAll('.pair figure').length === 2")
    assert "PSNR" in opened.ask("document.querySelector('.pair').textContent")
    opened.until("document.querySelector('.pair img').naturalWidth")
    opened.until("!document.querySelector('.pair canvas.waiting')")
    assert "mine.png" in opened.ask("document.querySelector('.pair').textContent")
    told = opened.ask(f"fetch('/api/jobs/{first}').then(x => x.json())")
    assert told["state"] == "cancelled"  # one file took the place of the other
    assert opened.ask("""(dataTransfer => {
      dataTransfer.items.add(new File(["x"], "beside.png"));
      return !document.body.dispatchEvent(new DragEvent("drop",
        { dataTransfer, bubbles: true, cancelable: true }));
    })(new DataTransfer())""")  # or the browser would leave the page for the file


def test_a_run_that_trains_and_a_damaged_one(opened, folders):
    opened.press("mnif:tiny (training)training", "#runs")
    opened.until("document.querySelector('.card details').open")
    opened.until("document.querySelectorAll('.curves').length === 3")
    with (folders[2] / "log.jsonl").open("a") as log:
        log.write('{"stage": "prior", "step": 21, "loss": 0.5, "seconds_a_step": 0.1}\n')
    opened.until("document.querySelector('.card').textContent.includes('prior: loss 0.5')")
    assert "training" in opened.ask("document.querySelector('.lead').textContent")
    opened.press("mnif:tiny (damaged)damaged", "#runs")
    sentence = opened.until("document.querySelector('.card .wrong')?.textContent")
    assert "model.safetensors" in sentence
    assert "\n" not in sentence


def test_a_phone(opened):
    opened.open("#count=4&from=data", width=390)
    opened.until("document.querySelectorAll('.gallery canvas.waiting').length === 4")
    opened.ask("document.querySelector('.gallery').scrollIntoView()")  # what is not seen waits
    opened.drawn(4)
    assert opened.ask("document.documentElement.scrollWidth") <= 390
    assert (
        opened.ask("""[...document.querySelectorAll("button, input, select, iframe, nav, summary")]
      .filter(x => !(x.ariaLabel || x.title || x.labels?.length || x.textContent.trim()))
      .map(x => x.outerHTML)""")
        == []
    )


def test_what_the_server_draws(tiny_run, opened, monkeypatch):
    def refuse(system):
        raise InputError("too large for a page.")

    monkeypatch.setattr(runs, "show_field", refuse)
    server = Server(tiny_run)
    tab = Opened(opened.page, server.address)
    tab.open("#count=4&seed=2")
    tab.drawn(4)
    tab.until("document.querySelector('.served').textContent.includes('too large for a page.')")
    tab.until("app.explorer.all[0].shown")
    tab.press("+", ".served")
    x0, x1 = tab.until("app.explorer.all[0].shown.seen[1] < 1 && app.explorer.all[0].shown.seen")[
        :2
    ]
    asked = [url for url in tab.page.requests() if f"x0={x0}&x1={x1}" in url]
    assert len(asked) == 1
    assert x1 - x0 == pytest.approx(tab.ask("1 / app.explorer.all[0].view.zoom * 1.0") * (
        tab.ask("app.explorer.all[0].size[0] / Math.min(...app.explorer.all[0].size)")
    ))  # fmt: skip
    server.end()


def test_a_server_that_goes_comes_back_and_is_closed(tiny_run, opened):
    server = Server(tiny_run)
    tab = Opened(opened.page, server.address)
    tab.open("#count=4&seed=2")
    tab.drawn(4)
    server.end()
    look = lambda hidden: (
        f"app.look().then(() => document.querySelector('#lost').hidden === {hidden})"
    )
    tab.until(look("false"))  # the page itself looks every three seconds
    server = Server(tiny_run, port=server.port)
    tab.until(look("true"))
    tab.drawn(4)
    assert tab.ask("document.querySelector('.name').textContent") == "sample 2.0"
    tab.press("Close", "header")
    tab.until("document.querySelector('main').textContent.includes('was closed')")
    server.thread.join(60)
    assert not server.thread.is_alive()
