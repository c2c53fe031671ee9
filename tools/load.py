"""Many visitors at once on the real server: `python tools/load.py [--visitors 20] [--crowds 1]`. Prints a table; exit
code 1 where somebody got what was not theirs, was overtaken, or where something was left behind."""

import argparse
import re
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it knows only its own folder
from tests.serving import Guest, Server, belongs_to, clip_of, progress_of, wait_until

WAITING = re.compile(r"waiting, (\d+) ahead(, .+)?")


@dataclass
class Visit:
    """One visitor's run, as seen from outside."""

    guest: Guest
    files: tuple[dict[str, Any], dict[str, Any]]
    event: str = ""
    told: list[int] = field(default_factory=list)  # how many came first, each time that changed
    times: int = 0  # how often a time was told as well
    first_told: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    video: bytes = b""
    error: str = ""

    def run(self) -> None:
        """Ask, listen to the end, and fetch what was made."""
        self.event = self.guest.join("sync", *self.files, 1, self.guest.number, True)
        for message in self.guest.heard():
            said = progress_of(message)
            if seen := WAITING.fullmatch(said):
                self.first_told = self.first_told or time.monotonic()
                self.told += [int(seen[1])] if [int(seen[1])] != self.told[-1:] else []
                self.times += bool(seen[2])
            elif said:
                self.started = self.started or time.monotonic()
            if message["msg"] == "process_completed":
                self.ended = time.monotonic()
                if message["success"] and message["output"].get("data"):
                    self.video = self.guest.fetch(message["output"]["data"][0])
                else:
                    self.error = str(message["output"].get("error"))


