"""Checkpoint files that the tests write: whole ones are read, damaged ones are refused, nothing in them runs."""

from __future__ import annotations

import builtins
import collections
import functools
import hashlib
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from syncdiff.errors import CheckpointError
from syncdiff.weights import Offer, ask_on_terminal, fetch, load_strictly, read_tensors
from syncdiff.weights.unpickler import Placeholder

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def save(content: object, path: Path, legacy: bool = False, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return path


def refused(path: Path, reason: str, **options) -> None:
    """The file is refused in one sentence that names it, says why and what was expected."""
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_tensors(path, **options)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} is refused: ")
    assert "; expected " in sentence
    assert "\n" not in sentence


def same(found: object, saved: object) -> bool:
    if isinstance(saved, torch.Tensor):
        return found.dtype == saved.dtype and found.shape == saved.shape and torch.equal(found, saved)
    if isinstance(saved, dict):
        return list(found) == list(saved) and all(same(found[key], saved[key]) for key in saved)
    if isinstance(saved, (list, tuple)):
        return len(found) == len(saved) and all(map(same, found, saved))
    return found == saved and type(found) is type(saved)


@pytest.fixture
def honest() -> dict:
    base = torch.randn(10, 10)
    dtypes = ("float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
    return {
        "model": nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)).state_dict(),
        "parameter": nn.Parameter(torch.randn(3)),
        "views": [base, base[2:5, 1:3], base.T, base[0], base[::3, ::2]],
        "dtypes": [torch.arange(5).to(getattr(torch, name)) for name in dtypes],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "plain": [None, True, 1, -(2**40), 2**70, 0.5, "ü", (1, (2,)), {"a": {}}],
        7: collections.OrderedDict(a=1),
    }


# --- honest files


@FORMATS
def test_what_torch_saved_comes_back(honest, legacy, tmp_path, subtests):
    for protocol in (2, 4):
        with subtests.test(protocol=protocol):
            assert same(read_tensors(save(honest, tmp_path / "a.pt", legacy, protocol)), honest)


def test_a_file_that_python_2_saved(tmp_path):
    """As PyTorch before 0.4 wrote it under Python 2: byte strings, lists of pairs, storages of the GPU."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    numbers = struct.pack("<6f", *range(6))
    storage = b"(" + text("storage") + b"ctorch.cuda\nFloatStorage\n" + text("1234") + text("cuda:0") + b"K\x06Nt"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"QK\x00K\x02K\x03\x86K\x03K\x01\x86tR"
    pair = b"](" + text("netcnnaud.0.weight") + tensor + b"e"
    content = b"\x80\x02ccollections\nOrderedDict\n](" + pair + b"e\x85R."
    keys = b"\x80\x02](" + text("1234") + b"e."
    (tmp_path / "old.model").write_bytes(LEGACY_HEAD + content + keys + struct.pack("<q", 6) + numbers)
    assert same(read_tensors(tmp_path / "old.model"), {"netcnnaud.0.weight": torch.arange(6.0).reshape(2, 3)})


@FORMATS
def test_foreign_objects_become_placeholders_and_their_modules_are_not_imported(legacy, tmp_path, monkeypatch):
    """The module is there to be imported, and would leave a mark."""
    (tmp_path / "elsewhere.py").write_text("open(__file__ + '.imported', 'w')\nclass Thing(dict): pass")
    monkeypatch.syspath_prepend(tmp_path)
    import elsewhere

    thing = elsewhere.Thing(a=torch.ones(1))
    thing.me = thing
    content = {"thing": thing, "args": Namespace(lr=1), "set": {1}, "number": np.float64(1), "a": torch.ones(1)}
    path = save(content, tmp_path / "a.pt", legacy)
    del sys.modules["elsewhere"]
    mark = tmp_path / "elsewhere.py.imported"
    mark.unlink()
    found = read_tensors(path)
    assert type(found["thing"]).__name__ == "elsewhere.Thing"
    assert all(isinstance(found[key], Placeholder) for key in ("thing", "args", "set", "number"))
    assert same(found["a"], torch.ones(1))
    assert "elsewhere" not in sys.modules
    assert not mark.exists()


# --- code


class Call:
    """Pickled as a call of the function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __call__(self) -> None:
        """So that pickle takes one for the function of another."""


