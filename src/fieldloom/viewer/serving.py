"""The server of the viewer: its address, its start and its end."""

from __future__ import annotations

import errno
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from fieldloom.errors import FieldloomError, InputError, name_argument, quote
from fieldloom.permit import NOTHING, Permit
from fieldloom.viewer.guard import ANY, LOOPBACK, Place, bracket
from fieldloom.viewer.runs import Viewed, name_runs
from fieldloom.viewer.server import Viewer, make_app
from fieldloom.viewer.uploads import Limits

FIRST, TRIED = 8000, 100
"""The first port that is tried where none is asked for, and how many."""
MEGABYTES, SECONDS = 64, 60.0
"""Defaults of uploads: megabytes, and seconds."""
GRACE = 3
"""Seconds that answers may take after the end was asked for."""


def view_runs(
    runs: Sequence[str | Path],
    host: str | None = None,
    port: int | None = None,
    open: bool = False,
    token: bool = False,
    device: str = "auto",
    upload_megabytes: int | float = MEGABYTES,
    upload_seconds: int | float = SECONDS,
    permit: Permit = NOTHING,
    say: Callable[[str], object] = print,
) -> bool:
    """Show runs in a browser until the page is closed by its button, or the program by Ctrl-C.

    Returns whether all has ended; if not, a piece of work goes on for which no one waits.

    runs: their folders. host: the address that is listened at; None: of this machine alone. port:
    None: the first free one from 8000 on; 0: any. token: whether one is needed on this machine,
    too; always where a host is given. open: whether a browser is opened. upload_megabytes,
    upload_seconds: of files that are dropped. say: gets what is printed.

    Raises InputError for a folder that is no run, and for an address that cannot be had.
    """
    paths = [Path(run) for run in runs]
    names = name_runs(paths)
    pairs = enumerate(zip(paths, names, strict=True))
    viewed = [Viewed(str(i), path, name, device, permit) for i, (path, name) in pairs]
    if not viewed:
        raise InputError("view: at least one run is needed.")
    for one in viewed:
        one.run.require()
    limits = check_limits(upload_megabytes, upload_seconds)
    listener = listen(host, port)
    with listener:
        known = secrets.token_urlsafe(24) if token or host is not None else None
        place = Place(host or LOOPBACK[1], listener.getsockname()[1], known)
        many = "1 run" if len(viewed) == 1 else f"{len(viewed)} runs"
        address = address_of(place)
        viewer = Viewer(viewed, limits)
        server = start(make_app(viewer, place), listener)
        say(f"viewing {many} at {address} (its Close button, or Ctrl-C, ends it)")
        if open and not webbrowser.open(address):
            say("no browser could be opened: open the address yourself")
        ended = wait(server, viewer)
    say("closed")
    return ended


def check_limits(megabytes: int | float, seconds: int | float) -> Limits:
    """Raises InputError for limits that are no positive numbers."""
    for name, value in (("upload_limit", megabytes), ("upload_seconds", seconds)):
        if not 0 < value <= 1e6:
            raise InputError(f"{name_argument(name)} = {quote(value)}: a number above 0.")
    return Limits(int(megabytes * 1e6), float(seconds))


def listen(host: str | None, port: int | None) -> socket.socket:
    """A socket that listens at an address. Raises InputError where it cannot be had."""
    where = host or LOOPBACK[1]
    if port is not None and not 0 <= port < 1 << 16:
        raise InputError(f"{name_argument('port')} = {port}: from 0 to 65535.")
    for tried in [port] if port is not None else range(FIRST, FIRST + TRIED):
        listener = socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((where, tried))
            listener.listen()
            return listener
        except OSError as error:
            listener.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES) and port is None:
                continue
            raise explain_address(where, tried, error) from None
    raise InputError(
        f"the ports {FIRST} to {FIRST + TRIED - 1} are all in use: {name_argument('port')} names "
        "another one."
    )


def explain_address(host: str, port: int | None, error: OSError) -> InputError:
    """Why an address cannot be had."""
    option = f"{name_argument('port')} {port}"
    if error.errno == errno.EADDRINUSE:
        return InputError(f"{option} is in use: without it, a free one is taken.")
    if error.errno == errno.EACCES:
        return InputError(f"{option} is for the system: take one from 1024 on.")
    return InputError(
        f"{name_argument('host')} {quote(host)} is no address of this machine: leave it out, or "
        "take 0.0.0.0 for all of them."
    )


def address_of(place: Place) -> str:
    """What is typed into a browser."""
    host = socket.gethostname() if place.host in ANY else place.host
    token = f"?token={place.token}" if place.token is not None else ""
    return f"http://{bracket(host)}:{place.port}/{token}"


class Running:
    """A server in a thread of its own: the program's, or a notebook's, has another loop."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self.server = server
        run = lambda: server.run(sockets=[listener])
        self.thread = threading.Thread(target=run, name="fieldloom view: server", daemon=True)
        self.thread.start()


def start(app: object, listener: socket.socket) -> Running:
    """Start to answer."""
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # what goes wrong is answered
    logging.getLogger("uvicorn").propagate = False
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=256,
    )
    return Running(uvicorn.Server(config), listener)


def wait(running: Running, viewer: Viewer) -> bool:
    """Wait until the end is asked for, by the page or by Ctrl-C, and the server has ended.

    Returns whether all work has.
    """
    server, thread = running.server, running.thread
    try:
        while thread.is_alive() and not viewer.closing.wait(0.2):
            pass
    except KeyboardInterrupt:
        viewer.closing.set()
    if not viewer.closing.is_set():
        raise FieldloomError("the server has ended by itself.")
    server.should_exit = True
    try:
        thread.join(3 * GRACE)
    except KeyboardInterrupt:
        server.force_exit = True
        thread.join(GRACE)
    return viewer.close()
