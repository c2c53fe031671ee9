"""What strangers send: each file here ends in one sentence, quickly, with nothing leaked, left behind or run."""

import os
import re
import shutil
import signal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from syncdiff.errors import InputError
from syncdiff.media import LIMITS, Limits, open_clip, open_speech
from syncdiff.media.filetype import sniff
from tests.media_fixtures import make_sound, make_video, numbered


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The private folder of a request; whatever was refused must leave it empty."""
    folder = tmp_path / "job"
    folder.mkdir()
    yield folder
    assert not list(folder.iterdir())


def refused(kind: str, path: Path, job: Path, *words: str, limits: Limits = LIMITS) -> str:
    """The sentence, which must be one, name the file and say the words."""
    with pytest.raises(InputError) as caught:
        {"face": open_clip, "voice": open_speech}[kind](path, job, limits)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert str(job) not in sentence
    for word in words:
        assert re.search(word, sentence), sentence
    return sentence


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real video that is no upload and must never be decoded in the name of one."""
    return make_video(tmp_path_factory.mktemp("secret") / "secret.ts", 25, clicks=[0.5])


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n"
SCRIPTS = {
    "hls, local segment": HLS + "#EXT-X-ENDLIST\n",
    "hls, file segment": HLS.replace("{}", "file:{}") + "#EXT-X-ENDLIST\n",
    "hls, no end": HLS,
    "hls, http": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "concat, no header": "file '{}'\nduration 1\n",
    "dash": '<?xml version="1.0"?>\n<MPD type="static"><Period><BaseURL>{}</BaseURL></Period></MPD>',
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{}"/></svg>',
    "shell": "#!/bin/sh\ntouch PWNED\n",
    "text": "this is not a video\n",
    "ffmetadata": ";FFMETADATA1\ntitle=x\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:10,000\nhello\n",
}


