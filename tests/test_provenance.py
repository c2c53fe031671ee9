"""Label, watermark and manifest: written, copied the hard way, read back; and not seen where they are not."""

from __future__ import annotations

import http.server
import json
import math
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from syncdiff.cli import main
from syncdiff.errors import InputError
from syncdiff.geometry.crops import S, mouth_mask
from syncdiff.media import read_clip
from syncdiff.progress import finished
from syncdiff.provenance import manifest, watermark
from syncdiff.provenance.label import SEEN_CORRELATION, label, label_likeness
from syncdiff.provenance.manifest import credentials, read_manifest, sign
from syncdiff.provenance.verify import verify
from syncdiff.provenance.watermark import Watermark
from tools.watermark import Examined, re_encode, table, with_other_keys, write_marked

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"


# ---- the watermark


def test_the_mark_is_faint_colour_inside_the_mask_only() -> None:
    crop = np.full((S, S, 3), (200, 160, 140), np.uint8)
    mark = Watermark()
    change = np.stack([mark.mark(crop, t).astype(float) - crop for t in np.arange(0, 1.6, 0.04)])
    assert np.abs(change[:, ~mouth_mask()]).max() == 0
    luma = change @ (0.299, 0.587, 0.114)
    assert np.abs(luma).max() < 1  # not one grey level, rounding included
    assert np.sqrt((luma**2).mean()) < 0.25
    colour = change[..., 2][:, mouth_mask()] / watermark.TO_RGB[2]
    assert np.sqrt((colour**2).mean()) == pytest.approx(watermark.STRENGTH, rel=0.1)
    assert 10 * np.log10(255**2 / (change[:, mouth_mask()] ** 2).mean()) > 41
    assert np.abs(change.mean(0)).max() < 0.5  # over two periods nothing stays


def test_time_counts_not_frames(subtests) -> None:
    """Any frame rate, and a copy that begins later."""
    mark, crop = Watermark(), np.full((S, S, 3), (200, 160, 140), np.uint8)
    for rate, late in [(25, 0.0), (29.97, 0.13), (60, 0.31), (15, 0.5)]:
        with subtests.test(rate=rate, late=late):
            times = np.arange(0, 3, 1 / rate)
            seen = np.stack([watermark.crop_features(mark.mark(crop, t + late)) for t in times])
            faces = [watermark.soft_chips(seen, times, np.zeros(len(times), int))]
            reading = watermark.detect(faces)
            assert reading.found
            assert reading.agreement > 0.95
            assert reading.seconds == pytest.approx(3.0, abs=0.07)
            assert not any(other.found for other in with_other_keys(faces, 20))  # with another key it is noise


