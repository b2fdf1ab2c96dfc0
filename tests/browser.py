"""A headless Chromium for tests, driven over two pipes by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

WEBGPU = (
    "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan,WebGPU "
    "--use-vulkan=swiftshader --use-angle=swiftshader"
)
"""Options of a browser that computes WebGPU on the processor, and shows it."""


def find_browser() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. events: what the browser told: requests, messages of the console, errors."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive, self.number, self.rest = send, receive, 0, b""
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol; events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            told = self.read(30)
            if told.get("id") == self.number:
                assert "result" in told, told
                return told["result"]
            self.events.append(told)

    def read(self, seconds: float) -> dict[str, Any]:
        """The next message of the browser."""
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.receive], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser says nothing"
            part = os.read(self.receive, 1 << 20)
            assert part, "the browser has gone"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path | str, width: int, dark: bool = False) -> None:
        """Load a file, or an address, at a width in pixels, and wait until it and its images are
        there."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.events.clear()
        url = path if isinstance(path, str) else path.resolve().as_uri()
        self.call("Page.navigate", url=url)
        while not any(x.get("method") == "Page.loadEventFired" for x in self.events):
            self.events.append(self.read(30))

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)[
            "result"
        ].get("value")

    def requests(self) -> list[str]:
        """The addresses that the page asked for since it was opened, but those of data."""
        asked = [x for x in self.events if x.get("method") == "Network.requestWillBeSent"]
        urls = [x["params"]["request"]["url"] for x in asked]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[Any]:
        """Messages of the console, and errors, since the page was opened."""
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [x["params"] for x in self.events if x.get("method") in told]

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The page as a PNG, its whole height or less; to look at, not for tests."""
        box = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": 0,
            "width": box["width"],
            "height": height or box["height"],
            "scale": 1,
        }
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browse(profile: Path, graphics: str = "--disable-gpu") -> Iterator[Page]:
    """A page of a browser with a profile of its own, which ends with the context."""
    program = find_browser()
    assert program is not None
    (from_us, send), (receive, to_us) = os.pipe(), os.pipe()
    options = f"--headless --no-sandbox {graphics} --remote-debugging-pipe --no-first-run "
    options += "--disable-extensions --disable-component-update --disable-background-networking"
    command = [program, *options.split(), f"--user-data-dir={profile}", "about:blank"]
    script = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_us)
    os.close(to_us)
    try:
        yield Page(send, receive)
    finally:
        os.close(send)
        os.close(receive)
        process.terminate()
        process.wait(timeout=120)
