"""The gate before gradio, over an app that only reads what it is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

from syncdiff.web import middleware
from syncdiff.web.middleware import RequestLimits


class Reader:
    """Reads the whole body, and notes how it went."""

    def __init__(self) -> None:
        self.read, self.broken = 0, []

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        try:
            self.read += len(await Request(scope, receive).body())
        except (MultiPartException, ClientDisconnect) as error:
            self.broken.append(error)
            await PlainTextResponse(str(getattr(error, "message", error)), 400)(scope, receive, send)
            return
        if scope["path"].endswith("call/broken"):
            raise KeyError("a route that did not expect this")
        await PlainTextResponse("fine")(scope, receive, send)


def asked(app: RequestLimits, method: str, path: str, address: str = "192.0.2.1", **more: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **more)

    return asyncio.run(go())


def test_only_what_is_needed_is_there(subtests) -> None:
    for path, open_ in [
        ("/", True),
        ("/config", True),
        ("/gradio_api/upload", True),
        ("/gradio_api/queue/join", True),
        ("/gradio_api/call/sync/abc", True),
        ("/gradio_api/file=/tmp/a.mp4", True),
        ("/gradio_api/file=https://example.org/a.mp4", False),
        ("/gradio_api/file=file:///etc/passwd", False),
        ("/gradio_api/file/https://example.org/a.mp4", False),
        ("/gradio_api/proxy=https://example.org/a.mp4", False),
        ("/gradio_api/process_recording", False),
        ("/gradio_api/process_recording/", False),
        ("/gradio_api/vibe-edit", False),
        ("/gradio_api/component_server", False),
        ("/gradio_api/uploads", False),
        ("/gradio_api", False),
    ]:
        with subtests.test(path):
            answer = asked(RequestLimits(Reader()), "GET", path)
            assert answer.status_code == (200 if open_ else 404)
            assert open_ or answer.json()["detail"].endswith(".")


def test_a_body_that_is_too_large_is_refused_before_it_is_read_or_while(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "MAX_BODY_BYTES", 2**20)
    reader = Reader()
    answer = asked(RequestLimits(reader), "POST", "/gradio_api/queue/join", content=bytes(2**20 + 1))
    assert answer.status_code == 413
    assert "1 MiB" in answer.json()["detail"]
    assert reader.read == 0

    async def pieces():
        for _ in range(3):
            yield bytes(2**19)

    answer = asked(RequestLimits(reader), "POST", "/gradio_api/queue/join", content=pieces())  # says no length
    assert answer.status_code == 413
    assert asked(RequestLimits(reader), "POST", "/gradio_api/upload", content=bytes(2**20 + 1)).text == "fine"


def upload(app: RequestLimits, receive: Callable[[], Awaitable[dict]], address: str = "192.0.2.1") -> list[dict]:
    """What is sent back to an upload whose body comes from `receive`."""
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [], "client": (address, 1)}
    asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.parametrize("way", ["stalls", "drips", "leaves"])
def test_an_upload_that_stalls_drips_or_breaks_off_is_given_up_so_that_its_file_goes(way, monkeypatch) -> None:
    monkeypatch.setattr(middleware, "IDLE_SECONDS", 30.0 if way == "leaves" else 0.05)
    reader, never = Reader(), asyncio.Event()
    came = 0

    async def receive() -> dict:
        nonlocal came
        came += 1
        if way == "leaves" and came == 3:
            return {"type": "http.disconnect"}
        if way == "stalls" and came == 3:
            await never.wait()
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"x", "more_body": True}

    upload(RequestLimits(reader), receive)
    (error,) = reader.broken
    assert isinstance(error, MultiPartException)
    assert ("broke off" if way == "leaves" else "too slow") in error.message


def test_one_address_sends_so_much_at_once_and_so_much_in_an_hour(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "MAX_HOURLY_BYTES", 1000)
    app = RequestLimits(Reader())
    assert asked(app, "POST", "/gradio_api/upload", content=bytes(900)).text == "fine"
    answer = asked(app, "POST", "/gradio_api/upload", content=bytes(200))
    assert answer.status_code == 429
    assert "within an hour" in answer.json()["detail"]
    assert asked(app, "POST", "/gradio_api/upload", content=bytes(50)).text == "fine"
    assert asked(app, "POST", "/gradio_api/upload", "198.51.100.1", content=bytes(200)).text == "fine"
    monkeypatch.setattr(middleware, "KEPT_SECONDS", -1)  # the hour is over
    assert asked(app, "POST", "/gradio_api/upload", content=bytes(200)).text == "fine"
    monkeypatch.setattr(middleware, "MAX_OPEN_UPLOADS", 0)
    assert asked(app, "POST", "/gradio_api/upload", content=b"x").status_code == 429


def test_no_upload_where_the_disk_is_nearly_full(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "MIN_FREE_BYTES", 2**60)
    answer = asked(RequestLimits(Reader()), "POST", "/gradio_api/upload", content=b"x")
    assert answer.status_code == 507
    assert "no room" in answer.json()["detail"]


def test_what_a_route_cannot_take_is_answered_with_a_sentence() -> None:
    answer = asked(RequestLimits(Reader()), "POST", "/gradio_api/call/broken", content=b"x")
    assert (answer.status_code, answer.json()["detail"]) == (400, middleware.NOT_UNDERSTOOD)


def test_no_session_is_saved_for_a_deep_link() -> None:
    """It would keep a visitor's consent and files beyond what the page says (docs/page.md)."""
    assert asked(RequestLimits(Reader()), "GET", "/gradio_api/deep_link?session_hash=somebody").status_code == 404