@pytest.mark.parametrize("kind", ["face", "voice"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_and_playlists_under_a_videos_name(
    name: str, kind: str, tmp_path: Path, job: Path, secret: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text(SCRIPTS[name].replace("{}", str(secret)))
    refused(kind, path, job, "clip.mp4", "is a (playlist|text file|program)", "give (an mp4|a wav)")
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize(
    "prefix", [b"", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", b"RIFF\xff\xff\x00\x00AVI ", b"G" + bytes(187)]
)
def test_a_playlist_behind_the_first_bytes_of_a_video(prefix: bytes, tmp_path: Path, job: Path, secret: Path) -> None:
    """The demuxer is chosen by the first bytes and no other may follow it, whatever the rest looks like."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(prefix + SCRIPTS["hls, local segment"].replace("{}", str(secret)).encode() + bytes(4096))
    refused("face", path, job, "clip.mp4")


def test_ffmpeg_would_have_followed_the_playlist(tmp_path: Path, secret: Path) -> None:
    """The attack is real: opened without our precautions, the playlist shows another file's pictures."""
    path = tmp_path / "clip.m3u8"
    shutil.copy(secret, tmp_path)
    path.write_text(SCRIPTS["hls, local segment"].replace("{}", secret.name))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).width == 160


@pytest.mark.parametrize("kind", ["face", "voice"])
def test_empty_and_noise(kind: str, tmp_path: Path, job: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(kind, tmp_path / "empty.mp4", job, "empty", "0 bytes")
    noise = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    (tmp_path / "noise.mp4").write_bytes(noise.tobytes())
    refused(kind, tmp_path / "noise.mp4", job, "no known kind")


KINDS = {
    "a Windows Media file": "3026b2758e66cf11", "a Flash video": "464c5601", "an MXF video": "060e2b3402050101",
    "an MPEG program stream": "000001ba", "a video without a container": "0000000167",
    "a HEIC photo": "000000186674797068656963", "a TIFF picture": "49492a00", "a BMP picture": "424d5000000000000000",
    "a JPEG XL photo": "ff0a", "a JPEG 2000 photo": "0000000c6a502020", "a Photoshop picture": "38425053",
    "a WavPack sound": "7776706b", "a DTS sound": "7ffe8001", "a PDF": "255044462d312e370a00",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "instead"), [("face", "an mp4, .*webp or avif photo"), ("voice", "a wav, mp3, ")])
def test_other_kinds_are_named(kind: str, instead: str, tmp_path: Path, job: Path) -> None:
    for words, first in KINDS.items():
        (tmp_path / "a.bin").write_bytes(bytes.fromhex(first) + bytes(100))
        refused(kind, tmp_path / "a.bin", job, f"'a.bin' is {words}.*; give {instead}")


# ---- bombs


def png_bytes(side: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_huge_photo(tmp_path: Path, job: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_bytes(16_000))
    refused("face", tmp_path / "bomb.png", job, "16000x16000", "51 million pixels")


@pytest.mark.parametrize("said", [16_000, 160])  # the size in the container's header: the truth, or a lie
def test_a_huge_video(said: int, tmp_path: Path, job: Path) -> None:
    path = tmp_path / "bomb.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width = stream.height = said
        stream.pix_fmt = "rgb24"
        packet = av.Packet(png_bytes(16_000))
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        out.start_encoding()
        out.mux(packet)
    refused("face", path, job, "9 million pixels")


def test_a_video_that_grows_on_the_way(tmp_path: Path, job: Path) -> None:
    """VP8 says its size in every key frame: here the first one suddenly claims 16000x16000."""
    path = make_video(tmp_path / "grow.webm", 5, codec="libvpx", options={"g": "1"})
    data = path.read_bytes()
    key = data.index(b"\x9d\x01\x2a")
    path.write_bytes(data[: key + 3] + (16_000).to_bytes(2, "little") * 2 + data[key + 7 :])
    try:
        clip = open_clip(path, job)
    except InputError as error:
        assert "grow.webm" in str(error)  # noqa: PT017
    else:
        assert (clip.width, clip.height) == (160, 96)
        for file in clip.path.parent.iterdir():
            file.unlink()
        clip.path.parent.rmdir()


@pytest.mark.parametrize("suffix", ["mp4", "ts"])  # mp4 says its length in the header, ts has to be counted
def test_too_long_a_video(suffix: str, tmp_path: Path, job: Path) -> None:
    path = make_video(tmp_path / f"long.{suffix}", 100)
    refused("face", path, job, "long", "1 s", limits=Limits(seconds=1.0))


def test_too_many_frames_in_no_time(tmp_path: Path, job: Path) -> None:
    path = make_video(tmp_path / "fast.mkv", 120, rate=1000)
    refused("face", path, job, "more than 50 pictures", limits=Limits(seconds=1.0, rate=50.0))
    refused("face", path, job, "shows 1000 frames a second", "250")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_too_long_a_sound(name: str, tmp_path: Path, job: Path) -> None:
    path = make_sound(tmp_path / name, 4.0, codec="pcm_s16le" if name == "a.wav" else "libmp3lame")
    refused("voice", path, job, "longer than 1 s", limits=Limits(seconds=1.0))


def test_a_gap_in_the_sound_is_not_filled_without_end(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "gap.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for second in (0, 100_000):
            samples = np.resize(np.int16([9999, -9999]), (1, 9600))
            sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            sound.sample_rate, sound.pts = 48_000, second * 48_000
            out.mux(stream.encode(sound))
    speech = open_speech(tmp_path / "gap.mkv", tmp_path)
    assert speech.seconds == pytest.approx(0.4, abs=0.01)
    assert "jumps 1 time" in speech.notes[0]


def test_too_large_an_upload(tmp_path: Path, job: Path) -> None:
    path = tmp_path / "big.mp4"
    with path.open("wb") as file:
        file.truncate(300 * 2**20)  # a hole: it takes no disk
    refused("face", path, job, "300 MiB", "200 MiB")


# ---- the wrong thing in the wrong place


def test_sound_in_the_video_slot(tmp_path: Path, job: Path) -> None:
    refused("face", make_sound(tmp_path / "a.wav"), job, "sound but no picture")
    refused("face", make_sound(tmp_path / "a.mp4", codec="aac"), job, "sound but no picture")


def test_a_song_with_a_cover_is_still_a_sound(tmp_path: Path, job: Path) -> None:
    path = make_sound(tmp_path / "a.mp3", codec="libmp3lame")
    cover = png_bytes(64)
    body = b"\x00image/png\x00\x03\x00" + cover
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + size + frame + path.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video
    refused("face", path, job, "sound but no picture")


def test_no_sound_in_the_voice_slot(tmp_path: Path, job: Path) -> None:
    refused("voice", make_video(tmp_path / "mute.mp4", 5), job, "without sound")
    Image.fromarray(numbered(1, 160, 96)).save(tmp_path / "a.png")
    refused("voice", tmp_path / "a.png", job, "picture", "no sound")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_too_short_a_voice(name: str, tmp_path: Path, job: Path) -> None:
    path = make_sound(tmp_path / name, 0.1, [0.05], codec="flac" if name == "a.flac" else "pcm_s16le")
    refused("voice", path, job, r"0\.10 s", r"0\.3 s")


@pytest.mark.parametrize(
    ("loudness", "offset", "said"),
    [(0, 0, "every sample is the same"), (0, 9000, "every sample is the same"), (2, 9000, "-8[0-9] dB")],
)
def test_a_silent_voice(loudness: int, offset: int, said: str, tmp_path: Path, job: Path) -> None:
    samples = (offset + np.random.default_rng(0).integers(-loudness, loudness + 1, (48_000, 1))).astype(np.int16)
    refused("voice", make_sound(tmp_path / "a.wav", samples=samples), job, "silent", said, "-55 dB")


# ---- names and places

NAMES = ["a;touch PWNED;b.mp4", "$(touch PWNED).mp4", "-i.mp4", "two words & 'quotes\".mp4", "50%d.mp4",
         "new\nline.mp4", "file:x.mp4", "concat:a|b.mp4", "видео 🎬.mp4", "t.exe", "no suffix", ".mp4",
         os.fsdecode(b"\xff\xfe.mp4")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_only_names(name: str, tmp_path: Path) -> None:
    plain = make_video(tmp_path / "plain.mp4", 3, clicks=[0.01])
    plain.rename(tmp_path / name)
    assert len(open_clip(tmp_path / name, tmp_path)) == 3
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is empty") as caught:
        open_clip(tmp_path / name, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("PWNED"))
    assert not Path("PWNED").exists()


def test_things_that_are_no_files(tmp_path: Path, job: Path) -> None:
    refused("face", tmp_path, job, "is a folder")
    refused("face", tmp_path / "missing.mp4", job, "cannot be found")
    refused("voice", Path("/dev/zero"), job, "not an ordinary file")
    os.mkfifo(tmp_path / "pipe.mp4")
    refused("face", tmp_path / "pipe.mp4", job, "not an ordinary file")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    refused("face", tmp_path / "loop.mp4", job, "cannot be found")
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    refused("face", tmp_path / "link.mp4", job, "text file")
    refused("face", Path("a\0b.mp4"), job, "cannot be found")


def test_a_file_that_may_not_be_read_is_named_so(tmp_path: Path, job: Path, monkeypatch) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(os, "access", lambda place, mode: (place, mode) != (path, os.R_OK))  # root may read anything
    refused("face", path, job, "may not be read by this user")


def test_a_link_to_a_video_is_a_video(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(make_video(tmp_path / "a.mp4", 3))
    assert len(open_clip(tmp_path / "link.mp4", tmp_path)) == 3


# ---- damage


def test_cut_off_before_its_index(tmp_path: Path, job: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 50, clicks=[1.0])
    path.write_bytes(path.read_bytes()[:-2000])
    refused("face", path, job, "index is missing", "upload it again")
    refused("voice", path, job, "index is missing")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_cut_off_on_the_way_says_so(suffix: str, tmp_path: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (96, 160, 3), dtype=np.uint8) for i in range(50)]
    front = {"movflags": "+faststart"} if suffix == "mp4" else None
    path = make_video(tmp_path / f"a.{suffix}", noise, container_options=front)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = open_clip(path, tmp_path)
    assert 20 <= len(clip) <= 35
    assert re.search(r"ends early: [01]\.\d\d s of 2\.00 s", " ".join(clip.notes)), clip.notes


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "m4a", "mka", "au"])
def test_a_sound_that_is_cut_off_says_so(suffix: str, tmp_path: Path) -> None:
    codecs = {"flac": "flac", "aiff": "pcm_s16be", "m4a": "aac", "au": "pcm_s16be"}
    path = make_sound(tmp_path / f"a.{suffix}", 2.0, codec=codecs.get(suffix, "pcm_s16le"))
    assert open_speech(path, tmp_path).notes == ()
    data = path.read_bytes()
    if suffix == "m4a":  # its index moves to the front, as in a file made for the web
        path = make_sound(tmp_path / "b.m4a", 2.0, codec="aac", container_options={"movflags": "+faststart"})
        data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    (note,) = open_speech(path, tmp_path).notes
    assert re.fullmatch(r"The sound file ends early: 1\.[0-3]\d s of 2\.0\d s could be read\.", note)


def test_a_wav_whose_recorder_never_wrote_its_length_is_whole(tmp_path: Path) -> None:
    data = bytearray(make_sound(tmp_path / "a.wav", 2.0).read_bytes())
    for size in (b"\xff" * 4, bytes(4)):
        at = data.index(b"data") + 4
        data[4:8], data[at : at + 4] = size, size
        (tmp_path / "a.wav").write_bytes(data)
        speech = open_speech(tmp_path / "a.wav", tmp_path)
        assert (speech.seconds, speech.notes) == (2.0, ())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.png", "a.wav", "a.mp3"])
def test_broken_bytes_end_in_a_result_or_a_sentence(name: str, seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / name
    opened = open_clip
    if name == "a.png":
        Image.fromarray(numbered(3, 160, 96)).save(path)
    elif name in {"a.wav", "a.mp3"}:
        opened = open_speech
        make_sound(path, codec="libmp3lame" if name == "a.mp3" else "pcm_s16le")
    else:
        make_video(path, 20, clicks=[0.2], sound={"codec": "pcm_s16le"} if name == "a.avi" else None)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = rng.integers(16, len(data), max(4, len(data) // 200))
    data[places] = rng.integers(0, 256, len(places))
    path.write_bytes(data.tobytes())
    try:
        assert opened(path, tmp_path).seconds > 0
    except InputError as error:
        assert str(error).endswith(".")  # noqa: PT017


# ---- the process and its bounds


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(timeout=0.05), "takes longer than 0 s|takes longer"),
        (Limits(stall=1e-4), "without progress"),  # less than opening any file takes: never a race with a fast machine
        (Limits(memory=220 * 2**20), "memory|cannot be decoded|cannot be opened"),
        (Limits(disk=20_000), "disk"),
    ],
    ids=["time", "stall", "memory", "disk"],
)
def test_the_process_is_bounded(limits: Limits, words: str, tmp_path: Path, job: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (480, 640, 3), dtype=np.uint8) for i in range(20)]
    path = make_video(tmp_path / "a.mp4", noise, options={"preset": "ultrafast"})
    refused("face", path, job, words, limits=limits)


def test_a_full_disk_is_one_even_where_the_process_cannot_say_so(tmp_path: Path, job: Path, monkeypatch) -> None:
    monkeypatch.setattr("syncdiff.media.reader._lines", lambda *_: iter(()))  # its last words found no room
    monkeypatch.setattr("syncdiff.errors.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left"):
        open_clip(make_video(tmp_path / "a.mp4", 3), job)


def test_sniffing_never_asks_the_name() -> None:
    assert sniff(b"\x1aE\xdf\xa3" + bytes(20)) == "matroska"
    assert sniff(b"ID3\x04\x00\x00\x00\x00\x00\x02\x00\x00fLaC" + bytes(20)) == "flac"
    assert sniff(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(20)) == "mp3"
    brands = b"\0\0\0\x1cftypmif1\0\0\0\0mif1" + b"%s" + b"miaf" + bytes(20)
    assert (sniff(brands % b"avif"), sniff(brands % b"heic")) == ("avif", "a HEIC photo")
    assert sniff(b"") == sniff(b"\x00\x01\x02") == ""
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL  # the alarm belongs to the other process
