"""Who may ask: no other site, no other name, no one without the token; no path leads to a file."""

import asyncio

import pytest
from starlette.websockets import WebSocketDisconnect

from fieldloom.viewer.guard import Guard, Place
from viewing import HERE, viewing

OWN = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(tiny_run):
    with viewing(tiny_run) as client:
        client.get("/api/runs")
        yield client


PATHS = ["/", "/api/runs", "/web/page.css", "/nothing", "/api/runs/0/stage?code=c0"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "localhost.evil.example:8000", ""]
)
def test_another_name_is_refused(path, host, client):
    assert "another name" in client.get(path, 421, host=host)["error"]


def test_own_names_are_known(client):
    for host in ("127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"):
        client.get("/api/jobs/none", 404, host=host)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8001", ""])
def test_a_foreign_origin_is_refused(origin, client):
    for path in ("/api/runs", "/api/runs/0/field"):
        assert "another site" in client.get(path, 403, origin=origin)["error"]
    client.post("/api/close", 403, origin=origin)
    assert not client.viewer.closing.is_set()


def test_what_another_site_embeds_is_refused(client):
    for site in ("cross-site", "same-site"):
        client.get("/api/runs/0/preview", 403, **{"sec-fetch-site": site})
        client.get("/web/page.css", 403, **{"sec-fetch-site": site})
    client.get("/api/jobs/none", 404, **{"sec-fetch-site": "same-origin"}, origin=OWN)


def test_a_form_of_another_site_cannot_post(client):
    for header in ({"x-fieldloom": ""}, {"x-fieldloom": "other"}):
        assert "viewer's page" in client.post("/api/close", 403, **header)["error"]
    assert not client.viewer.closing.is_set()
    assert client.http.post("/api/close").status_code == 403


def test_every_answer_has_a_policy(client):
    for path in PATHS:
        headers = client.http.get(path).headers
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "script-src 'self'" in client.http.get("/api/runs").headers["content-security-policy"]
    client.make(how="sample", seed=0)
    stage = client.http.get("/api/runs/0/stage?code=c0").headers["content-security-policy"]
    assert "default-src 'none'" in stage


def test_other_methods_and_addresses(client):
    client.get("/nothing", 404)
    client.get("/api/close", 405)
    client.post("/api/runs", 405)
    assert client.http.delete("/api/runs").status_code == 405


def test_with_a_token(tiny_run):
    place = Place("192.0.2.7", 8000, "t0ken")
    with viewing(tiny_run, place=place) as client:
        for path in ("/", "/api/runs", "/web/page.css", "/?token=other", "/api/runs?token=t0ken"):
            assert "?token=" in client.get(path, 401)["error"]
        client.post("/api/close", 401)
        client.get("/api/runs", 401, cookie="fieldloom-8000=other")
        client.get("/api/runs", 401, cookie="fieldloom-8001=t0ken")
        entered = client.http.get("/?token=t0ken")
        assert entered.status_code == 200
        cookie = entered.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=strict", "fieldloom-8000="))
        assert len(client.get("/api/runs")["runs"]) == 1  # by the cookie
        client.get("/api/runs", 421, host="evil.example:8000")


def test_all_addresses_are_known_by_any_name_and_by_the_token(tiny_run):
    with viewing(tiny_run, place=Place("0.0.0.0", 8000, "t0ken")) as client:
        client.get("/api/jobs/none", 401, host="cluster:8000")
        client.get("/api/jobs/none", 404, host="cluster:8000", cookie="fieldloom-8000=t0ken")


UP = [
    "..%2f..%2fserver.py",
    "%2e%2e%2f%2e%2e%2frecipe.toml",
    "..%5c..%5crecipe.toml",
    "%2fetc%2fpasswd",
    "recipe.toml",
    "c0%00",
    "....%2f%2frecipe.toml",
]


@pytest.mark.parametrize("up", UP)
def test_no_path_leads_to_a_file(up, client):
    for path in (
        f"/web/{up}",
        f"/{up}",
        f"/api/runs/{up}/field",
        f"/api/runs/{up}/preview",
        f"/api/runs/0/codes/{up}/numbers",
        f"/api/runs/0/codes/{up}/image",
        f"/api/runs/0/data/{up}/0/image",
        f"/api/runs/0/data/test/{up}/image",
        f"/api/runs/0/stage?code={up}",
        f"/api/runs/0/uploads/{up}/image",
        f"/api/jobs/{up}",
    ):
        answer = client.http.get(path)
        assert answer.status_code in (404, 405, 410), path
        assert "recipe" not in answer.text
    for body in ({"how": "other", "run": up, "code": "c0"},
                 {"how": "between", "first": up, "second": up, "at": 0.5}):  # fmt: skip
        client.post("/api/runs/0/codes", 404, body)
    client.post(f"/api/runs/0/upload?name={up}", 415, b"x")


def test_websockets_are_refused(client):
    with pytest.raises(WebSocketDisconnect), client.http.websocket_connect("/api/runs"):
        pass


def test_a_fault_is_one_sentence(tiny_run, monkeypatch):
    def fail(*given):
        raise ZeroDivisionError("secret\nsecond line")

    monkeypatch.setattr("fieldloom.viewer.server.draw_code", fail)
    with viewing(tiny_run) as client:
        client.make(how="sample", seed=0)
        answer = client.http.get("/api/runs/0/codes/c0/image")
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("this is a fault of fieldloom")
        assert "second line" not in answer.text


def test_what_an_application_raises_is_answered():
    async def broken(scope, receive, send):
        raise OSError(5, "Input/output error", "/a/file")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"",
             "headers": [(b"host", b"127.0.0.1:8000")]}  # fmt: skip
    asyncio.run(Guard(broken, HERE)(scope, None, send))
    assert sent[0]["status"] == 500
    assert b"Input/output error" in sent[1]["body"]
