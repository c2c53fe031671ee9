"""Packs give back what was packed, and the run for a GPU goes through on the CPU at tiny size, cut in two calls."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.geometry.crops import S
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import data, distill, prepare, rows
from syncdiff.training.lip_heads import ConvHead
from syncdiff.training.teacher import LAYERS
from tests import test_teacher
from tools import gpu, packs

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 60
CLIPS = {"addresses": 3, "grid-s1": 2, "puppets": 2, "speech": 2}


def face(gap: float) -> np.ndarray:
    """The kept landmarks [45, 2] of a drawn face whose lips are `gap` px apart."""
    turn = np.linspace(np.pi, -np.pi, 20, endpoint=False)
    outer = np.stack([64 + 20 * np.cos(turn), 92 + (8 + gap / 2) * np.sin(turn)], 1)
    inner = np.stack([64 + 14 * np.cos(turn), 92 + gap / 2 * np.sin(turn)], 1)
    return np.concatenate([outer, inner, [(64, 124), (64, 76), (64, 66), (35, 42), (93, 42)]])


def clip(folder: Path, name: str, seed: int, *, filmed: bool, curves: bool) -> None:
    rng = np.random.default_rng(seed)
    gap = 1 + 8 * np.convolve(rng.uniform(0, 1, FRAMES + 4), np.ones(5) / 5, "valid")
    loud = np.repeat(gap, SAMPLE_RATE // prepare.FPS)
    tone = np.sin(2 * np.pi * 300 * np.arange(len(loud)) / SAMPLE_RATE)
    arrays = {"sound": 0.02 * loud * (tone + 0.2 * rng.normal(size=len(loud)))}
    if filmed:
        points = np.stack([face(g) for g in gap]).astype(np.float16)
        pictures = rng.integers(0, 255, (FRAMES, 8, 8, 3), dtype=np.uint8).repeat(S // 8, 1).repeat(S // 8, 2)
        prepare.write_crops(folder / f"{name}.mp4", pictures)
        arrays |= {"points": points, "good": np.ones(FRAMES, bool), "scale": np.ones(FRAMES, np.float16)}
    if curves:
        arrays["visemes"] = rng.uniform(0, 1, (FRAMES, 15)).astype(np.float16)
    prepare._save(folder / name, **arrays)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    people = [f"person {i}" for i in range(20) if data.split_of(f"person {i}") == "generator"]
    for name, count in CLIPS.items():
        (root / name).mkdir()
        lines = ["clip\tidentity"]
        for i in range(count):
            clip(root / name, f"c{i}", i, filmed=name != "speech", curves=name == "puppets")
            lines.append(f"c{i}\t{people[i]}")
        (root / name / "identities.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    made = {name: 0.05 * rng.normal(size=a.shape).astype(a.dtype) for name, a in test_teacher.whisper().items()}
    made[f"encoder/layer_{LAYERS}/ffn/linear_0/weight"] = np.ones((700, 700), np.float32)  # not read
    return test_teacher.write(tmp_path_factory.mktemp("teacher") / "model.bin", made)


def test_packs_give_back_crops_bit_for_bit_and_sound_as_heard(prepared, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "PIECE", 300_000)
    count = packs.pack(prepared, tmp_path / "packs", teacher, size=0.6)
    found = sorted((tmp_path / "packs").iterdir())
    assert len(found) == count > 2
    assert all((folder / "data.zip").stat().st_size <= 0.6 * packs.MIB for folder in found)
    packs.unpack(found, tmp_path / "data")
    for name, clips in CLIPS.items():
        were, are = data.load_set(prepared, name), data.load_set(tmp_path / "data", name)
        assert [r.identity for r in are] == [r.identity for r in were]
        assert len(are) == clips
        for before, after in zip(were, are, strict=True):
            assert len(after.sound) == len(before.sound)
            error = after.sound.astype(float) - before.sound
            assert np.square(error).mean() < 0.1 * np.square(before.sound.astype(float)).mean()
            for key in ("points", "visemes", "good"):
                assert np.array_equal(getattr(before, key), getattr(after, key)), key
        if were[0].points is not None:
            crops = [data.load_crops(root, some)[0] for root, some in ((prepared, were), (tmp_path / "data", are))]
            assert np.array_equal(*crops)
    whole, rest = distill.teacher_in(teacher), distill.teacher_in(tmp_path / "data" / packs.TEACHER)
    assert torch.equal(whole(torch.ones(8000)), rest(torch.ones(8000)))
    assert (tmp_path / "data" / packs.TEACHER).stat().st_size < teacher.stat().st_size - 4 * 700 * 700


def test_packing_goes_on_where_it_was_cut_off(prepared, tmp_path):
    whole = packs.pack(prepared, tmp_path / "whole", size=0.3)
    assert packs.pack(prepared, tmp_path / "cut", size=0.3, folders=1) == 1
    assert packs.pack(prepared, tmp_path / "cut", size=0.3) == whole
    both = []
    for folder in ("whole", "cut"):  # an Ogg file has a random number in its head: names and sizes are compared
        files = [zipfile.ZipFile(path) for path in sorted((tmp_path / folder).glob("*/data.zip"))]
        both.append([[(entry.filename, entry.file_size) for entry in file.infolist()] for file in files])
    assert both[0] == both[1]
    assert len({name for pack in both[0] for name, _ in pack}) == sum(map(len, both[0]))  # nothing twice


def test_what_cannot_be_packed_or_unpacked_is_told_in_a_sentence(prepared, tmp_path):
    with pytest.raises(InputError, match="holds no prepared clips of addresses, "):
        packs.pack(tmp_path, tmp_path / "packs")
    with pytest.raises(InputError, match="give --size of more"):
        packs.pack(prepared, tmp_path / "packs", size=0.001)
    with pytest.raises(InputError, match="is no whole pack"):
        packs.unpack([tmp_path], tmp_path / "data")
    with pytest.raises(InputError, match="lacks pieces"):
        gpu.join(tmp_path, tmp_path / "joined")


def test_the_script_needs_no_package_that_the_machine_lacks():
    """PyAV, mediapipe and the page's packages are not there, and nothing can be fetched."""
    missing = ("av", "mediapipe", "gradio", "c2pa", "face_alignment", "moviepy", "spaces", "lpips", "jiwer")
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def lacking(name, path=None, target=None):
    return None if name.split(".")[0] in {missing} else find(name, path, target)