@dataclass
class Table:
    """What was seen, for people; and what was wrong."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = [f"{name:<{width}}  {value}" for name, value in self.rows]
        return "\n".join([*lines, *(f"WRONG: {words}" for words in self.wrong or ())])


def welcome(server: Server, number: int, folder: Path) -> Visit:
    """A visitor whose files are uploaded."""
    guest = Guest(server, number)
    face, voice = clip_of(number, folder)
    return Visit(guest, (guest.upload(face), guest.upload(voice)))


def crowd(server: Server, visitors: int, folder: Path, table: Table) -> None:
    """So many at once: everyone gets their own, in the order they came; leaving frees a place; memory comes back."""
    first = welcome(server, 1, folder)
    first.run()  # what is loaded with the first run stays
    wrong = belongs_to(1, first.video) if first.video else [first.error]
    table.wrong += [f"the first visitor got {words}" for words in wrong]
    before, results = server.rss(), server.results()  # of whoever came earlier, too

    visits = [welcome(server, number, folder) for number in range(2, visitors + 2)]
    began = time.monotonic()
    threads = [threading.Thread(target=visit.run) for visit in visits]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.results() == results + visitors, "not everybody is in line")
    leave_in_the_middle(server, folder, table)
    for thread in threads:
        thread.join()
    took = time.monotonic() - began

    for visit in visits:
        number = visit.guest.number
        wrong = belongs_to(number, visit.video) if visit.video else [visit.error]
        table.wrong += [f"visitor {number} got {words}" for words in wrong]
        if visit.told != sorted(visit.told, reverse=True):
            table.wrong.append(f"visitor {number} was moved back in line: {visit.told}")
        if visit.told:
            overtook = sum(visit.first_told < other.started < visit.started for other in visits)
            if overtook > visit.told[0]:
                table.wrong.append(f"visitor {number} was told {visit.told[0]} come first, and {overtook} did")
    waited = [visit for visit in visits if visit.told]
    if len(visits) > 1 and not waited:
        table.wrong.append("nobody was told to wait")
    wait_until(lambda: not server.jobs(), "folders of finished runs are still there")
    table.rows += [
        ("visitors at once", f"{len(visits)}, in {took:.0f} s: {took / len(visits):.1f} s each"),
        ("got exactly their own file", f"{sum(v.video and not belongs_to(v.guest.number, v.video) for v in visits)}"),
        ("were told their position; and a time", f"{len(waited)}; {sum(visit.times > 0 for visit in waited)}"),
        ("server's memory before and after", f"{before:.0f} and {server.rss():.0f} MiB"),
    ]


def leave_in_the_middle(server: Server, folder: Path, table: Table) -> None:
    """Behind all the others one cancels, one drops the connection, and one asks for a third run. All want long ones."""
    for number, how in ((200, "cancelled"), (201, "connection dropped")):
        visit, places = welcome(server, number, folder), server.results()
        visit.event = visit.guest.join("sync", *visit.files, 50, 0, True)
        messages = visit.guest.heard()
        next(message for message in messages if progress_of(message))
        if server.results() != places + 1:
            table.wrong.append(f"{how}: no place was taken")
        began = time.monotonic()
        if how == "cancelled":
            visit.guest.cancel("sync", visit.event)  # while the page still listens
        else:
            messages.close()
        wait_until(lambda places=places: server.results() == places, f"{how}: the place is not free")
        table.rows.append((f"{how}: place free after", f"{time.monotonic() - began:.1f} s"))
        messages.close()
    greedy = welcome(server, 202, folder)
    events = [greedy.guest.join("sync", *greedy.files, 50, seed, True) for seed in range(3)]
    refused = next(message for message in greedy.guest.heard() if message["msg"] == "process_completed")
    sentence = str(refused["output"].get("error"))
    for event in events:
        greedy.guest.cancel("sync", event)
    table.rows.append(("a third run at a time", sentence))
    if "You have 2 videos in the making" not in sentence:
        table.wrong.append(f"a third run was answered with {sentence!r}")


def power_cut(server: Server, folder: Path, table: Table) -> None:
    """kill -9 in the middle of a run: what was delivered is whole, and the next start finds a clean house."""
    delivered = welcome(server, 210, folder)
    delivered.run()
    (folder / "delivered.mp4").write_bytes(delivered.video)
    cut = welcome(server, 211, folder)
    cut.guest.join("sync", *cut.files, 50, 0, True)
    next(message for message in cut.guest.heard() if progress_of(message).startswith("drawing"))
    home = server.home()
    began = time.monotonic()
    server.kill()
    table.rows.append(("kill -9: its processes are gone after", f"{time.monotonic() - began:.1f} s"))
    took = server.start()
    table.rows.append(("kill -9: the next start answers after", f"{took:.0f} s"))
    if home.exists() or len([*server.temp.iterdir()]) != 1:
        table.wrong.append(f"the next start left {[path.name for path in server.temp.iterdir()]}")
    wrong = belongs_to(210, (folder / "delivered.mp4").read_bytes())
    table.wrong += [f"after kill -9 the delivered file holds {words}" for words in wrong]
    again = welcome(server, 212, folder)
    again.run()
    wrong = belongs_to(212, again.video) if again.video else [again.error]
    table.wrong += [f"after the next start a visitor got {words}" for words in wrong]


def farewell(server: Server, table: Table) -> None:
    """Nothing stays when it ends."""
    server.stop()
    if left := [path.name for path in server.temp.iterdir()]:
        table.wrong.append(f"left behind: {left}")
    table.rows.append(("left in the temporary folder after the end", ", ".join(left) or "nothing"))
    if called := server.called():
        table.wrong.append(f"it called {called}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--crowds", type=int, default=1, help="so many visitors, so often: does memory go on growing?")
    asked, table = parser.parse_args(), Table()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server is not left alone
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        server = Server(folder / "server")
        try:
            table.rows.append(("the first start answers after", f"{server.start():.0f} s"))
            for _ in range(asked.crowds):
                crowd(server, asked.visitors, folder, table)
            power_cut(server, folder, table)
            farewell(server, table)
        finally:
            server.end()
    print(table)
    return bool(table.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
