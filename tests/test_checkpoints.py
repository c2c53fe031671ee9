"""Checkpoint files that the test writes: honest ones come back whole, bent ones are refused, nothing in them runs."""

from __future__ import annotations

import builtins
import collections
import functools
import hashlib
import io
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
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

from syncdiff.errors import CheckpointError, InputError
from syncdiff.weights import Inert, Offer, ask_on_terminal, fetch, load_strictly, read_tensors

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def save(content: object, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refused(path: Path, reason: str, **options) -> None:
    """The file is refused in one sentence that names it, says why and what was expected."""
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_tensors(path, **options)
    assert isinstance(caught.value, InputError)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} is refused: ")
    assert "; expected " in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def same(found: object, saved: object) -> bool:
    if isinstance(saved, torch.Tensor):
        return found.dtype == saved.dtype and found.shape == saved.shape and torch.equal(found, saved)
    if isinstance(saved, dict):
        return type(found) is dict and list(found) == list(saved) and all(same(found[key], saved[key]) for key in saved)
    if isinstance(saved, (list, tuple)):
        return len(found) == len(saved) and all(map(same, found, saved))
    return found == saved and type(found) is type(saved)


@pytest.fixture
def honest() -> dict:
    base = torch.randn(10, 10)
    numbers = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    return {
        "model": nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)).state_dict(),
        "parameter": nn.Parameter(torch.randn(3)),
        "views": [base, base[2:5, 1:3], base.T, base[0], base[::3, ::2]],
        "kinds": {str(dtype): torch.arange(5).to(dtype) for dtype in numbers} | {"bool": torch.tensor([True, False])},
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "plain": [None, True, 1, -(2**40), 2**70, 0.5, "ü", b"\x00\xff", {1, 2}, (1, (2,)), {"a": {}}, frozenset([1])],
        7: collections.OrderedDict(a=1),
        "more": {"counter": collections.Counter("aab"), "default": collections.defaultdict(list, a=[1])},
    }


# --- honest files


@FORMATS
def test_what_torch_saved_comes_back(honest, legacy, tmp_path):
    assert same(read_tensors(save(honest, tmp_path / "a.pt", legacy)), honest)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@FORMATS
