"""Files as people bring them: joined, cut, late, low, transparent, encrypted. Every file is made here."""

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.media import open_clip, open_speech
from syncdiff.media.filetype import sniff
from syncdiff.media.timestamps import scan
from tests.media_fixtures import click_at, click_sound, make_sound, make_video, number_in, numbered

# ---- the clock


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def clicks_in(path: Path, tmp_path: Path, count: int) -> list[float]:
    """Seconds of the first clicks, each at least 0.1 s after the one before."""
    samples = open_speech(path, tmp_path).samples()
    found = [click_at(samples, SAMPLE_RATE)]
    while len(found) < count:
        found.append(click_at(samples, SAMPLE_RATE, found[-1] + 0.1))
    return found


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ogg", "libopus"), ("webm", "libopus"), ("ts", "aac"), ("mkv", "pcm_s16le")]
)
def test_the_second_take_of_a_joined_recording_is_heard(suffix: str, codec: str, tmp_path: Path) -> None:
    takes = [make_sound(tmp_path / f"{at}.{suffix}", 1.0, [at], codec=codec) for at in (0.3, 0.6)]
    path = join(tmp_path / f"joined.{suffix}", *takes)
    speech = open_speech(path, tmp_path)
    assert speech.seconds == pytest.approx(2.0, abs=0.1)
    assert "jumps 1 time" in speech.notes[0]
    assert clicks_in(path, tmp_path, 2) == pytest.approx([0.3, 1.6], abs=0.06)


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("m4a", "aac")])
def test_a_second_file_behind_the_first_is_named(suffix: str, codec: str, tmp_path: Path) -> None:
    """ffmpeg reads as far as the first says that it goes."""
    take = make_sound(tmp_path / f"take.{suffix}", 1.0, [0.3], codec=codec)
    speech = open_speech(join(tmp_path / f"joined.{suffix}", take, take), tmp_path)
    assert speech.seconds == pytest.approx(1.0, abs=0.05)
    assert [note for note in speech.notes if "second recording" in note]
    assert not [note for note in open_speech(take, tmp_path).notes if "second recording" in note]


def test_a_packet_that_claims_to_last_for_days_says_nothing() -> None:
    """As ffmpeg reads joined Vorbis takes of one serial number: three of a second, the last packet of each so."""
    packets = [
        SimpleNamespace(stream_index=0, time_base=Fraction(1, 100), is_keyframe=True, pts=at, dts=at, duration=lasts)
        for _ in range(3)
        for at, lasts in ((0, 50), (50, 2**32))
    ]
    container = SimpleNamespace(format=SimpleNamespace(name="ogg"), demux=lambda *_: iter(packets))
    found = scan(container, [SimpleNamespace(index=0, time_base=Fraction(1, 100))], lambda: None)
    assert found.jumps == 2
    assert [stretch.shift for stretch in found.clocks[0].stretches] == [0, 50, 100]
    assert found.clocks[0].seconds == 1.5


def test_a_picture_that_begins_after_the_sound_is_no_file_that_ends_early(tmp_path: Path) -> None:
    clip = open_clip(make_video(tmp_path / "a.mkv", 25, ticks=range(10, 35), clicks=[0.6], sound_for=1.4), tmp_path)
    assert clip.notes == ()
    assert click_at(clip.speech.samples(), SAMPLE_RATE) == pytest.approx(0.2, abs=0.03)


