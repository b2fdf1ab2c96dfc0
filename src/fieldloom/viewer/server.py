"""The application: an address for each thing that the page asks for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from threading import Event
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fieldloom import export
from fieldloom.pages.page import POLICY as PAGE_POLICY
from fieldloom.pages.page import make_page
from fieldloom.viewer.drawing import draw_code, draw_datum
from fieldloom.viewer.functions import pack_function
from fieldloom.viewer.guard import Guard, Place, refuse
from fieldloom.viewer.making import find_data, make_codes, name_datum, parse_asked
from fieldloom.viewer.nearest import Nearest
from fieldloom.viewer.progress import read_preview
from fieldloom.viewer.refusals import Refused, explain
from fieldloom.viewer.requests import (
    read_body,
    read_json,
    read_look,
    read_size,
    whole,
)
from fieldloom.viewer.runs import Viewed
from fieldloom.viewer.uploads import Found, Limits, Uploads, accepted, ask, check_name
from fieldloom.viewer.worker import Worker, await_future

PATIENCE = 5.0
"""Seconds that a list of runs waits for data to be opened."""
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".glsl": "text/plain",
}
"""Suffixes of files of the page, and what they are."""


class Viewer:
    """Runs that are viewed. closing: set as soon as the server should end."""

    def __init__(self, runs: Sequence[Viewed], limits: Limits) -> None:
        self.runs = {viewed.id: viewed for viewed in runs}
        self.limits, self.closing = limits, Event()
        self.worker, self.reader = Worker("fieldloom view"), Worker("fieldloom view: data")
        self.finding: dict[int, asyncio.Task[None]] = {}
        self.nearest: Nearest | None = None
        self.uploads = Uploads(limits)

    # -- what several answers need

    def find(self, request: Request) -> Viewed:
        """The run of an address. Raises Refused for an id that is none."""
        viewed = self.runs.get(request.path_params["run"])
        if viewed is None:
            raise Refused(404, "there is no such run.")
        return viewed

    async def do(self, request: Request, work: Callable[[], Any]) -> Any:
        """The result of work in the one thread, unless the client goes before."""
        return await self.worker.do(work, request.is_disconnected)

    async def ready(self, request: Request) -> Viewed:
        """The run of an address, loaded as it is now, with its data open or opening."""
        viewed = self.find(request)
        await self.load(viewed, request)
        return viewed

    async def load(self, viewed: Viewed, request: Request) -> None:
        before = viewed.version
        await self.do(request, viewed.look)
        again = viewed.version != before and viewed.opening is not None and viewed.opening.done()
        if viewed.system is not None and (
            viewed.opening is None or (again and bool(viewed.data_fault))
        ):
            viewed.opening = self.reader.submit(viewed.open_data)

    async def wait_for_data(self, viewed: Viewed) -> None:
        if viewed.opening is not None and not viewed.opening.done():
            await asyncio.wait([await_future(viewed.opening)], timeout=PATIENCE)

    def close(self) -> bool:
        """Do nothing more; whether all has ended, since a piece of work may take its time."""
        self.closing.set()
        computed, read = self.worker.close(), self.reader.close()
        return computed and read

    # -- the page

    async def page(self, request: Request) -> Response:
        file = web_files().get("view.html")
        if file is None:
            return PlainTextResponse("fieldloom view: the page is not there; /api/runs is.")
        return HTMLResponse(file.read_text("utf-8"))

    async def web(self, request: Request) -> Response:
        name = request.path_params["name"]
        file = web_files().get(name)
        if file is None:
            raise Refused(404, "there is no such file.")
        kind = TYPES[f".{name.rpartition('.')[2]}"]
        return Response(file.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    # -- runs

    async def list_runs(self, request: Request) -> Response:
        told = []
        for viewed in self.runs.values():
            await self.load(viewed, request)
        for viewed in self.runs.values():
            await self.wait_for_data(viewed)
            told.append(await self.do(request, viewed.describe))
        return answer({"runs": told, "limits": self.limits._asdict()})

    async def training(self, request: Request) -> Response:
        viewed, after = self.find(request), whole(request, "after", 0, 0, 1 << 60)
        return answer(await asyncio.to_thread(viewed.describe_progress, after))

    async def preview(self, request: Request) -> Response:
        return png(await asyncio.to_thread(read_preview, self.find(request).run))

    async def field(self, request: Request) -> Response:
        viewed = await self.ready(request)
        viewed.require()
        if viewed.shown is None:
            raise Refused(409, f"no browser draws this run: {viewed.reason}.")
        shown = viewed.shown
        told = {"about": shown.about, "shader": shown.shader, "numbers": shown.numbers}
        return answer(told | {"version": viewed.say_version(viewed.version)})

    # -- codes

    async def make(self, request: Request) -> Response:
        asked = parse_asked(await read_json(request))
        viewed = await self.ready(request)
        if asked.how == "data":
            await self.wait_for_data(viewed)
        kept = await self.do(request, lambda: make_codes(viewed, asked, self.runs))
        return answer({"codes": [one.describe() for one in kept]})

    async def directions(self, request: Request) -> Response:
        viewed = await self.ready(request)
        directions, system = viewed.directions, viewed.require()
        if not directions.count(viewed.run, system):
            raise Refused(409, "this run has no training codes to find directions from.")
        if directions.found is not None:
            return answer({"ready": True} | directions.describe())
        if directions.fault:
            raise Refused(409, directions.fault)
        if id(directions) not in self.finding:
            self.finding[id(directions)] = asyncio.create_task(self.find_directions(viewed))
        return answer({"ready": False, "sentence": "principal directions are being found."}, 202)

    async def find_directions(self, viewed: Viewed) -> None:
        """Find the directions of a run, a piece of work at a time."""
        directions, system = viewed.directions, viewed.require()
        try:
            await self.wait_for_data(viewed)
            source = None if viewed.data_fault else viewed.source
            advance = lambda: directions.advance(viewed.run, system, source)
            while not await self.worker.do(advance):
                pass
        except Exception as error:
            directions.fault = explain(error)[1]
        finally:
            self.finding.pop(id(directions), None)

    async def numbers(self, request: Request) -> Response:
        viewed = await self.ready(request)

        def work() -> bytes:
            system, kept = viewed.require(), viewed.keep.find(request.path_params["code"])
            if viewed.shown is None:
                raise Refused(409, f"no browser draws this run: {viewed.reason}.")
            return pack_function(system, kept.code)

        return Response(await self.do(request, work), media_type="application/octet-stream")

    async def image(self, request: Request) -> Response:
        size, look = read_size(request), read_look(request)
        viewed = await self.ready(request)

        def work() -> bytes:
            system, kept = viewed.require(), viewed.keep.find(request.path_params["code"])
            return export.png_bytes(draw_code(system, kept.code, size, look))

        return png(await self.do(request, work))

    async def find_nearest(self, request: Request) -> Response:
        count = whole(request, "count", 4, 1, 64)
        viewed = await self.ready(request)
        await self.wait_for_data(viewed)

        def work() -> dict[str, Any]:
            system, source = viewed.require(), viewed.source
            kept = viewed.keep.find(request.path_params["code"])
            if self.nearest is None or not self.nearest.is_of(system, source):
                self.nearest = None  # those of one run are kept
                self.nearest = Nearest(system, source)
            told = self.nearest.describe(kept.code, count)
            found = [
                {"part": "train", "index": i, "name": name_datum(source, "train", i),
                 "distance": far}
                for i, far in told.pop("found")
            ]  # fmt: skip
            return {"nearest": found} | told

        return answer(await self.do(request, work))

    async def datum(self, request: Request) -> Response:
        part, text = request.path_params["part"], request.path_params["index"]
        if part not in ("test", "train") or not (text.isascii() and text.isdecimal()):
            raise Refused(404, "there is no such datum.")
        if len(text) > 18:
            raise Refused(404, "there is no such datum.")
        size = whole(request, "size", 256, 1, 1024)
        viewed = await self.ready(request)
        await self.wait_for_data(viewed)

        def work() -> bytes:
            source = viewed.source
            index = int(find_data(source, part, int(text)))
            return export.png_bytes(draw_datum(viewed.require(), source, index, size))

        return png(await self.do(request, work))

    async def stage(self, request: Request) -> Response:
        viewed = await self.ready(request)

        def work() -> str:
            system = viewed.require()
            kept = viewed.keep.find(request.query_params.get("code", ""))
            if viewed.shown is None:
                raise Refused(409, f"no browser draws this run: {viewed.reason}.")
            return make_page(system, kept.code, [kept.name])

        policy = f"{PAGE_POLICY}; frame-ancestors 'self'"
        page = await self.do(request, work)
        return HTMLResponse(page, headers={"content-security-policy": policy})

    # -- files

    async def upload(self, request: Request) -> Response:
        viewed = await self.ready(request)
        name = request.query_params.get("name", "")
        suffix = check_name(name, accepted(viewed.require()))
        content = await read_body(request, self.limits.bytes, self.limits.seconds)
        if not content:
            raise Refused(400, "the file is empty.")

        def finish(found: Found, picture: str) -> dict[str, Any]:
            kept = viewed.keep.add(found.code, f"file {job.name}")
            address = f"/api/runs/{viewed.id}/uploads/{picture}/image" if picture else None
            figures = [{"name": found.metric, "value": found.value}]
            return {"codes": [kept.describe()], "figures": figures, "original": address}

        asked = ask(viewed.run.folder, viewed.device, viewed.permit)
        job = self.uploads.begin(name, suffix, content, asked, finish)
        return answer({"job": job.id}, 202)

    async def original(self, request: Request) -> Response:
        self.find(request)
        content = self.uploads.pictures.get(request.path_params["upload"])
        if content is None:
            raise Refused(410, "this file is no longer kept.")
        return png(content)

    async def job(self, request: Request) -> Response:
        return answer(self.uploads.find(request.path_params["job"]).describe())

    async def cancel(self, request: Request) -> Response:
        return answer(self.uploads.cancel(request.path_params["job"]).describe())

    async def end(self, request: Request) -> Response:
        self.closing.set()
        return answer({"sentence": "closed"})


def make_app(viewer: Viewer, place: Place) -> Guard:
    """The application of a viewer, which answers who may ask."""
    run, code = "/api/runs/{run}", "/api/runs/{run}/codes/{code}"
    asked: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/": viewer.page,
        "/web/{name}": viewer.web,
        "/api/runs": viewer.list_runs,
        f"{run}/training": viewer.training,
        f"{run}/preview": viewer.preview,
        f"{run}/field": viewer.field,
        f"{run}/directions": viewer.directions,
        f"{run}/stage": viewer.stage,
        f"{run}/data/{{part}}/{{index}}/image": viewer.datum,
        f"{run}/uploads/{{upload}}/image": viewer.original,
        f"{code}/numbers": viewer.numbers,
        f"{code}/image": viewer.image,
        f"{code}/nearest": viewer.find_nearest,
        "/api/jobs/{job}": viewer.job,
    }
    told = {
        f"{run}/codes": viewer.make,
        f"{run}/upload": viewer.upload,
        "/api/jobs/{job}/cancel": viewer.cancel,
        "/api/close": viewer.end,
    }
    routes = [Route(path, guarded(viewer, do), methods=["GET"]) for path, do in asked.items()]
    routes += [Route(path, guarded(viewer, do), methods=["POST"]) for path, do in told.items()]

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await viewer.uploads.close()
        viewer.close()

    app = Starlette(routes=routes, lifespan=life, exception_handlers={HTTPException: refuse_path})
    return Guard(app, place)


def guarded(
    viewer: Viewer, do: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """What answers a request, also where something goes wrong, or the viewer is closed."""

    async def respond(request: Request) -> Response:
        try:
            if viewer.closing.is_set():
                raise Refused(503, "the viewer is closed.")
            return await do(request)
        except Exception as error:
            return refuse(error)

    return respond


async def refuse_path(request: Request, error: Exception) -> Response:
    """The answer to an address, or a method, that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "there is nothing at this address.", 405: "this address takes another method."}
    return JSONResponse({"error": words.get(status, "this request is not right.")}, status)


def answer(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(finite(content), status)


def finite(value: Any) -> Any:
    """JSON's values: numbers that are not finite, which it does not have, are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple | torch.Size):
        return [finite(one) for one in value]
    return value


def png(content: bytes) -> Response:
    return Response(content, media_type="image/png")


@cache
def web_files() -> dict[str, Traversable]:
    """Name -> file of the page, and of the pages whose scripts it uses; nothing else is served."""
    found: dict[str, Traversable] = {}
    for package in ("fieldloom.pages", "fieldloom.viewer"):
        folder = resources.files(package) / "web"
        if folder.is_dir():
            files = (file for file in folder.iterdir() if file.is_file())
            found |= {x.name: x for x in files if f".{x.name.rpartition('.')[2]}" in TYPES}
    return found