def test_every_pickle_protocol_from_2_on(honest, legacy, protocol, tmp_path):
    torch.save(honest, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert same(read_tensors(tmp_path / "a.pt"), honest)


def test_a_file_that_python_2_saved(tmp_path):
    """As PyTorch before 0.4 wrote it under Python 2: byte strings, lists of pairs, storages of the GPU."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    numbers = struct.pack("<6f", *range(6))
    storage = b"(" + text("storage") + b"ctorch.cuda\nFloatStorage\n" + text("1234") + text("cuda:0") + b"K\x06Nt"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"QK\x00K\x02K\x03\x86K\x03K\x01\x86tR"
    pair = b"](" + text("netcnnaud.0.weight") + tensor + b"e"
    content = b"\x80\x02ccollections\nOrderedDict\n](" + pair + b"e\x85R."
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    keys = b"\x80\x02](" + text("1234") + b"e."
    (tmp_path / "old.model").write_bytes(magic + content + keys + struct.pack("<q", 6) + numbers)
    assert same(read_tensors(tmp_path / "old.model"), {"netcnnaud.0.weight": torch.arange(6.0).reshape(2, 3)})


@FORMATS
def test_tensors_do_not_hold_on_to_more_than_themselves(honest, legacy, tmp_path):
    views = read_tensors(save(honest, tmp_path / "a.pt", legacy))["views"]
    for view in views:
        assert view.untyped_storage().nbytes() == view.numel() * 4
        assert view.is_contiguous()


@FORMATS
def test_only_the_entries_asked_for_are_read(legacy, tmp_path, monkeypatch):
    path = save({"model": {"a": torch.ones(2)}, "optimiser": torch.ones(1000)}, tmp_path / "a.pt", legacy)
    read = []
    of_bytes = torch.frombuffer
    monkeypatch.setattr(torch, "frombuffer", lambda data, dtype: read.append(len(data)) or of_bytes(data, dtype=dtype))
    assert same(read_tensors(path, entries=("model", "state_dict")), {"model": {"a": torch.ones(2)}})
    assert read == [8]
    refused(path, "it has no entry weights, but model, optimiser; expected", entries=("weights",))


@FORMATS
def test_foreign_objects_are_names_and_their_modules_are_never_looked_for(legacy, tmp_path, monkeypatch):
    """The module is there to be imported, and would leave a mark."""
    (tmp_path / "elsewhere.py").write_text(
        "open(__file__ + '.imported', 'w')\nclass Thing(dict): pass\ndef call(*_): return 1"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import elsewhere

    class Call:
        def __reduce__(self):
            return elsewhere.call, (1,)

    thing = elsewhere.Thing(a=torch.ones(1))
    thing.me = thing
    path = save(
        {"thing": thing, "call": Call(), "args": Namespace(lr=1), "a": torch.ones(1)}, tmp_path / "a.pt", legacy
    )
    del sys.modules["elsewhere"]
    mark = tmp_path / "elsewhere.py.imported"
    mark.unlink()
    found = read_tensors(path)
    assert found["thing"] == Inert("elsewhere.Thing")
    assert found["call"] == Inert("elsewhere.call")
    assert found["args"] == Inert("argparse.Namespace")
    assert same(found["a"], torch.ones(1))
    assert "elsewhere" not in sys.modules
    assert not mark.exists()


# --- code


def hidden(command: str) -> bytes:
    """A checkpoint that would run a command, inside the bytes of one that would load it."""
    inner = io.BytesIO()
    torch.save(Call(os.system, (command,)), inner)
    return inner.getvalue()


class Call:
    """Pickled as a call of the function."""

    def __init__(self, function: Callable, arguments: tuple) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


# What leaves a mark where it runs, and what would lead there.
CALLS: dict[str, Callable[[Path], tuple[Callable, tuple]]] = {
    "os.system": lambda mark: (os.system, (f"touch {mark}",)),
    "subprocess": lambda mark: (subprocess.call, (["touch", str(mark)],)),
    "eval": lambda mark: (eval, (f"open({str(mark)!r}, 'w')",)),
    "exec": lambda mark: (exec, (f"open({str(mark)!r}, 'w')",)),
    "open": lambda mark: (open, (str(mark), "w")),
    "symlink": lambda mark: (os.symlink, (str(mark.parent), str(mark))),
    "copytree": lambda mark: (shutil.copytree, (str(mark.parent / "folder"), str(mark))),
    "mkdir": lambda mark: (Path.mkdir, (mark,)),
    "torch.save": lambda mark: (torch.save, (1, str(mark))),
    "storage": lambda mark: (torch.storage._load_from_bytes, (hidden(f"touch {mark}"),)),
    "numpy": lambda mark: (np.save, (f"{mark}.npy", 1)),
    "getattr": lambda mark: (getattr, (Call(__import__, ("os",)), "system")),
    "partial": lambda mark: (functools.partial, (Call(open, (str(mark), "w")),)),
    "torch.hub": lambda mark: (torch.hub.load, (str(mark.parent), "call")),
}


@pytest.mark.parametrize("name", CALLS)
@FORMATS
def test_code_is_refused_and_does_not_run(name, legacy, tmp_path):
    (tmp_path / "folder").mkdir()
    path = save(
        {"model": {"a": torch.ones(1)}, "code": Call(*CALLS[name](tmp_path / "mark"))}, tmp_path / "a.pt", legacy
    )
    before = sorted(tmp_path.iterdir())
    refused(path, r"it carries code \(.*\), of which nothing was run")
    refused(path, "it carries code", entries=("model",))  # also where the code is not what was asked for
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", [name for name in CALLS if name not in {"getattr", "partial", "torch.hub", "storage"}])
def test_the_code_is_real(name, tmp_path):
    """The same files do leave their mark where a pickle is simply trusted: so the test above can fail."""
    (tmp_path / "folder").mkdir()
    path = save({"code": Call(*CALLS[name](tmp_path / "mark"))}, tmp_path / "a.pt")
    torch.load(path, weights_only=False)
    assert list(tmp_path.glob("mark*"))


# Instructions by hand, and why they are refused: every way of naming something, calling it, or reaching into an object.
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu"
INSTRUCTIONS = {
    "GLOBAL": (b"cposix\nsystem\nU\x04true\x85R.", r"code \(posix.system\)"),
    "of Python 2": (b"c__builtin__\neval\nU\x011\x85R.", r"code \(builtins.eval\)"),
    "moved since Python 2": (b"ccommands\ngetoutput\nU\x04true\x85R.", r"code \(subprocess.getoutput\)"),
    "renamed since Python 2": (b"c__builtin__\nreduce\n)R.", r"code \(functools.reduce\)"),
    "STACK_GLOBAL": (b"U\x05posixU\x06system\x93U\x04true\x85R.", r"code \(posix.system\)"),
    "NEWOBJ": (b"cposix\nsystem\nU\x04true\x85\x81.", r"code \(posix.system\)"),
    "NEWOBJ_EX": (b"cposix\nsystem\nU\x04true\x85}\x92.", r"code \(posix.system\)"),
    "a name over two lines": (b"U\x05posixU\x04a\n\nb\x93.", r"code \(posix.a b\)"),
    "never called": (b"cposix\nsystem\n.", r"code \(posix.system\)"),
    "a dotted name": (b"ctorch\nserialization.os.system\n.", r"code \(torch.serialization.os.system\)"),
    "a dotted name among data": (b"cpathlib\nos.system\n.", r"code \(pathlib.os.system\)"),
    "a module within a data module": (b"ctyping.re\nsub\n.", r"code \(typing.re.sub\)"),
    "INST": (b"(U\x04trueiposix\nsystem\n.", "instruction INST"),
    "OBJ": (b"(cfoo\nBar\nU\x04trueo.", "instruction OBJ"),
    "EXT1": (b"\x82\x01.", "instruction EXT1"),
    "NEXT_BUFFER": (b"\x97.", "instruction NEXT_BUFFER"),
    "a tensor of a string": (b"ctorch._utils\n_rebuild_tensor_v2\n(U\x01aK\x00))tR.", "not made of a storage"),
    "calls a string": (b"U\x01a)R.", "it calls str with tuple"),
    "calls with a list": (b"ccollections\nOrderedDict\n]R.", "it calls collections.OrderedDict with list"),
    "STACK_GLOBAL of a list": (b"]U\x01a\x93.", "imports something that has no name"),
    "persistent module": (b"(U\x06modulecfoo\nBar\nU\x01xU\x01yNtQ.", "not a storage of numbers"),
    "persistent number": (b"K\x01Q.", "not a storage of numbers"),
    "storage of a function": (b"(U\x07storagecfoo\nBar\nU\x010U\x03cpuK\x01tQ.", "it stores numbers as foo.Bar"),
    "storage within a storage": (STORAGE + b"K\x06U\x011K\x00K\x01\x87tQ.", "a storage within a storage"),
    "storage of less than nothing": (STORAGE + b"J\xff\xff\xff\xfftQ.", "storage of -1 numbers"),
    "storage of a list": (STORAGE + b"]tQ.", r"storage of \[\] numbers"),
    "bytes in another encoding": (b"c_codecs\nencode\nU\x01aU\x06rot_13\x86R.", "bytes written as rot_13"),
    "appends to a tuple": (b")K\x01a.", "it appends to tuple"),
    "sets items of a list": (b"]K\x01K\x02s.", "it sets items of list"),
    "a key that cannot be one": (b"}]K\x01s.", "damaged .*unhashable"),
    "an empty stack": (b"000R.", "damaged .*stack is empty"),
    "no mark": (b"t.", "damaged"),
    "no memo": (b"h\x07.", "damaged .*KeyError: 7"),
    "no end": (b"K\x01", "damaged .*"),
    "too deep": (b"]" * 20_000 + b"a" * 19_999 + b".", "damaged .*RecursionError"),
    "a string longer than the file": (b"X\xff\xff\xff\x7fabc.", "damaged .*expected 2147483647 bytes"),
    "a string longer than any memory": (
        b"\x8d" + b"\xff" * 7 + b"\x7fabc.",
        "damaged .*(expected 9223372036854775807|too large)",
    ),
    "an unknown instruction": (b"\xff.", "damaged .*opcode"),
}


def by_hand(content: bytes, path: Path, legacy: bool) -> Path:
    """A file of that format whose pickle is `content`, made the value of a dictionary."""
    pickled = b"\x80\x02" + content
    if legacy:
        head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", "3")
    return path


@pytest.mark.parametrize("name", INSTRUCTIONS)
@FORMATS
def test_hand_made_instructions_are_refused(name, legacy, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    code, reason = INSTRUCTIONS[name]
    end = b"." if code.endswith(b".") else b""
    refused(by_hand(b"}U\x01a" + code.removesuffix(b".") + b"s" + end, tmp_path / "a.pt", legacy), reason)


@FORMATS
def test_attributes_cannot_be_set_on_anything(legacy, tmp_path):
    """BUILD reaches into whatever stands on the stack: here into a maker of tensors, a class and a dictionary."""
    makers = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"}")
    content = b"]" + b"".join(b"(" + maker + b"}U\x08__code__K\x01sbe" for maker in makers)
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    found = read_tensors(by_hand(b"}U\x01a" + content + b"s.", tmp_path / "a.pt", legacy))
    assert found == {"a": [Inert("torch._utils._rebuild_tensor_v2"), Inert("collections.OrderedDict"), {}]}
    assert vars(torch._utils._rebuild_tensor_v2) == before


def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"it carries code \(a TorchScript program\), of which nothing was run")


# --- numbers that do not add up


class View:
    """Pickled as a tensor of any storage, offset, size and strides."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (
            torch.ones(6)._typed_storage(),
            *self.parts,
            False,
            collections.OrderedDict(),
        )


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((0, (2, 4), (4, 1)), "a tensor in it ends at number 8 of a storage of 6"),
        ((5, (2,), (1,)), "ends at number 7 of a storage of 6"),
        ((0, (10**9,), (0,)), "its tensors add up to more than the file holds"),
        ((0, (10**9, 10**9), (0, 0)), "its tensors add up to more than the file holds"),
        ((-1, (2,), (1,)), "has the size"),
        ((0, (-1,), (1,)), "has the size"),
        ((3, (2,), (-1,)), "has the size"),
        ((0, (2, 2), (1,)), "is not made of a storage, a size and strides"),
        ((0.5, (2,), (1,)), "has the size"),
        ((0, "ab", (1, 1)), "has the size"),
        ((0, 3, 1), "it is damaged"),
    ],
)
@FORMATS
def test_tensors_beyond_their_storage_are_refused(parts, reason, legacy, tmp_path):
    refused(save({"a": View(*parts)}, tmp_path / "a.pt", legacy), reason)