def test_too_short_and_gaps() -> None:
    times = np.arange(50) / 25
    run = np.where(np.arange(50) % 10 == 9, -1, np.arange(50) // 10)  # a gap every 0.4 s
    reading = watermark.detect([watermark.soft_chips(np.ones((50, watermark.PATTERNS), np.float32), times, run)])
    assert (reading.found, reading.z, reading.seconds) == (False, 0.0, 0.0)
    assert not watermark.detect([]).found


def test_chance_keeps_to_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of any shape, real correlations included, is found no more often than stated."""
    rng, size = np.random.default_rng(0), (watermark.SHIFTS, watermark.CHIPS)
    kinds = [rng.normal(size=size), rng.standard_t(2, size), np.cumsum(rng.normal(size=size), axis=1)]
    needed = watermark.detect([(kinds[0], 1.0)]).needed
    assert 3.178 * watermark.SHIFTS * math.erfc(needed / math.sqrt(2)) / 2 == pytest.approx(1e-6, rel=1e-3)
    assert not any(reading.found for soft in kinds for reading in with_other_keys([(soft, 1.0)], 200))
    monkeypatch.setattr(watermark, "FALSE_ALARMS", 0.1)
    for soft in kinds:
        found = sum(reading.found for reading in with_other_keys([(soft, 1.0)], 200))
        assert found <= 0.1 * 200


# ---- the whole way


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.4 s of an example head at 480 px, its own mouth marked and pasted back, labelled, written by our writer."""
    folder = tmp_path_factory.mktemp("marked")
    clip = finished(read_clip(EXAMPLES / "malik.mp4", folder, until=2.4))
    write_marked(clip, folder / "marked.mp4", Watermark())
    return folder / "marked.mp4"


def test_verify_finds_all_three_in_what_we_write(marked: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video = shutil.copy(marked, tmp_path / "out.mp4")
    sign(video, labelled=True)
    assert main(["verify", str(video), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ours"] is True
    assert report["label"] == "seen"
    assert report["watermark"]["found"] is True
    assert report["manifest"]["state"] == "self-signed"
    assert report["verdict"] == "The lips in this video were redrawn by AI, with syncdiff."


def test_mark_and_label_survive_a_copy_of_half_the_size_at_crf_28(marked: Path, tmp_path: Path) -> None:
    found = verify(re_encode(marked, tmp_path / "copy.mp4", half=True))
    assert found.label == "seen"
    assert found.manifest.state == "none"  # that one does not survive, and is said to be none
    assert found.watermark.found
    assert found.ours


def test_the_table_of_what_came_through() -> None:
    found = watermark.WatermarkReading(True, 9.6, 5.61, 0.9, 3.0)
    missed = watermark.WatermarkReading(False, 4.2, 5.61, 0.6, 3.0)
    copies = {"own": found, "CRF 28": found, "half size, CRF 28": missed}
    row, sums, _, last = table([Examined("a.mp4", 1.25, copies, missed, [missed] * 20)]).splitlines()[2:]
    assert row == "| a.mp4 | 1.2 | 3.0 | found, 9.6, 90% | found, 9.6, 90% | missed, 4.2, 60% | 4.2 |"
    assert "| 1 of 1, 90% | 1 of 1, 90% | 0 of 1, 60% | at most 4.2 |" in sums
    assert "20 readings" in last
    assert last.endswith("z at most 4.20, 0 found.")


def test_an_unmarked_video_shows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(EXAMPLES / "ines.mp4")]) == 0
    verdict, *sentences = capsys.readouterr().out.splitlines()
    assert verdict.startswith("No sign of syncdiff was found. That does not prove the video genuine")
    assert [sentence.split(":")[0] for sentence in sentences] == ["Label", "Invisible watermark", "C2PA manifest"]
    assert "none was found in 3.4 s of face" in sentences[1]


# ---- any file


def test_other_files_are_answered(tmp_path: Path, private_temp: Path, subtests) -> None:
    for content in [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", bytes(4096)]:
        with subtests.test(content=content):
            path = tmp_path / "odd.mp4"
            path.write_bytes(content)
            found = verify(path)
            assert not found.ours
            assert found.label == "not checked"
            assert found.watermark is None
            assert found.manifest.state == "none"
            assert "the picture could not be read" in found.verdict
            assert json.loads(json.dumps(found.report()))["watermark"] is None
            assert not any(private_temp.iterdir())


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.mp4"):
        with pytest.raises(InputError, match="is not a file"):
            verify(path)


# ---- the signed note


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    video = Path(shutil.copy(EXAMPLES / "ines.mp4", tmp_path / "signed.mp4"))
    sign(video, labelled=False)
    assert [path.name for path in tmp_path.iterdir()] == ["signed.mp4"]
    return video


def test_the_note_comes_back_and_the_video_plays_as_before(signed: Path) -> None:
    found = read_manifest(signed)
    assert (found.state, found.ours, found.redrawn, found.labelled) == ("self-signed", True, True, False)
    assert found.maker.startswith("syncdiff ")
    with av.open(str(signed)) as ours, av.open(str(EXAMPLES / "ines.mp4")) as theirs:
        for a, b in zip(ours.demux(video=0), theirs.demux(video=0), strict=True):
            assert bytes(a) == bytes(b)


def test_the_note_holds_nothing_of_the_visitor(signed: Path) -> None:
    with c2pa.Reader(str(signed)) as reader:
        told = json.loads(reader.json())
    (only,) = told["manifests"].values()
    assert "thumbnail" not in only
    assert "ingredients" not in only
    assert "time" not in only["signature_info"]
    actions = next(a for a in only["assertions"] if a["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert [action["action"] for action in actions] == ["c2pa.created", "c2pa.edited"]
    assert {action["digitalSourceType"] for action in actions} == {manifest.SOURCE}
    assert "signed.mp4" not in json.dumps(told)
    assert "ines" not in json.dumps(told)


@pytest.mark.parametrize(("where", "after"), [(b"mdat", 20_000), (b"Lips redrawn by a trained", 3), (b"jumdc2pa", -4)])
def test_one_changed_byte_is_seen(signed: Path, where: bytes, after: int) -> None:
    data = bytearray(signed.read_bytes())
    data[data.index(where) + after] ^= 1
    signed.write_bytes(data)
    found = read_manifest(signed)
    assert found.state == "tampered"
    assert found.why


def test_a_file_cut_short(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(signed.read_bytes()[:-5000])
    assert read_manifest(tmp_path / "a.mp4").state == "tampered"
    (tmp_path / "b.mp4").write_bytes((EXAMPLES / "ines.mp4").read_bytes()[:-5000])
    assert read_manifest(tmp_path / "b.mp4").state == "none"  # damaged, but nobody had signed it


def test_a_signature_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = Path(shutil.copy(EXAMPLES / "ines.mp4", tmp_path / "a.mp4"))
    before = video.read_bytes()
    (tmp_path / "key.pem").write_text("no key")
    monkeypatch.setenv(manifest.KEY, str(tmp_path / "key.pem"))
    with pytest.raises(InputError, match="set both"):
        credentials()
    monkeypatch.setenv(manifest.CERTIFICATE, str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=r"none\.pem cannot be read"):
        credentials()
    monkeypatch.setenv(manifest.CERTIFICATE, str(tmp_path / "key.pem"))
    with pytest.raises(InputError, match="cannot be signed"):
        sign(video, labelled=True)
    assert video.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "key.pem"]


def test_a_host_signs_with_its_own_key_and_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = credentials()
    names = {manifest.CERTIFICATE: ours.chain, manifest.KEY: ours.key}
    for name, pem in names.items():
        (tmp_path / name).write_bytes(pem)
        monkeypatch.setenv(name, str(tmp_path / name))
    video = Path(shutil.copy(EXAMPLES / "ines.mp4", tmp_path / "a.mp4"))
    sign(video, labelled=True)
    assert read_manifest(video).state == "self-signed"
    root = b"-----BEGIN" + ours.chain.split(b"-----BEGIN")[2]
    (tmp_path / "root.pem").write_bytes(root)
    monkeypatch.setenv(manifest.TRUST, str(tmp_path / "root.pem"))
    found = read_manifest(video)
    assert (found.state, found.labelled) == ("trusted", True)


def test_reading_asks_no_network(tmp_path: Path) -> None:
    """A note may name a place on the web where it lies: whoever verifies must not be led there."""
    asked = []

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ours, path = credentials(), tmp_path / "far.jpg"
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "near.jpg")
        info = c2pa.C2paSignerInfo(ours.algorithm, ours.chain, ours.key, None)
        made = {"actions": [{"action": "c2pa.created", "digitalSourceType": manifest.SOURCE}]}
        stated = {
            "claim_generator_info": [{"name": "syncdiff", "version": "0"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": made}],
        }
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(stated) as builder:
            builder.set_no_embed()
            builder.set_remote_url(f"http://127.0.0.1:{server.server_port}/note")
            builder.sign_file(str(tmp_path / "near.jpg"), str(path), signer)
        assert b"/note" in path.read_bytes()
        assert not asdict(read_manifest(path))["ours"]
        assert asked == []
    finally:
        server.shutdown()


# ---- the label


def test_the_label_scales_and_is_seen_on_any_ground(subtests) -> None:
    for width, height in [(1920, 1080), (1280, 720), (720, 1280), (640, 480), (480, 480), (224, 224)]:
        for ground in [0, 128, 255]:
            with subtests.test(width=width, height=height, ground=ground):
                plate = label(width, height)
                h, w = plate.rgb.shape[:2]
                assert not any(side % 2 for side in (plate.y, plate.x, h, w))
                assert plate.x + w <= width * 0.6
                assert plate.y + h <= height / 4
                assert h >= 0.03 * min(width, height)
                image = np.full((height, width, 3), ground, np.uint8)
                assert label_likeness([image]) < SEEN_CORRELATION
                image[plate.y : plate.y + h, plate.x : plate.x + w] = plate.rgb
                assert label_likeness([image]) > 0.95
                assert label_likeness([image[::2, ::2]]) > SEEN_CORRELATION


def test_no_label_where_it_would_fill_the_frame() -> None:
    assert label(96, 96) is None


def test_other_corners_are_not_taken_for_the_label() -> None:
    rng = np.random.default_rng(0)
    other = Image.new("RGB", (640, 480), (28, 28, 28))
    ImageDraw.Draw(other).text((14, 12), "Live from the studio", fill=(235, 235, 235), font=ImageFont.load_default(15))
    with av.open(str(EXAMPLES / "tomas.mp4")) as container:
        head = next(container.decode(video=0)).to_ndarray(format="rgb24")
    for image in (rng.integers(0, 256, (480, 640, 3), np.uint8), np.asarray(other), head):
        assert label_likeness([image]) < SEEN_CORRELATION - 0.1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_signing_a_long_film_does_not_hold_it_in_memory(tmp_path: Path) -> None:
    """96 MiB more of pictures than a small film has, in a box of their own, cost under 24 MiB (192 before)."""
    video = Path(shutil.copy(EXAMPLES / "ines.mp4", tmp_path / "a.mp4"))
    large = tmp_path / "large.mp4"
    size = 96 * 2**20
    large.write_bytes(video.read_bytes() + (size + 8).to_bytes(4, "big") + b"mdat" + bytes(size))
    code = """
import re, sys
from pathlib import Path
from syncdiff.provenance.manifest import sign
for path in sys.argv[1:]:
    sign(Path(path), labelled=True)
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    command = [sys.executable, "-c", code, str(video), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, long = map(int, done.stdout.split())
    assert (long - small) / 1024 < 24
    assert read_manifest(large).redrawn
    with large.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    assert read_manifest(large).state == "tampered"
