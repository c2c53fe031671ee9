"""Training's folders become the product's: half precision, and in every file the record of its own training."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open

from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import export


def test_each_file_tells_of_its_own_training(tmp_path, monkeypatch):
    speech, net, out = tmp_path / "speech", tmp_path / "net", tmp_path / "out"
    SpeechEncoder(width=16, layers=1).save_pretrained(speech / "speech")
    torch.save({"step": 7}, speech / "state.pt")
    denoiser = Denoiser(widths=(16, 32), speech_width=16)
    denoiser.save_pretrained(net / "denoiser")
    torch.save({"update": 5, "samples": 160}, net / "state.pt")
    notes = ["--note", "drawn", "--speech-note", "heard"]
    monkeypatch.setattr("sys.argv", ["ship", str(speech), str(net), str(out), *notes])
    export.main()
    found = {}
    for path in out.glob("*/*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found[path.parent.name] = json.loads(file.metadata()["record"])
    assert found == {
        "speech": {"updates": 7, "note": "heard"},
        "denoiser": {"updates": 5, "samples": 160, "note": "drawn"},
    }
    again = Denoiser.from_pretrained(out / "denoiser")
    for name, weight in denoiser.state_dict().items():
        assert torch.equal(again.state_dict()[name].half(), weight.half()), name