# What leaves a mark where it runs.
CALLS: dict[str, Callable[[Path], Call]] = {
    "os.system": lambda mark: Call(os.system, f"touch '{mark}'"),
    "subprocess": lambda mark: Call(subprocess.call, ["touch", str(mark)]),
    "eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Call(open, str(mark), "w"),
    "mkdir": lambda mark: Call(Path.mkdir, mark),
    "torch.save": lambda mark: Call(torch.save, 1, str(mark)),
    "numpy": lambda mark: Call(np.save, f"{mark}.npy", 1),
    "partial": lambda mark: Call(functools.partial, open, str(mark), "w"),
    "getattr": lambda mark: Call(Call(getattr, Call(__import__, "os"), "mkdir"), str(mark)),
}


@FORMATS
def test_code_does_not_run(legacy, tmp_path, subtests):
    """The call becomes a placeholder, or the file is refused where what a placeholder returned is called.

    The same file does leave its mark where a pickle is simply trusted: so the test can fail."""
    for name, call in CALLS.items():
        with subtests.test(name):
            code = call(tmp_path / f"{name} mark")
            path = save({"model": {"a": torch.ones(1)}, "code": code}, tmp_path / "a.pt", legacy)
            if name in {"getattr", "mkdir"}:
                refused(path, "not callable")
            else:
                found = read_tensors(path)
                assert isinstance(found["code"], Placeholder)
                assert same(found["model"], {"a": torch.ones(1)})
            assert not list(tmp_path.glob("* mark*"))
            torch.load(path, weights_only=False)
            marks = list(tmp_path.glob("* mark*"))
            assert bool(marks) == (name != "partial")  # which only makes a function
            for mark in marks:
                mark.rmdir() if mark.is_dir() else mark.unlink()


LEGACY_HEAD = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
BY_HAND = {  # a pickle's instructions, and why the file is refused; None: it reads as a placeholder
    "GLOBAL": (b"cposix\nsystem\nU\x04true\x85R.", None),
    "STACK_GLOBAL": (b"U\x05posixU\x06system\x93U\x04true\x85R.", None),
    "NEWOBJ": (b"cposix\nsystem\nU\x04true\x85\x81.", None),
    "NEWOBJ_EX": (b"cposix\nsystem\nU\x04true\x85}\x92.", None),
    "INST": (b"(U\x04trueiposix\nsystem\n.", None),
    "OBJ": (b"(cposix\nsystem\nU\x04trueo.", None),
    "a dotted name": (b"ctorch\nserialization.os.system\nU\x04true\x85R.", None),
    "EXT1": (b"\x82\x01.", "unregistered extension"),
    "a tensor of a string": (b"ctorch._utils\n_rebuild_tensor_v2\n(U\x01aK\x00))tR.", "AttributeError"),
    "persistent number": (b"K\x01Q.", "cannot be read"),
    "an unknown instruction": (b"\xff.", "cannot be read"),
    "an empty stack": (b"000R.", "cannot be read"),
    "a string longer than the file": (b"X\xff\xff\xff\x7fabc.", "cannot be read"),
}


def by_hand(content: bytes, path: Path, legacy: bool) -> Path:
    """A file of that format whose pickle is `content`, made the value of a dictionary."""
    end = b"." if content.endswith(b".") else b""
    pickled = b"\x80\x02}U\x01a" + content.removesuffix(b".") + b"s" + end
    if legacy:
        path.write_bytes(LEGACY_HEAD + pickled + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", "3")
    return path


@FORMATS
def test_hand_made_instructions_run_nothing(legacy, tmp_path, monkeypatch, subtests):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    for name, (code, reason) in BY_HAND.items():
        with subtests.test(name):
            path = by_hand(code, tmp_path / "a.pt", legacy)
            if reason:
                refused(path, reason)
            else:
                assert isinstance(read_tensors(path)["a"], Placeholder)


@FORMATS
def test_attributes_cannot_be_set_on_anything(legacy, tmp_path):
    """BUILD reaches into whatever stands on the stack: here into a maker of tensors and a class."""
    from syncdiff.weights.unpickler import ALLOWED

    makers = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cfoo\nBar\n", b"ccollections\nOrderedDict\n)R")
    content = b"](" + b"".join(maker + b"N}U\x01xK\x01s\x86b" for maker in makers) + b"e."  # state None, slots {"x": 1}
    found = read_tensors(by_hand(content, tmp_path / "a.pt", legacy))["a"]
    assert len(found) == 3
    assert not any(hasattr(thing, "x") for thing in (*found, *ALLOWED.values(), Placeholder))