@FORMATS
def test_containers_within_themselves_and_in_thousands_of_places(legacy, tmp_path):
    """A list that holds itself, and lists of lists of lists of which a copy would fill any memory."""
    loop = [1]
    loop.append(loop)
    many = [torch.ones(1)]
    for _ in range(60):
        many = [many] * 10
    found = read_tensors(save({"loop": loop, "many": many}, tmp_path / "a.pt", legacy))
    assert found["loop"][1] == Inert("a container that holds itself")
    for _ in range(60):
        assert found["many"][0] is found["many"][9]
        found["many"] = found["many"][0]


def test_a_storage_of_another_length_is_refused(tmp_path):
    path = save({"a": torch.ones(6)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changes = {
        "storage 0 has 20 bytes, not 6 of torch.float32": {"a/data/0": members["a/data/0"][:20]},
        "its data/0 is missing": {"a/data/0": None},
        "its numbers are big-endian": {"a/byteorder": b"big"},
        "it is a zip of .*, without a data.pkl": {"a/data.pkl": None},
    }
    for reason, change in changes.items():
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (members | change).items():
                if data is not None:
                    archive.writestr(name, data)
        refused(path, reason)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    refused(path, "its .* is compressed, which torch.save does not do")


def test_a_legacy_storage_of_another_length_is_refused(tmp_path):
    path = save({"a": torch.ones(6)}, tmp_path / "a.pt", legacy=True)
    data = path.read_bytes()
    path.write_bytes(data[:-32] + struct.pack("<q", 5) + data[-24:])
    refused(path, "storage .* has 5 numbers, not 6")
    path.write_bytes(data[:-1])
    refused(path, f"it is cut off: {len(data) - 1} bytes, and storage .* would end at {len(data)}")


def test_a_legacy_storage_of_two_lengths_is_refused(tmp_path):
    path = by_hand(b"}U\x01a" + STORAGE + b"K\x06tQ0" + STORAGE + b"K\x07tQs.", tmp_path / "a.pt", legacy=True)
    refused(path, "storage 0 has two sizes or kinds of number")


# --- files that are damaged, or something else


@FORMATS
def test_a_file_cut_off_anywhere_is_refused(honest, legacy, tmp_path):
    data = save(honest, tmp_path / "a.pt", legacy).read_bytes()
    for length in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:length])
        refused(tmp_path / "cut.pt", "empty" if length == 0 else "cut off|damaged|no PyTorch file")


