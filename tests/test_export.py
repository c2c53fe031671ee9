"""Training's folders become the product's: half precision, and in every file the record of its own training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import export


def records(folder: Path) -> dict[str, dict]:
    found = {}
    for path in folder.glob("*/*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found[path.parent.name] = json.loads(file.metadata()["record"])
    return found


def test_each_file_tells_of_its_own_training(tmp_path, monkeypatch):
    speech, net, out = tmp_path / "speech", tmp_path / "net", tmp_path / "out"
    SpeechEncoder(width=16, layers=1).save_pretrained(speech / "speech")
    torch.save({"update": 7, "samples": 112}, speech / "state.pt")
    denoiser = Denoiser(widths=(16, 32), speech_width=16)
    denoiser.save_pretrained(net / "denoiser")
    torch.save({"update": 5, "samples": 160}, net / "state.pt")
    notes = ["--note", "drawn", "--speech-note", "heard"]
    monkeypatch.setattr("sys.argv", ["ship", str(speech), str(net), str(out), *notes])
    export.main()
    assert records(out) == {
        "speech": {"updates": 7, "samples": 112, "note": "heard"},
        "denoiser": {"updates": 5, "samples": 160, "note": "drawn"},
    }
    again = Denoiser.from_pretrained(out / "denoiser")
    for name, weight in denoiser.state_dict().items():
        assert torch.equal(again.state_dict()[name].half(), weight.half()), name

    newer = tmp_path / "newer"
    SpeechEncoder(width=16, layers=2).save_pretrained(newer / "speech")
    torch.save({"update": 9, "samples": 144}, newer / "state.pt")
    monkeypatch.setattr("sys.argv", ["export", str(newer), str(out), str(out), "--speech-note", "heard again"])
    export.main()  # beside a denoiser that stays as it is
    assert records(out)["speech"] == {"updates": 9, "samples": 144, "note": "heard again"}
    assert records(out)["denoiser"] == {"updates": 5, "samples": 160, "note": "drawn"}
    same = Denoiser.from_pretrained(out / "denoiser").state_dict()
    assert all(torch.equal(same[name], weight) for name, weight in again.state_dict().items())