def transport_stream(path: Path, jump: float, takes: int = 2) -> Path:
    """Takes of one second each, the picture numbered on; every take starts `jump` seconds after the end of the last."""
    with av.open(str(path), "w", format="mpegts") as out:
        picture = out.add_stream("libx264", rate=25, options={"bf": "0", "g": "25"})
        picture.width, picture.height, picture.pix_fmt = 160, 96, "yuv420p"
        voice = out.add_stream("mp2", rate=48_000, layout="mono")
        sounds = [click_sound(1.0, [0.5], 48_000, 1) for _ in range(takes)]
        samples = np.concatenate(sounds).reshape(-1, 1)
        waiting = []
        for i in range(25 * takes):
            image = av.VideoFrame.from_ndarray(numbered(i, 160, 96), format="rgb24")
            image.pts, image.time_base = i, Fraction(1, 25)
            waiting += picture.encode(image)
        for at in range(0, len(samples), 1152):
            sound = av.AudioFrame.from_ndarray(samples[at : at + 1152].reshape(1, -1).copy(), "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48_000, at, Fraction(1, 48_000)
            waiting += voice.encode(sound)
        waiting += picture.encode(None) + voice.encode(None)
        for packet in sorted(waiting, key=lambda packet: packet.dts * packet.time_base):
            take = int(float(packet.dts * packet.time_base) + 0.001)
            shift = round(take * jump / packet.time_base)
            packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
            out.mux(packet)
    return path


@pytest.mark.parametrize("jump", [3600.0, 100.0, 12.0, 3.0])
def test_a_forward_jump_of_the_clock_is_closed(jump: float, tmp_path: Path) -> None:
    path = transport_stream(tmp_path / "jump.ts", jump, takes=3)
    clip = open_clip(path, tmp_path)
    assert len(clip) == 75
    assert [number_in(frame.rgb()) for frame in clip.frames()] == list(range(75))
    assert clip.seconds == pytest.approx(3.0, abs=0.15)
    assert np.diff(clip.times).max() < 0.12
    assert clip.speech.seconds == pytest.approx(clip.seconds, abs=0.05)
    assert "jumps 2 times" in " ".join(clip.notes)
    assert "ends early" not in " ".join(clip.notes)
    assert clicks_in(path, tmp_path, 3) == pytest.approx([0.5, 1.5, 2.5], abs=0.15)


def test_a_clock_that_starts_again_is_closed_and_sound_stays_with_the_picture(tmp_path: Path) -> None:
    take = transport_stream(tmp_path / "take.ts", 0.0, takes=1)
    clip = open_clip(join(tmp_path / "joined.ts", take, take, take), tmp_path)
    assert [number_in(frame.rgb()) for frame in clip.frames()] == [*range(25)] * 3
    samples = clip.speech.samples()
    for start in (0, 25, 50):  # the click is at frame 12.5 of every take
        at = clip.times[start]
        assert click_at(samples[: round((at + 1) * SAMPLE_RATE)], SAMPLE_RATE, at) == pytest.approx(at + 0.5, abs=0.03)


def test_a_still_picture_is_no_jump_while_the_sound_goes_on(tmp_path: Path) -> None:
    """A slide of 13 s in a matroska file, whose packets do not say how long they last."""
    ticks = [*range(25), *range(350, 375)]
    clip = open_clip(make_video(tmp_path / "slides.mkv", 50, ticks=ticks, clicks=[7.0], sound_for=15.0), tmp_path)
    assert clip.times[25] - clip.times[24] == pytest.approx(13.04, abs=0.01)
    assert click_at(clip.speech.samples(), SAMPLE_RATE) == pytest.approx(7.0, abs=0.02)
    assert not [note for note in clip.notes if "jump" in note]


def test_a_still_picture_in_an_mp4_is_no_jump(tmp_path: Path) -> None:
    clip = open_clip(make_video(tmp_path / "slides.mp4", 3, ticks=[0, 750, 1500]), tmp_path)
    assert clip.times.tolist() == [0, 30, 60]


def test_a_cut_before_the_first_key_frame_says_what_is_missing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "whole.ts", 60, options={"g": "30", "bf": "0", "sc_threshold": "0"})
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(video=0) if packet.pos is not None]
    places = [(packet.pos // 188, packet.is_keyframe) for packet in found]
    second_key = [place for place, key in places if key][1]
    start = places[10][0]
    assert start < second_key
    head = packets[: places[0][0]]  # the tables
    (tmp_path / "cut.ts").write_bytes(b"".join(head + packets[start:]))
    clip = open_clip(tmp_path / "cut.ts", tmp_path)
    assert number_in(next(clip.frames()).rgb()) == 30
    assert len(clip) == 30
    assert [note for note in clip.notes if note.startswith("The first 0.80 s") and "between two key frames" in note]
    assert not [note for note in clip.notes if "ends early" in note or "damaged" in note]


# ---- sound


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_voice_that_starts_late_in_a_video_keeps_its_place(suffix: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"late.{suffix}", 50, clicks=[0.4], sound_from=0.8, sound_for=1.2)
    assert clicks_in(path, tmp_path, 1) == pytest.approx([1.2], abs=0.03)
    assert click_at(open_clip(path, tmp_path).speech.samples(), SAMPLE_RATE) == pytest.approx(1.2, abs=0.03)


def two_tracks(path: Path, default: int) -> Path:
    """Two pictures (10, 20) and two sounds that click at 0.2 and 0.6 s; those at place `default` are marked."""
    from av.stream import Disposition

    with av.open(str(path), "w") as out:
        pictures = [out.add_stream("libx264", rate=25) for _ in range(2)]
        voices = [out.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for i, stream in enumerate([*pictures, *voices]):
            stream.disposition = Disposition.default if i % 2 == default else Disposition(0)
        voices[1].metadata["language"] = "ger"
        waiting = []
        for stream, number in zip(pictures, (10, 20), strict=True):
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            for i in range(25):
                image = av.VideoFrame.from_ndarray(numbered(number, 160, 96), format="rgb24")
                image.pts, image.time_base = i, Fraction(1, 25)
                waiting += stream.encode(image)
            waiting += stream.encode(None)
        for stream, click in zip(voices, (0.2, 0.6), strict=True):
            sound = av.AudioFrame.from_ndarray(click_sound(1.0, [click], 48_000, 1).reshape(1, -1), "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48_000, 0, Fraction(1, 48_000)
            waiting += stream.encode(sound) + stream.encode(None)
        for packet in sorted(waiting, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_default_tracks_are_taken_and_named(default: int, suffix: str, tmp_path: Path) -> None:
    path = two_tracks(tmp_path / f"two.{suffix}", default)
    clip = open_clip(path, tmp_path)
    speech = open_speech(path, tmp_path)
    assert number_in(next(clip.frames()).rgb()) == (10, 20)[default]
    for heard in (clip.speech, speech):
        assert click_at(heard.samples(), SAMPLE_RATE) == pytest.approx((0.2, 0.6)[default], abs=0.03)
    number = f"number {default + 1}{' (ger)' if default else ''}, the default, was taken."
    assert f"The file has 2 sound tracks; {number}" in clip.notes
    assert f"The file has 2 sound tracks; {number}" in speech.notes
    assert f"The file has 2 picture tracks; number {default + 1}, the default, was taken." in clip.notes


def stereo(tmp_path: Path, left: float, right: float, channels: int = 2) -> Path:
    """A voice of noise, with a gain in each of the first two channels."""
    voice = np.random.default_rng(1).normal(0, 0.1, 48_000)
    samples = np.zeros((48_000, channels), np.float32)
    samples[:, 0], samples[:, 1] = left * voice, right * voice
    soundfile.write(tmp_path / "voice.wav", samples, 48_000)
    return tmp_path / "voice.wav"


@pytest.mark.parametrize(
    ("left", "right", "taken"),
    [(1, 1, None), (1, 0, None), (0, 1, None), (1, 0.5, None), (1, -1, 0), (0.9, -1, 1), (1, -0.7, 0)],
)
def test_channels_that_cancel_are_not_mixed(left: float, right: float, taken: int | None, tmp_path: Path) -> None:
    speech = open_speech(stereo(tmp_path, left, right), tmp_path)
    assert speech.mono_channel == taken
    assert speech.samples().std() > 0.02  # 0.055 is the loudest channel's
    assert bool([note for note in speech.notes if "lose the voice" in note]) == (taken is not None)
    assert speech.channels == 2  # the result keeps what was given


def test_what_mixing_loses_is_told_by_the_voice_and_moment_by_moment(tmp_path: Path) -> None:
    rng, t = np.random.default_rng(1), np.arange(48_000) / 48_000
    voice, boom = rng.normal(0, 0.05, 48_000), 0.9 * np.sin(2 * np.pi * 45 * t)
    nothing = np.zeros(48_000)
    cases = {  # samples of each channel, and the channel that is listened to
        "cancels in the second half": ([voice, np.where(t < 0.5, voice, -voice)], 0),
        "a plug that carries a constant": ([voice, nothing + 0.9], None),
        "the voice where no mix takes it from, in the fourth of 5.1": ([nothing] * 3 + [voice] + [nothing] * 2, 3),
        "a boom in it": ([nothing] * 2 + [voice, boom] + [nothing] * 2, None),
    }
    for name, (channels, taken) in cases.items():
        soundfile.write(tmp_path / "a.wav", np.stack(channels, 1), 48_000)
        speech = open_speech(tmp_path / "a.wav", tmp_path)
        assert speech.mono_channel == taken, name
        level = np.diff(speech.samples())[: 10 * 1599].reshape(10, -1).std(1)
        assert level.min() > 0.8 * level.max() > 0.005, name  # as loud throughout


def test_sixteen_nameless_channels_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, (48_000, 16)), 48_000)
    with pytest.raises(InputError, match=r"has 16 channels and does not say what they are, .* mix it down to two\.$"):
        open_speech(tmp_path / "a.wav", tmp_path)


@pytest.mark.parametrize("rate", [8_000, 11_025, 192_000, 384_000])
def test_rates_from_8_to_384_khz(rate: int, tmp_path: Path) -> None:
    t = np.arange(rate) / rate
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * t), rate)
    speech = open_speech(tmp_path / "tone.wav", tmp_path)
    assert speech.rate == min(rate, 192_000)
    assert speech.seconds == pytest.approx(1.0, abs=0.002)
    spectrum = np.abs(np.fft.rfft(speech.samples()))
    assert spectrum.argmax() * SAMPLE_RATE / len(speech.samples()) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.aiff", "pcm_s16be", "aiff"), ("a.caf", "pcm_s16be", "caf"), ("a.w64", "pcm_s16le", "w64"),
     ("a.au", "pcm_s16be", "au"), ("a.ac3", "ac3", "ac3"), ("a.eac3", "eac3", "eac3")],
)  # fmt: skip
def test_uncommon_sound_files(name: str, codec: str, kind: str, tmp_path: Path) -> None:
    path = make_sound(tmp_path / name, 1.0, [0.5], codec=codec)
    assert sniff(path.read_bytes()[:4096]) == kind
    assert clicks_in(path, tmp_path, 1) == pytest.approx([0.5], abs=0.02)