def test_what_torch_load_would_run_or_unpack_is_refused(tmp_path, monkeypatch):
    """A TorchScript program; a tar; and a class's source in the legacy format, which torch may write a patch for."""
    monkeypatch.chdir(tmp_path)
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "it is a TorchScript program, of which nothing was run")
    refused(tar_like_a_pickle(tmp_path / "b.pt"), "it is a tar archive")
    module = b"(U\x06moduleccollections\nOrderedDict\nU\x01xU\x01ytQ."
    refused(by_hand(module, tmp_path / "c.pt", legacy=True), "dump_patches")
    refused(by_hand(module, tmp_path / "d.pt", legacy=False), "cannot be read")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt", "c.pt", "d.pt"]


def tar_like_a_pickle(path: Path) -> Path:
    """A tar whose first byte, of a member's name, is a pickle's; with the checksum of that header."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    data = bytearray(path.read_bytes())
    data[0], data[148:156] = 0x80, b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


# --- numbers that do not add up, and damaged files


class View:
    """Pickled as a tensor of any storage, offset, size and strides."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self):
        storage = torch.ones(6)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (storage, *self.parts, False, collections.OrderedDict())


@FORMATS
def test_tensors_beyond_their_storage_are_refused(legacy, tmp_path, subtests):
    for parts in [
        (0, (2, 4), (4, 1)),
        (5, (2,), (1,)),
        (0, (10**9,), (0,)),
        (0, (10**9, 10**9), (0, 0)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (3, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0.5, (2,), (1,)),
        (0, "ab", (1, 1)),
    ]:
        with subtests.test(parts=parts):
            refused(save({"a": View(*parts)}, tmp_path / "a.pt", legacy), "cannot be read")


def test_a_flipped_or_missing_number_in_a_zip_is_refused(tmp_path):
    path = save({"a": torch.full((1000,), 1.5)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5), struct.pack("<f", 2.5), 1))
    refused(path, r"its a/data/0 is damaged \(its checksum differs\)")
    for number in (b"", members["a/data/0"][:20]):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (members | {"a/data/0": number}).items():
                archive.writestr(name, data)
        refused(path, "cannot be read")