PathFinder.find_spec = lacking
import tools.gpu
print(type(sys.modules["av"].__loader__).__name__, [m for m in {missing[1:]} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Absent []", done.stderr[-2000:]


def small(monkeypatch) -> list[str]:
    """Everything tiny; returns the options of `run` for it."""
    monkeypatch.setattr(distill, "POSITIONS", 50)
    monkeypatch.setattr(distill, "HEADS", (ConvHead,))
    monkeypatch.setattr(distill, "COMPONENTS", 200)
    monkeypatch.setattr(distill, "BATCH", 2)
    monkeypatch.setattr(distill, "fit_head", partial(distill.fit_head, steps=2))
    monkeypatch.setattr(distill, "SpeechEncoder", lambda: SpeechEncoder(width=32, layers=1, hidden=8))
    monkeypatch.setattr(gpu, "REPEATS", 1)
    monkeypatch.setattr(gpu, "RESULT_PIECE", 300_000)
    tiny = replace(gpu.train.PRESETS["tiny"], updates=2, batch=2, helper_updates=1)
    monkeypatch.setitem(gpu.train.PRESETS, "tiny", tiny)
    return ["--preset", "tiny", "--paper", "paper-tiny", "--workers", "0", "--speech-steps", "3"]


def test_the_whole_run_in_two_calls(prepared, teacher, tmp_path, monkeypatch):
    given = [*small(monkeypatch), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    gpu.main(["pack", str(prepared), str(tmp_path / "packs"), "--teacher", str(teacher)])
    gpu.main(["run", *map(str, sorted((tmp_path / "packs").iterdir())), *given, "--minutes", "0"])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["paper, seconds a step, fp32"] > 0  # the proof alone: a training that could only begin waits
    assert not (tmp_path / "work" / "speech").exists()
    (tmp_path / "out" / "results.tar.9of9").write_bytes(b"of a call before")
    ablated = ["log mel", "random", "random + bottlenecked previous"]
    gpu.main(["run", *given, "--ablation", *ablated, "--ablation-updates", "2"])
    gpu.main(["join", str(tmp_path / "out"), str(tmp_path / "joined")])
    found = json.loads((tmp_path / "joined" / "results.json").read_text())
    assert [found[f"{name}, update"] for name in ("speech", "denoiser", *ablated)] == [3, 2, 2, 2, 2]
    assert all(rows.state_of(name, tmp_path / "joined" / "ablation")["samples"] == 2 for name in ablated)
    assert found["tests"] == ("not run: no CUDA GPU" if not torch.cuda.is_available() else found["tests"])
    assert not [name for name in found if "failed" in name]
    assert len(list((tmp_path / "out").glob("results.tar.*"))) > 1
    for folder, kind in (("speech/speech", SpeechEncoder), ("net/denoiser", Denoiser)):
        trained, kept = (kind.from_pretrained(tmp_path / root / folder).parameters() for root in ("work", "joined"))
        assert all(torch.equal(a.half(), b.half()) for a, b in zip(trained, kept, strict=True))


@pytest.mark.weights
def test_a_step_that_fails_takes_nothing_else_with_it(prepared, tmp_path, monkeypatch):
    """Nor is a teacher needed: the denoiser then learns with the shipped encoder."""
    given = [*small(monkeypatch), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(gpu, "PaperDenoiser", None)
    monkeypatch.setattr(gpu, "compact_times", dict)
    gpu.main(["pack", str(prepared), str(tmp_path / "packs"), "--size", "12", "--folders", "1"])
    gpu.main(["run", str(tmp_path / "packs" / "pack-01"), *given])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "TypeError: 'NoneType' object is not callable" in found["paper, failed"]
    assert found["denoiser, update"] == 2
    gpu.main(["join", str(tmp_path / "out"), str(tmp_path / "joined")])
    assert (tmp_path / "joined" / "net" / "denoiser" / "config.json").exists()
    assert not (tmp_path / "joined" / "speech").exists()
