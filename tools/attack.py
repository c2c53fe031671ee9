"""What strangers may try on the real server: `python tools/attack.py [--short]`. Prints a table; exit code 1 where an
answer was no sentence and no refusal, told a secret, left something behind, or where the server no longer works."""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it knows only its own folder
from syncdiff.media import LIMITS
from tests.media_fixtures import make_sound, make_video
from tests.serving import WAIT_SECONDS, Guest, Server, belongs_to, clip_of, named, progress_of, wait_until
from tests.test_hostile_media import NAMES, SCRIPTS, png_bytes

SECRET = "a-secret-of-this-machine"
ADDRESSES = count(1)


@dataclass
class Report:
    """How many things were tried, how they were answered, and what was wrong."""

    server: Server
    answers: dict[str, Counter] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def judge(self, group: str, what: str, answer: httpx.Response | dict[str, Any], *, made: bool = False) -> None:
        """An HTTP answer has to be a refusal (4xx, or 507) or gradio's 500 with a sentence, a run has to end in a
        sentence; neither may tell more.

        made: a run may also end in a result."""
        if isinstance(answer, httpx.Response):
            text, kind = answer.text, str(answer.status_code)
            fine = 400 <= answer.status_code < 500 or answer.status_code == 507
            fine = fine or (answer.status_code == 500 and str(answer.json().get("error")).endswith("."))
        else:
            text, said = json.dumps(answer), answer["output"].get("error")
            kind = "a result" if answer["success"] else "a sentence"
            sentence = isinstance(said, str) and said.endswith(".") and "on our side" not in said
            fine = made if answer["success"] else sentence
        self.answers.setdefault(group, Counter())[kind] += 1
        told = [one for one in (SECRET, "root:x:0", "Traceback", "site-packages", "<script", "<img") if one in text]
        if not fine or told:
            self.wrong.append(f"{group}: {what}: {kind} {text[:300]} {told or ''}")

    def __str__(self) -> str:
        width = max(map(len, self.answers))
        lines = [
            f"{group:<{width}}  {seen.total():4d} tried: "
            + ", ".join(f"{n} x {kind}" for kind, n in sorted(seen.items()))
            for group, seen in self.answers.items()
        ]
        return "\n".join([*lines, *(f"WRONG: {words}" for words in self.wrong)])


def stranger(server: Server) -> Guest:
    """Somebody new, from an address of their own."""
    number = next(ADDRESSES)
    return Guest(server, number, f"203.0.113.{number % 250}")


# ---- files