# ---- pictures


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_an_animation_is_read_as_a_video(suffix: str, tmp_path: Path) -> None:
    pictures = [Image.fromarray(numbered(i, 160, 96)) for i in range(10)]
    exact = {"lossless": True} if suffix == "webp" else {}
    pictures[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pictures[1:], duration=50, **exact)
    clip = open_clip(tmp_path / f"a.{suffix}", tmp_path)
    assert [number_in(frame.rgb()) for frame in clip.frames()] == list(range(10))
    assert (clip.rate, clip.steady, clip.photo, clip.seconds) == (20, True, False, 0.5)
    assert "read as a video of 0.50 s" in clip.notes[-1]


def test_an_animations_own_times_are_kept(tmp_path: Path) -> None:
    pictures = [Image.fromarray(numbered(i, 160, 96)) for i in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 400, 200])
    clip = open_clip(tmp_path / "a.gif", tmp_path)
    assert clip.times == pytest.approx([0, 0.1, 0.5])
    assert clip.seconds == pytest.approx(0.7)


@pytest.mark.parametrize(("name", "size"), [("a.jpg", (4032, 3024)), ("a.png", (3000, 4000)), ("a.jpg", (8160, 6120))])
def test_a_phones_photo_is_scaled_down(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    slope = np.linspace(0, 255, size[0]).astype(np.uint8)
    Image.fromarray(np.broadcast_to(slope[None, :, None], (size[1], size[0], 3)).copy()).save(tmp_path / name)
    clip = open_clip(tmp_path / name, tmp_path)
    assert 8_500_000 < clip.width * clip.height <= 9_000_000
    assert clip.width / clip.height == pytest.approx(size[0] / size[1], rel=2e-3)
    assert f"from {size[0]}x{size[1]} to {clip.width}x{clip.height}" in clip.notes[0]
    row = next(clip.frames()).rgb()[100, :, 1].astype(int)
    np.testing.assert_allclose(row, np.linspace(0, 255, clip.width), atol=6)


def test_a_video_of_8k_is_refused_with_the_size_that_fits(tmp_path: Path) -> None:
    path = make_video(tmp_path / "8k.mp4", [np.zeros((4320, 7680, 3), np.uint8)], options={"preset": "ultrafast"})
    with pytest.raises(InputError, match=r"7680x4320, .* 9 million pixels .*: 4096x2160 \(4K\) fits"):
        open_clip(path, tmp_path)


def with_alpha(path: Path, codec: str) -> Path:
    """Red, its left half transparent with black under it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"auto-alt-ref": "0"} if codec.startswith("libvpx") else {})
        stream.width, stream.height = 160, 96
        stream.pix_fmt = {"png": "rgba", "qtrle": "argb", "prores_ks": "yuva444p10le"}.get(codec, "yuva420p")
        pixels = np.zeros((96, 160, 4), np.uint8)
        pixels[:, 80:] = (200, 30, 30, 255)
        for i in range(5):
            image = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=stream.pix_fmt)
            image.pts, image.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx-vp9"), ("b.webm", "libvpx"), ("a.mov", "png"), ("b.mov", "qtrle"), ("c.mov", "prores_ks")],
)
def test_a_transparent_video_is_laid_on_white_and_said(name: str, codec: str, tmp_path: Path) -> None:
    clip = open_clip(with_alpha(tmp_path / name, codec), tmp_path)
    picture = next(clip.frames()).rgb().astype(int)
    np.testing.assert_allclose(picture[20:76, 10:70].mean((0, 1)), 255, atol=5)
    np.testing.assert_allclose(picture[20:76, 90:150].mean((0, 1)), (200, 30, 30), atol=12)
    assert [note for note in clip.notes if "transparent parts; they were laid on white" in note]


def test_an_interlaced_film_is_deinterlaced_and_said(tmp_path: Path) -> None:
    """A white square that moves 8 pixels a field: combed rows would differ from their neighbours at its edges."""

    def field(n: int) -> np.ndarray:
        picture = np.full((96, 160, 3), 30, np.uint8)
        picture[:, 8 * n : 8 * n + 40] = 220
        return picture

    woven = []
    for i in range(6):
        picture = field(2 * i)
        picture[1::2] = field(2 * i + 1)[1::2]
        woven.append(picture)
    settings = {"options": {"x264-params": "tff=1", "qp": "10"}}
    path = make_video(tmp_path / "tff.mp4", woven, **settings)
    plain = make_video(tmp_path / "plain.mp4", [field(2 * i) for i in range(6)], options={"qp": "10"})

    def combing(clip) -> float:
        pictures = [frame.rgb().astype(float)[8:-8, :, 1] for frame in clip.frames()]
        return max(float(np.abs(np.diff(p, axis=0)).mean()) for p in pictures[1:-1])

    clip, other = open_clip(path, tmp_path), open_clip(plain, tmp_path)
    assert (len(clip), clip.rate) == (6, 25)
    assert combing(clip) < 3 < 8 < float(np.abs(np.diff(woven[2].astype(float)[8:-8, :, 1], axis=0)).mean())
    assert "The video is interlaced; it was deinterlaced." in clip.notes
    assert other.notes == ()


def test_a_picture_that_changes_its_size_is_fitted_with_bars_and_said(tmp_path: Path) -> None:
    """VP8 with a second size from frame 10 on, as where a phone was turned."""
    with av.open(str(tmp_path / "turned.webm"), "w") as out:
        stream = None
        for size, start in (((320, 240), 0), ((240, 320), 10)):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base = Fraction(1, 25)
            encoder.framerate = Fraction(25)
            encoder.bit_rate = 2_000_000
            if stream is None:
                stream = out.add_stream("libvpx", rate=25)
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                out.start_encoding()
            for i in range(10):
                image = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 180, np.uint8), format="rgb24")
                image.pts, image.time_base = start + i, Fraction(1, 25)
                for packet in encoder.encode(image.reformat(format="yuv420p")):
                    packet.stream = stream
                    out.mux(packet)
            for packet in encoder.encode(None):
                packet.stream = stream
                out.mux(packet)
    clip = open_clip(tmp_path / "turned.webm", tmp_path)
    assert (clip.width, clip.height, len(clip)) == (320, 240, 20)
    first, second = (next(clip.frames([i])).rgb().astype(int) for i in (5, 15))
    np.testing.assert_allclose(first[120], 180, atol=4)
    np.testing.assert_allclose(second[120, 80:240], 180, atol=6)  # 180 pixels wide in the middle: 3:4 as it was
    assert second[:, :64].max() < 12
    assert second[:, -64:].max() < 12
    assert "changes its size on the way, to 240x320" in " ".join(clip.notes)


# ---- what cannot be read


@pytest.mark.parametrize("slot", [open_clip, open_speech])
def test_an_encrypted_file_is_named_so(slot, tmp_path: Path) -> None:
    """The sample entries of an mp4 renamed to encv and enca, with the box that says what they were."""
    path = make_video(tmp_path / "drm.mp4", 5, clicks=[0.1])
    data = path.read_bytes()
    box = struct.pack(">I4s", 20, b"sinf") + struct.pack(">I4s4s", 12, b"frma", b"avc1")
    at = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:at] + b"encv" + data[at + 4 :].replace(b"btrt", b"free") + box)
    moov = path.read_bytes()
    place = moov.index(b"moov") - 4
    size = int.from_bytes(moov[place : place + 4], "big") + len(box)
    path.write_bytes(moov[:place] + size.to_bytes(4, "big") + moov[place + 4 :])
    with pytest.raises(InputError, match=r"'drm.mp4' is encrypted \(DRM\)"):
        slot(path, tmp_path)