@FORMATS
def test_a_file_cut_off_anywhere_is_refused(honest, legacy, tmp_path):
    data = save(honest, tmp_path / "a.pt", legacy).read_bytes()
    for length in [*range(0, len(data), max(1, len(data) // 30)), len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:length])
        refused(tmp_path / "cut.pt", "empty" if length == 0 else "cannot be read|no PyTorch file")


@FORMATS
def test_flipped_bytes_end_in_an_answer(honest, legacy, tmp_path):
    """Whatever a byte becomes: the file reads, or is refused in a sentence."""
    data = save(honest, tmp_path / "a.pt", legacy).read_bytes()
    chance, answers = random.Random(0), collections.Counter()
    for _ in range(200):
        flipped = bytearray(data)
        flipped[chance.randrange(min(len(data), 3000))] = chance.randrange(256)
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            read_tensors(tmp_path / "flipped.pt")
            answers["read"] += 1
        except CheckpointError:
            answers["refused"] += 1
    assert answers["refused"] > 25


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    for data, reason in [
        (b"", r"it is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><title>Not found</title>", "it is no PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no PyTorch file"),
        (pickle.dumps({"a": 1}), "cannot be read"),
        (b"PK\x03\x04 and nothing more", "cannot be read"),
    ]:
        path.write_bytes(data)
        refused(path, reason)
    refused(save([torch.ones(1)], path), "it holds list, not a dictionary")
    refused(save(nn.Linear(1, 1), path), "it holds torch.nn.modules.linear.Linear, not a dictionary")
    refused(tmp_path / "none.pt", "there is no such file")
    refused(tmp_path, "it is a folder")


def test_the_pinned_hash_is_compared_before_anything_is_read(tmp_path):
    path = save({"a": torch.ones(1)}, tmp_path / "a.pt")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(read_tensors(path, sha256=found.upper()), {"a": torch.ones(1)})
    refused(path, f"its sha256 is {found}, not {'0' * 64}", sha256="0" * 64)
    path.write_bytes(b"damaged")
    refused(path, "its sha256 is", sha256="0" * 64)


# --- into a module


def test_tensors_go_into_a_module_that_fits():
    source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source.weight.data.normal_()
    load_strictly(target, dict(source.state_dict()), "a.pt")
    assert torch.equal(target.weight, source.weight)
    with torch.device("meta"):
        target = nn.BatchNorm1d(3)
    load_strictly(target, dict(source.state_dict()), "a.pt", assign=True)
    assert torch.equal(target.weight, source.weight)


def test_tensors_that_do_not_fit_leave_the_module_as_it_was(subtests):
    module = nn.BatchNorm1d(3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for change, reason in [
        ({"bias": None}, "it lacks bias; expected the 5 tensors of BatchNorm1d"),
        ({"b": torch.ones(1), "c": torch.ones(1)}, "it also has b, c; expected"),
        ({"bias": torch.ones(4)}, r"bias has the shape \(4,\); expected \(3,\)"),
        ({"bias": 1.0}, "bias is float; expected a tensor"),
    ]:
        tensors = {key: torch.full_like(value, 9) for key, value in before.items()} | change
        tensors = {key: value for key, value in tensors.items() if value is not None}
        with subtests.test(reason), pytest.raises(CheckpointError, match=f"^a.pt is refused: {reason}"):
            load_strictly(module, tensors, "x/a.pt")
        assert same(dict(module.state_dict()), before)


# --- fetching


class Server(HTTPServer):
    """Gives one file, or pretends to."""

    data, announced, asked = b"weights" * 1000, 7000, 0

    class RequestHandlerClass(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked += 1
            self.send_response(404 if "gone" in self.path else 200)
            self.send_header("Content-Length", str(self.server.announced))
            self.end_headers()
            self.wfile.write(self.server.data)

        def log_message(self, *_: object) -> None: ...

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        self.url = f"http://127.0.0.1:{self.server_port}/base.pt"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_nothing_is_fetched_without_a_yes(server, tmp_path):
    """Only True is a yes: a function that returns what somebody typed is a mistake, not an agreement."""
    for answer in (False, None, "yes", 1):
        with pytest.raises(CheckpointError, match=r"base\.pt is refused: its licence was not accepted"):
            fetch(Offer(server.url, "For research only."), tmp_path / "cache", ask=lambda _, said=answer: said)
    assert server.asked == 0
    assert list(tmp_path.iterdir()) == []


def test_the_licence_is_shown_before_the_file_comes(server, tmp_path):
    seen = []

    def agree(question: str) -> bool:
        seen.append((question, server.asked))
        return True

    digest = hashlib.sha256(Server.data).hexdigest()
    offer = Offer(server.url, "For research only.", sha256=digest)
    path = fetch(offer, tmp_path / "cache", ask=agree)
    assert path.read_bytes() == Server.data
    assert [at for _, at in seen] == [0]
    assert "For research only." in seen[0][0]
    assert server.url in seen[0][0]
    assert fetch(offer, tmp_path / "cache", ask=pytest.fail) == path  # once it is there, nobody is asked
    assert server.asked == 1
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_a_download_that_goes_wrong_leaves_nothing(server, tmp_path, subtests):
    found = hashlib.sha256(Server.data).hexdigest()
    for url, announced, sha256, reason in [
        (server.url, 7000, "0" * 64, f"the download has the sha256 {found}; expected 0000"),
        (server.url, 9000, None, "only 7000 bytes of it arrived; expected 9000 bytes"),
        (server.url.replace("base.pt", "gone"), 7000, None, "cannot be downloaded .*404"),
        ("file:///no/such/file.pt", 7000, None, "cannot be downloaded"),
    ]:
        server.announced = announced
        with subtests.test(reason), pytest.raises(CheckpointError, match=reason):
            fetch(Offer(url, "", sha256), tmp_path, ask=lambda _: True)
        assert list(tmp_path.iterdir()) == []


def test_a_mirror_is_asked_where_the_first_address_does_not_answer(server, tmp_path):
    digest = hashlib.sha256(Server.data).hexdigest()
    offer = Offer(server.url.replace("base.pt", "gone/base.pt"), "", digest, (server.url,))
    assert fetch(offer, tmp_path, ask=lambda _: True).read_bytes() == Server.data
    assert server.asked == 2


def test_on_a_terminal_only_the_word_yes_is_a_yes(monkeypatch, capsys):
    for typed, agreed in [("yes", True), ("YES ", True), ("y", False), ("", False), ("no", False)]:
        monkeypatch.setattr(builtins, "input", lambda _, said=typed: said)
        assert ask_on_terminal("For research only.") is agreed
    assert "For research only." in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal
    assert ask_on_terminal("For research only.") is False
