"""Who may ask: this machine, or who knows the token; no page of another site."""

from __future__ import annotations

import hmac
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldloom.viewer.refusals import Refused, explain

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = ("0.0.0.0", "::")
"""Hosts that stand for all addresses of this machine."""

HEADER, VALUE = "x-fieldloom", "view"
"""What every POST has: no form of another site can send it."""

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer that does not have its own."""

ENTER = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=/"><title>fieldloom view</title>
<p><a href="/">Enter</a></p></html>
"""
"""A page rather than a redirect: browsers send no strict cookie along one that began elsewhere."""


class Place(NamedTuple):
    """Where a server listens. token: None where none is needed."""

    host: str
    port: int
    token: str | None = None

    @property
    def cookie(self) -> str:
        """The name of the cookie: browsers do not tell ports apart."""
        return f"fieldloom-{self.port}"

    def knows(self, host: str) -> bool:
        """Whether a Host header is this server's, and no name of a stranger that leads here."""
        if self.host in ANY:  # by whatever name or address: the token protects it
            return True
        names = {bracket(name) for name in (*LOOPBACK, self.host)}
        return host in {f"{name}:{self.port}" for name in names} or (
            self.port == 80 and host in names
        )


def bracket(host: str) -> str:
    """A host as addresses have it."""
    return f"[{host}]" if ":" in host else host


class Guard:
    """Lets requests through to an application, answers all others, and whatever goes wrong."""

    def __init__(self, app: ASGIApp, place: Place) -> None:
        self.app, self.place = app, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self.check(scope) or self.app
            await answer(scope, receive, send_guarded)
        except Exception as error:
            if begun:  # the rest of the answer is lost, which the browser sees
                return
            await refuse(error)(scope, receive, send_guarded)

    def check(self, scope: Scope) -> Response | None:
        """An answer of the guard itself; None where a request may pass. Raises Refused."""
        headers, place = Headers(scope=scope), self.place
        host = headers.get("host", "").lower()
        if not place.knows(host):
            raise Refused(421, "this server is asked for by another name than its own.")
        check_origin(headers, host, scope["path"])
        if scope["method"] == "POST" and headers.get(HEADER) != VALUE:
            raise Refused(403, "this request does not come from the viewer's page.")
        if place.token is None:
            return None
        given = QueryParams(scope["query_string"]).get("token")
        if scope["path"] == "/" and given is not None and same(given, place.token):
            answer = HTMLResponse(ENTER)
            answer.set_cookie(place.cookie, place.token, httponly=True, samesite="strict")
            return answer
        cookies = cookie_parser(headers.get("cookie", ""))
        if not same(cookies.get(place.cookie, ""), place.token):
            raise Refused(401, "open the address with ?token=... that fieldloom view printed.")
        return None


def check_origin(headers: Headers, host: str, path: str) -> None:
    """Raise Refused for a request that a page of another site makes."""
    origin = headers.get("origin")
    if origin is not None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host:
            raise Refused(403, "a page of another site cannot ask this server.")
    if path != "/" and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refused(403, "a page of another site cannot ask this server.")


def same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def refuse(error: BaseException) -> JSONResponse:
    """The answer to whatever went wrong: one sentence."""
    status, sentence = explain(error)
    return JSONResponse({"error": sentence}, status)
