"""The viewer's server as tests ask it: within this process, without a port."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from fieldloom.permit import NOTHING
from fieldloom.viewer.guard import HEADER, VALUE, Place
from fieldloom.viewer.runs import Viewed, name_runs
from fieldloom.viewer.server import Viewer, make_app
from fieldloom.viewer.uploads import Limits

HERE = Place("127.0.0.1", 8000)
LIMITS = Limits(1 << 20, 60.0)
PATIENCE = 60.0


class Client:
    """What the page does; a request that should be answered with another status says which."""

    def __init__(self, http: TestClient, viewer: Viewer) -> None:
        self.http, self.viewer = http, viewer

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        return self._answer(self.http.get(path, headers=headers), status)

    def post(self, path: str, status: int = 200, content: Any = b"", **headers: str) -> Any:
        body = {"content": content} if isinstance(content, bytes) else {"json": content}
        headers = {HEADER: VALUE} | headers
        return self._answer(self.http.post(path, headers=headers, **body), status)

    def _answer(self, answer: Any, status: int) -> Any:
        assert answer.status_code == status, answer.text[:500]
        if "json" not in answer.headers["content-type"]:
            return answer.content
        told = answer.json()
        if status >= 400:
            assert list(told) == ["error"], told
            assert "Traceback" not in told["error"]
            assert "fault of fieldloom" not in told["error"], told
        return told

    def make(self, of: str = "0", **asked: Any) -> list[dict[str, Any]]:
        return self.post(f"/api/runs/{of}/codes", content=asked)["codes"]

    def wait(self, ask: Any, done: Any) -> Any:
        """The first answer that is ``done``."""
        until = time.monotonic() + PATIENCE
        while not done(answer := ask()):
            assert time.monotonic() < until, answer
            time.sleep(0.02)
        return answer

    def upload(self, name: str, content: bytes, run: str = "0") -> dict[str, Any]:
        """The job of a file, when it has ended."""
        path = f"/api/runs/{run}/upload"
        answer = self.http.post(
            path, params={"name": name}, content=content, headers={HEADER: VALUE}
        )
        job = self._answer(answer, 202)["job"]
        return self.wait(
            lambda: self.get(f"/api/jobs/{job}"), lambda told: told["state"] != "running"
        )


@contextmanager
def viewing(*runs: Path, place: Place = HERE, limits: Limits = LIMITS) -> Iterator[Client]:
    """A viewer of runs."""
    paths = list(runs)
    named = enumerate(zip(paths, name_runs(paths), strict=True))
    viewer = Viewer(
        [Viewed(str(i), path, name, "cpu", NOTHING) for i, (path, name) in named], limits
    )
    with TestClient(make_app(viewer, place), f"http://{place.host}:{place.port}") as http:
        yield Client(http, viewer)