def test_a_cut_off_zip_says_so(honest, tmp_path):
    data = save(honest, tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.pt", "it is cut off: a zip that lacks the directory at its end")


@FORMATS
def test_flipped_bytes_never_end_in_anything_but_an_answer(honest, legacy, tmp_path):
    """Whatever a byte becomes: the file reads, or is refused in a sentence."""
    data = save(honest, tmp_path / "a.pt", legacy).read_bytes()
    chance, answers = random.Random(0), collections.Counter()
    for _ in range(400):
        bent = bytearray(data)
        for _ in range(chance.choice([1, 1, 4])):
            bent[chance.randrange(min(len(data), 3000))] = chance.randrange(256)
        (tmp_path / "bent.pt").write_bytes(bent)
        try:
            answers[type(read_tensors(tmp_path / "bent.pt"))] += 1
        except CheckpointError:
            answers[CheckpointError] += 1
    assert set(answers) <= {dict, CheckpointError}
    assert answers[CheckpointError] > 50


def test_a_flipped_number_in_a_zip_is_refused(tmp_path):
    path = save({"a": torch.full((1000,), 1.5)}, tmp_path / "a.pt")
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5), struct.pack("<f", 2.5), 1))
    refused(path, "it is damaged .*CRC")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><title>Not found</title>", "it is no PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no PyTorch file"),
        (pickle.dumps({"a": 1}), "it is no PyTorch file"),
        (b"PK\x03\x04 and nothing more", "it is cut off"),
    ],
)
def test_other_files_are_refused(data, reason, tmp_path):
    (tmp_path / "a.pt").write_bytes(data)
    refused(tmp_path / "a.pt", reason)