def hostile_files(folder: Path, secret: Path) -> Iterator[Path]:
    """The hostile-media table, as files."""
    for number, (name, text) in enumerate(SCRIPTS.items()):
        path = folder / f"script {number} {name}.mp4"
        path.write_text(text.replace("{}", str(secret)))
        yield path
    contents = {
        "empty.mp4": b"",
        "noise.mp4": os.urandom(50_000),
        "bomb.png": png_bytes(16_000),
        "a.gif": b"GIF89a" + bytes(50),
        "a.exe": b"MZ" + bytes(500),
        "a.zip": b"PK\x03\x04" + bytes(500),
        "a.heic": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "playlist behind a box.mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"
        + SCRIPTS["hls, local segment"].replace("{}", str(secret)).encode(),
        "cut.mp4": make_video(folder / "whole.mp4", 20, clicks=[0.1]).read_bytes()[:-1500],
        "silence.wav": make_sound(folder / "s.wav", 0.5, []).read_bytes()[:60],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        yield folder / name


def media(report: Report, folder: Path, *, short: bool) -> None:
    """Every hostile file as a face, as a voice, and as a video to check."""
    secret = make_video(folder / f"{SECRET}.ts", 25, clicks=[0.5])
    guest = stranger(report.server)
    face, voice = (guest.upload(path) for path in clip_of(3, folder))
    files = [*hostile_files(folder, secret)]
    for path in files[:: 6 if short else 1]:
        bad = guest.upload(path)
        report.judge("hostile files as a face", path.name, guest.ask("sync", bad, voice, 1, 0, True))
        report.judge("hostile files as a voice", path.name, guest.ask("sync", face, bad, 1, 0, True))
        report.judge("hostile files to check", path.name, guest.ask("verify", bad), made=True)


def names(report: Report, folder: Path, *, short: bool) -> None:
    """Names that climb, run or paint: they never leave the cache, and never reach the page as markup."""
    climbing = [
        "../../climbed.mp4",
        "/etc/climbed.mp4",
        "..\\..\\climbed.mp4",
        "%2e%2e%2fclimbed.mp4",
        "a" * 5000 + ".mp4",
    ]
    markup = ["<img src=x onerror=alert(1)>.mp4", '"><script>alert(1)</script>.mp4', "a&lt;script&gt;.mp4"]
    plain = [name for name in NAMES if name.isprintable()]
    guest = stranger(report.server)
    (folder / "nothing.mp4").write_bytes(b"")
    for name in (climbing + markup + plain)[:: 5 if short else 1]:
        answer = guest.http.post("/gradio_api/upload", files={"files": (name, b"")})
        if answer.status_code != 200:
            report.judge("upload names", name, answer)
            continue
        path = Path(answer.json()[0])
        if not path.resolve().is_relative_to(report.server.home() / "gradio") or not path.is_file():
            report.wrong.append(f"upload names: {name} went to {path}")
        report.judge("upload names", name, guest.ask("sync", named(str(path)), named(str(path)), 1, 0, True))
        report.judge("upload names", name, guest.ask("verify", named(str(path))), made=True)


# ---- paths and references


def paths(report: Report, folder: Path, **_: Any) -> None:
    """Files that nobody gave away."""
    server, guest = report.server, stranger(report.server)
    (folder / "secret.txt").write_text(SECRET)
    mine = Path(guest.upload(clip_of(4, folder)[0])["path"])
    (server.home() / "secret.txt").write_text(SECRET)
    (mine.parent / "link.txt").symlink_to(folder / "secret.txt")
    wanted = [
        "/etc/passwd", "../../../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "app.py",
        "file:///etc/passwd", "//etc/passwd", "/proc/self/environ", ".git/config", "requirements.txt",
        str(server.home() / "secret.txt"), str(server.home() / "lock"), str(server.home()), str(mine.parent),
        str(mine.parent.parent), f"{mine.parent}/../../secret.txt", f"{mine}/../../../secret.txt",
        str(server.home() / "gradio/result-*"), str(folder / "secret.txt"), f"{server.home()}/gradio\0/../secret.txt",
        str(mine.parent / "link.txt"), "assets/examples/../../app.py",
    ]  # fmt: skip
    for path in wanted:
        report.judge("paths", path, raw(server, f"/gradio_api/file={path}"))
        report.judge("paths", path, raw(server, f"/gradio_api/file/{path}"))
    (mine.parent / "link.txt").unlink()
    (server.home() / "secret.txt").unlink()
    for path in ("/static/../app.py", "/assets/..%2f..%2fapp.py", "/svelte/..%2f..%2f..%2f..%2fetc/passwd"):
        report.judge("paths", path, raw(server, path))


def raw(server: Server, target: str) -> httpx.Response:
    """A GET with the target as it stands: an HTTP client would tidy it up."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as wire:
        wire.sendall(f"GET {target.replace(chr(0), '%00').replace(' ', '%20')} HTTP/1.1\r\nHost: {host}\r\n"
                     "Connection: close\r\n\r\n".encode())  # fmt: skip
        data = b"".join(iter(lambda: wire.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


def references(report: Report, folder: Path, **_: Any) -> None:
    """Files and addresses named in a call instead of being uploaded. Nobody may be asked for anything."""
    guest, asked = stranger(report.server), []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        port = trap.getsockname()[1]
        (folder / "secret.mp4").write_bytes(make_video(folder / "s.mp4", 5).read_bytes())
        places = [
            "/etc/passwd", str(folder / "secret.mp4"), str(report.server.home() / "lock"), "app.py", "",
            f"http://127.0.0.1:{port}/a.mp4", f"http://localhost:{port}/a.mp4", f"HTTP://127.0.0.1:{port}/a.mp4",
            f"http://[::1]:{port}/a.mp4", "http://169.254.169.254/latest/meta-data", "https://example.org/a.mp4",
            "file:///etc/passwd", "ftp://127.0.0.1/a", f"{report.server.url}/gradio_api/file=/etc/passwd",
            "data:video/mp4;base64,AAAA", "a\0b", "/" + "a" * 5000, str(report.server.home() / "gradio"),
        ]  # fmt: skip
        for place in places:
            file = named(place)
            report.judge("foreign files as path", place, guest.ask("sync", file, file, 1, 0, True))
            report.judge("foreign files as path", place, guest.ask("verify", file))
            linked = {"path": "a.mp4", "url": place, "meta": {"_type": "gradio.FileData"}, "is_stream": True}
            report.judge("foreign files as url", place, guest.ask("verify", linked))
        for place in (p for p in places if "://" in p):
            report.judge("addresses to fetch", place, raw(report.server, f"/gradio_api/file={place}"))
            report.judge("addresses to fetch", place, raw(report.server, f"/gradio_api/proxy={place}"))
        with suppress(TimeoutError):
            asked.append(trap.accept())
    if asked:
        report.wrong.append("foreign files: the server asked an address that a stranger named")


# ---- requests


def bodies(report: Report, folder: Path, *, short: bool) -> None:
    """Bodies that are no question."""
    http = stranger(report.server).http
    odd = [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{}", b'{"data": 5}', b'{"data": {}, "session_hash": 1}',
        b'{"data": [], "fn_index": -1, "session_hash": "x"}', b'{"data": [], "fn_index": 9999, "session_hash": "x"}',
        b'{"data": [], "fn_index": "x", "session_hash": "x"}', b'{"data": [], "fn_index": 1e99, "session_hash": "x"}',
        b'{"data": [], "session_hash": ["x"]}', b"[" * 100_000, b'{"data": [' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"data": [' + b"9" * 10_000 + b"]}", b'{"data": ["' + b"x" * (9 << 20) + b'"]}',
    ]  # fmt: skip
    routes = ["queue/join", "call/sync", "call/v2/sync", "call/nothing", "call/v2/nothing", "run/sync", "run/predict",
              "cancel", "reset", "upload", "component_server", "process_recording", "vibe-edit", "stream/x",
              "queue/data"]  # fmt: skip
    for route in routes[:: 3 if short else 1]:
        for body in odd[:: 4 if short else 1]:
            answer = http.post(f"/gradio_api/{route}", content=body, headers={"Content-Type": "application/json"})
            if answer.status_code == 200:  # accepted; what comes of it is told later
                event = answer.json().get("event_id")
                if event:
                    said = http.get(f"/gradio_api/call/sync/{event}").text
                    if "event: error" not in said and "event: complete" not in said:
                        report.wrong.append(f"bodies: {route} {body[:60]!r}: {said[:200]}")
                report.answers.setdefault("bodies", Counter())["an event"] += 1
            else:
                report.judge("bodies", f"{route} {body[:60]!r}", answer)


def recordings(report: Report, folder: Path, **_: Any) -> None:
    """Gradio's own routes that hand an upload to ffmpeg, or edit the program: here they do not exist."""
    http = stranger(report.server).http
    playlist = SCRIPTS["hls, file segment"].replace("{}", str(make_video(folder / "other.ts", 25)))
    answer = http.post("/gradio_api/process_recording", files={"video": ("a.mp4", playlist.encode())})
    report.judge("closed routes", "process_recording", answer)
    for route in ("vibe-code", "monitoring/summary", "dev/reload", "profiling/traces", "run-history/records", "runs"):
        report.judge("closed routes", route, http.get(f"/gradio_api/{route}"))


ABSURD = [None, "", "x", -1, 0, 51, 1e308, -1e308, float("nan"), float("inf"), True, [], {}, [1, 2], "9" * 4000, 2**63,
          10**300, "<img src=x onerror=alert(1)>", {"path": 5}, {"__type__": "update"}]  # fmt: skip


def values(report: Report, folder: Path, *, short: bool) -> None:
    """Absurd values for every parameter of every named endpoint. Without consent nothing is made of the legal ones."""
    guest = stranger(report.server)
    face, voice = (guest.upload(path) for path in clip_of(5, folder))
    fine = {"face": face, "voice": voice, "steps": 1, "seed": 0, "consent": False, "tail": "keep", "correct": False,
            "label": True, "which": None}  # fmt: skip
    for value in ABSURD[:: 4 if short else 1]:
        for name in fine:
            if name == "consent" and value is True:
                continue  # this one is a yes
            report.judge("values", f"sync {name}={value!r:.60}", ask(guest, "sync", [*(fine | {name: value}).values()]))
        report.judge("values", f"verify video={value!r:.60}", ask(guest, "verify", [value]))
    for data in ([], [face], [face] * 50):
        report.judge("values", f"sync with {len(data)} values", ask(guest, "sync", data))


def ask(guest: Guest, endpoint: str, data: list[Any]) -> dict[str, Any] | httpx.Response:
    """As Guest.ask, for values that JSON does not know (nan) and answers that come at once."""
    asked = {"data": data, "fn_index": guest.functions[endpoint], "session_hash": guest.session}
    as_json = {"Content-Type": "application/json"}
    answer = guest.http.post("/gradio_api/queue/join", content=json.dumps(asked), headers=as_json)
    if answer.status_code != 200:
        return answer
    *_, last = (message for message in guest.heard() if message["msg"] == "process_completed")
    return last


def uploads(report: Report, folder: Path, *, short: bool) -> None:
    """Too large, too many, broken off, too slow, and no uploads at all."""
    server, http = report.server, stranger(report.server).http
    before = stored(server)
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    start = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    odd = [b"", b"nothing", start, b"--b\r\n\r\n\r\n--b--", b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--",
           b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
           b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--']  # fmt: skip
    for body in odd:
        answer = http.post("/gradio_api/upload", content=body, headers=form)
        if answer.status_code != 200 or answer.json():
            report.judge("uploads", f"{body[:50]!r}", answer)
    report.judge(
        "uploads", "no boundary", http.post("/gradio_api/upload", headers={"Content-Type": "multipart/form-data"})
    )
    report.judge("uploads", "announced as 1 TB", announced(server, 10**12))
    with dripping(server, start):
        pass  # left in the middle
    if not short:
        too_large = (start if n == 0 else bytes(2**20) for n in range((LIMITS.bytes >> 20) + 3))
        report.judge("uploads", "larger than said", http.post("/gradio_api/upload", content=too_large, headers=form))
        began = time.monotonic()
        with dripping(server, start) as wire:
            wire.settimeout(WAIT_SECONDS)
            while wire.recv(4096):
                pass
        report.answers["uploads"][f"a slow one given up after {time.monotonic() - began:.0f} s"] += 1
    address, wires = {"X-Forwarded-For": "192.0.2.77"}, []
    for _ in range(50):
        answer = http.post("/gradio_api/upload", files={"files": ("a.mp4", b"x")}, headers=address)
        if answer.status_code != 200:
            break
        wires.append(dripping(server, start, **address))
    report.judge("uploads", "one more at once", answer)
    report.answers["uploads"][f"{len(wires)} at once from one address"] += 1
    for wire in wires:
        wire.close()
    wait_until(lambda: len(stored(server) - before) <= 2, f"broken uploads stay: {stored(server) - before}")


def dripping(server: Server, start: bytes, **headers: str) -> socket.socket:
    """An upload that began and does not go on."""
    host, port = server.url.removeprefix("http://").split(":")
    wire = socket.create_connection((host, int(port)), timeout=120)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    wire.sendall(f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n{more}"
                 "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + start + bytes(500))  # fmt: skip
    return wire


def announced(server: Server, size: int) -> httpx.Response:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as wire:
        wire.sendall(f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode())
        data = wire.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


def stored(server: Server) -> set[Path]:
    """What lies in the cache."""
    return {path for path in (server.home() / "gradio").rglob("*") if path.is_file()}


def crowding(report: Report, folder: Path, **_: Any) -> None:
    """One address, many made-up sessions, and nobody listens: somebody from elsewhere still has a place, and soon."""
    server = report.server
    one = stranger(server)
    face, voice = (one.upload(path) for path in clip_of(6, folder))
    crowd = [Guest(server, n, "203.0.113.251") for n in range(18)]
    events = [guest.join("sync", face, voice, 50, n, True) for n, guest in enumerate(crowd)]
    wait_until(lambda: server.results() >= 10, "the crowd is not in line")
    other = stranger(server)
    event = other.join("sync", face, voice, 1, 0, True)
    told = next(progress_of(message) for message in other.heard() if progress_of(message))
    report.answers["one address, 18 sessions"] = Counter({f"18 joined; a newcomer is told {told!r}": 1})
    ahead = int(told.split()[1]) if told.startswith("waiting") else 0
    if ahead > 2:
        report.wrong.append(f"crowding: a newcomer waits for {ahead}")
    other.cancel("sync", event)
    for guest, own in zip(crowd, events, strict=True):
        guest.cancel("sync", own)
    wait_until(lambda: not server.jobs(), "cancelled runs go on")


def floods(report: Report, folder: Path, **_: Any) -> None:
    """Made-up sessions by the hundred: gradio remembers something of each."""
    server, http = report.server, stranger(report.server).http
    before = server.rss()
    for _ in range(1000):
        http.post("/gradio_api/call/verify", json={"data": [None], "session_hash": os.urandom(8).hex()})
    wait_until(lambda: http.get("/gradio_api/queue/status").json()["queue_size"] == 0, "the flood is not over")
    report.answers["1000 sessions"] = Counter({f"memory {before:.0f} -> {server.rss():.0f} MiB": 1})


ATTACKS: dict[str, Callable[..., None]] = {
    one.__name__: one
    for one in (media, names, paths, references, bodies, recordings, values, uploads, crowding, floods)
}
LONG = {"crowding", "floods"}  # left out of the short version


def attack(server: Server, folder: Path, *, short: bool, only: Collection[str] = ()) -> Report:
    """All of it, and then an honest visitor."""
    report = Report(server)
    for name, act in ATTACKS.items():
        if (only and name not in only) or (short and name in LONG):
            continue
        (folder / name).mkdir()
        act(report, folder / name, short=short)
        if not server.answers():
            report.wrong.append(f"{name}: the server does not answer any more")
    guest = stranger(server)
    face, voice = (guest.upload(path) for path in clip_of(7, folder))
    last = guest.ask("sync", face, voice, 1, 0, True)
    if not last["success"] or belongs_to(7, guest.fetch(last["output"]["data"][0])):
        report.wrong.append(f"afterwards an honest visitor got {json.dumps(last)[:300]}")
    wait_until(lambda: not server.jobs() and not server.children(), f"left behind: {server.jobs()} {server.children()}")
    log = server.log.read_text(errors="replace")
    report.wrong += [f"the log holds a traceback: {log[log.index('Traceback') :][:2000]}"] if "Traceback" in log else []
    report.wrong += ["the log names a secret"] if SECRET in log else []
    report.wrong += [f"it called {called}"] if (called := server.called()) else []
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a sample of each kind, as the tests run it")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=[*ATTACKS])
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is not left alone
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        server = Server(Path(name) / "server")
        try:
            server.start()
            report = attack(server, Path(name), short=asked.short, only=asked.only)
        finally:
            server.end()
    print(report)
    print(f"{sum(seen.total() for seen in report.answers.values())} tried, {len(report.wrong)} wrong")
    return bool(report.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
