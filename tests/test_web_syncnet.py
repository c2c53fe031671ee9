"""What the page fetches at its first start, with a local file server in the place of both addresses."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch

from syncdiff.sync import syncnet_v2
from syncdiff.web import syncnet_fetch
from syncdiff.web.syncnet_fetch import SyncNetFetch
from syncdiff.weights import Offer

WHOLE = b"weights of SyncNet" * 1000


class Handler(BaseHTTPRequestHandler):
    """/FILE gives it; /broken/ stops half way, /wrong/ gives another, /slow/ waits for the test, /gone/ has none."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        way = self.path.split("/")[1]
        self.send_response(404 if way == "gone" else 200)
        self.send_header("Content-Length", str(len(WHOLE)))
        self.end_headers()
        if way == "slow":
            self.server.free.wait()
        self.wfile.write({"broken": WHOLE[:9000], "wrong": WHOLE[::-1], "gone": b""}.get(way, WHOLE))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[HTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("SYNCDIFF_SYNCNET", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(syncnet_v2, "load", lambda: syncnet_v2.find() and "a network")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.free = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.free.set()
        server.shutdown()
        thread.join()


def begun(server: HTTPServer, *ways: str, **options: bool) -> tuple[SyncNetFetch, SimpleNamespace]:
    """A fetch of two files, the first from these addresses in turn."""
    first, *others = (f"http://127.0.0.1:{server.server_port}{way}/{syncnet_v2.weights.FILE}" for way in ways)
    digest = hashlib.sha256(WHOLE).hexdigest()
    detector = Offer(f"http://127.0.0.1:{server.server_port}/s3fd.pth", "", digest[:10])
    job = SimpleNamespace(syncnet=None)
    fetch = SyncNetFetch(job, (Offer(first, "", digest, tuple(others)), detector))
    fetch.start(**options)
    return fetch, job


def test_what_lse_needs_is_fetched_in_the_background_and_told_meanwhile(server, tmp_path) -> None:
    fetch, job = begun(server, "/slow")
    assert "being fetched" in fetch.lse_needs()
    assert "Oxford" in fetch.lse_needs()
    assert job.syncnet is None
    server.free.set()
    assert fetch.wait(30)
    assert job.syncnet == "a network"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["s3fd.pth", syncnet_v2.weights.FILE]
    fetch, job = begun(server, "/gone")  # the next start has them
    assert fetch.wait(30)
    assert job.syncnet == "a network"
    assert len(server.asked) == 2


@pytest.mark.parametrize("way", ["/wrong", "/broken", "/gone"])
def test_what_cannot_be_had_leaves_our_judge_and_no_file(server, tmp_path, way, caplog) -> None:
    fetch, job = begun(server, way, way)
    assert fetch.wait(30)
    assert job.syncnet is None
    assert "could not be fetched" in fetch.lse_needs()
    assert "SyncNet was not fetched" in caplog.text
    assert [*(tmp_path / "checkpoints").iterdir()] == []


def test_the_second_address_serves_where_the_first_does_not(server) -> None:
    fetch, job = begun(server, "/gone", "")
    assert fetch.wait(30)
    assert job.syncnet == "a network"


def test_nothing_is_asked_for_where_that_is_forbidden(server, monkeypatch) -> None:
    for environment, options in (("0", {"offline": True}), ("1", {})):
        monkeypatch.setenv("HF_HUB_OFFLINE", environment)
        fetch, _ = begun(server, "", **options)
        assert "not installed" in fetch.lse_needs()
    assert server.asked == []
    for offer in (syncnet_fetch.OFFER, syncnet_fetch.S3FD):
        assert offer.url.startswith("https://")
        assert offer.sha256