def test_what_is_not_a_dictionary_is_refused(tmp_path):
    refused(save([torch.ones(1)], tmp_path / "a.pt"), "it holds list, not a dictionary")
    refused(save(torch.ones(1), tmp_path / "a.pt"), "it holds a tensor, not a dictionary")
    refused(save(nn.Linear(1, 1), tmp_path / "a.pt"), "it holds torch.nn.modules.linear.Linear, not a dictionary")


def test_no_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "none.pt", "there is no such file")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt", "it cannot be read")


# --- the pinned hash


def test_the_pinned_hash(tmp_path):
    path = save({"a": torch.ones(1)}, tmp_path / "a.pt")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(read_tensors(path, sha256=found.upper()), {"a": torch.ones(1)})
    refused(path, f"its sha256 is {found}; expected {'0' * 64}", sha256="0" * 64)


def test_the_hash_is_compared_before_anything_is_read(tmp_path):
    refused(save({"code": Call(os.system, ("true",))}, tmp_path / "a.pt"), "its sha256 is", sha256="0" * 64)


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bias": None}, "it lacks bias; expected the 5 tensors of BatchNorm1d"),
        ({"b": torch.ones(1), "c": torch.ones(1)}, "it also has b, c; expected"),
        ({"bias": torch.ones(4)}, r"bias has the shape \(4,\); expected \(3,\)"),
        ({"bias": 1.0}, r"bias is float; expected a tensor of shape \(3,\)"),
        ({"bias": Inert("foo.Bar")}, "bias is foo.Bar; expected a tensor"),
    ],
)
def test_tensors_that_do_not_fit_leave_the_module_as_it_was(change, reason):
    module = nn.BatchNorm1d(3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    tensors = {key: torch.full_like(value, 9) for key, value in before.items()} | change
    with pytest.raises(CheckpointError, match=f"^a.pt is refused: {reason}"):
        load_strictly(module, {key: value for key, value in tensors.items() if value is not None}, "x/a.pt")
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


@pytest.mark.parametrize("answer", [False, None, "", "yes", 1])
def test_nothing_is_fetched_without_a_yes(answer, server, tmp_path):
    """Only True is a yes: a function that returns what somebody typed is a mistake, not an agreement."""
    with pytest.raises(
        CheckpointError, match=r"base\.pt is refused: nobody agreed to its licence, so nothing was fetched"
    ):
        fetch(Offer(server.url, "For research only."), tmp_path / "cache", ask=lambda _: answer)
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


@pytest.mark.parametrize(
    ("change", "sha256", "reason"),
    [
        ({}, "0" * 64, f"what came has the sha256 {hashlib.sha256(Server.data).hexdigest()}; expected 0000"),
        ({"announced": 9000}, None, "only 7000 bytes of it came; expected 9000 bytes"),
        ({"url": "gone"}, None, "cannot be fetched .*404"),
        ({"url": "file:///no/such/file.pt"}, None, "cannot be fetched"),
    ],
)
def test_a_download_that_goes_wrong_leaves_nothing(change, sha256, reason, server, tmp_path):
    server.announced = change.get("announced", 7000)
    url = change.get("url", "base.pt")
    url = url if ":" in url else server.url.replace("base.pt", url)
    with pytest.raises(CheckpointError, match=reason):
        fetch(Offer(url, "", sha256), tmp_path, ask=lambda _: True)
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_is_asked_where_the_first_address_does_not_answer(server, tmp_path):
    digest = hashlib.sha256(Server.data).hexdigest()
    offer = Offer(server.url.replace("base.pt", "gone/base.pt"), "", digest, (server.url,))
    assert fetch(offer, tmp_path, ask=lambda _: True).read_bytes() == Server.data
    assert server.asked == 2


def test_a_file_of_this_machine(tmp_path):
    path = save({"a": torch.ones(1)}, tmp_path / "a.pt")
    assert same(
        read_tensors(fetch(Offer(path.as_uri(), ""), tmp_path / "cache", ask=lambda _: True)), {"a": torch.ones(1)}
    )


@pytest.mark.parametrize(("typed", "agreed"), [("yes", True), ("YES ", True), ("y", False), ("", False), ("no", False)])
def test_on_a_terminal_only_the_word_yes_is_a_yes(typed, agreed, monkeypatch, capsys):
    monkeypatch.setattr(builtins, "input", lambda _: typed)
    assert ask_on_terminal("For research only.") is agreed
    assert "For research only." in capsys.readouterr().err


def test_without_a_terminal_nobody_says_yes(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert ask_on_terminal("For research only.") is False
