"""Files in: of every kind of video, photo and sound, the pictures, the clock and the sound arrive as they were."""

import os
import shutil
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from syncdiff.audio import SAMPLE_RATE
from syncdiff.media import Clip, Limits, open_clip, open_speech, read_clip
from syncdiff.media.clip import GOP
from syncdiff.media.timestamps import frame_times
from syncdiff.media.tonemap import hlg_light, pq_light, tone_map
from syncdiff.progress import finished
from tests.media_fixtures import (
    click_at,
    decode,
    luma,
    make_sound,
    make_video,
    number_in,
    numbered,
    planted,
    psnr,
    turn_in_file,
)

OPUS, MP3, PCM = {"codec": "libopus"}, {"codec": "libmp3lame"}, {"codec": "pcm_s16le"}
VIDEOS = {
    "h264.mp4": {},
    "h264.mov": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.avi": {"sound": PCM},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}, "sound": PCM},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "sound": PCM},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "sound": OPUS},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}, "sound": OPUS},
    "vp9-mp3.mkv": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}, "sound": MP3},
    "av1.mp4": {"codec": "libsvtav1", "options": {"svtav1-params": "lp=1"}},
    "10bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "422.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "sound": PCM},
    "444.mp4": {"pix_fmt": "yuv444p"},
    "rgb.avi": {"codec": "utvideo", "pix_fmt": "gbrp", "sound": PCM},
    "odd.webm": {"codec": "libvpx-vp9", "size": (161, 121), "sound": OPUS},
    "odd-444.mp4": {"pix_fmt": "yuv444p", "size": (161, 121)},
}


def test_any_common_video(tmp_path: Path, subtests) -> None:
    for name, settings in VIDEOS.items():
        with subtests.test(name):
            path = make_video(tmp_path / name, 25, clicks=[0.5], **settings)
            clip = open_clip(path, tmp_path)
            assert (clip.width, clip.height) == settings.get("size", (160, 96))
            assert (clip.rate, clip.steady, clip.photo, clip.seconds) == (25, True, False, 1.0)
            assert not [note for note in clip.notes if "odd size" not in note]
            np.testing.assert_array_equal(clip.times, np.arange(25) / 25)
            frames = list(clip.frames())
            assert [number_in(frame.rgb()) for frame in frames] == list(range(25))
            assert [frame.time for frame in frames] == clip.times.tolist()
            assert clip.speech.rate == 48_000
            assert clip.speech.seconds == pytest.approx(1.0, abs=0.001)
            assert click_at(clip.speech.samples(), SAMPLE_RATE) == pytest.approx(0.5, abs=0.002)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduler to ask here")
def test_an_encoder_of_the_tests_leaves_this_process_at_its_priority(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    make_video(tmp_path / "av1.mp4", 3, **VIDEOS["av1.mp4"])
    assert os.sched_getscheduler(0) == before


def test_the_normalised_file_is_nearly_lossless_even_on_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, (96, 160, 3), dtype=np.uint8) for _ in range(15)]
    path = make_video(tmp_path / "noise.mp4", noise)
    clip = open_clip(path, tmp_path)
    truth, _, _ = decode(path)
    for frame, image in zip(clip.frames(), truth, strict=True):
        for mine, theirs in zip(planted(frame.image), planted(image), strict=True):
            assert psnr(mine, theirs) >= 50


def test_frames_in_any_order_and_with_few_held(tmp_path: Path) -> None:
    clip = open_clip(make_video(tmp_path / "a.mp4", 61), tmp_path)
    loop, leaps = [*range(61), *range(59, 0, -1), 0, 1], [0, 9, 50, 60, 2, 0, 60]
    for wanted in (loop, leaps, [30, 30, 30], [5, 4, 4, 3, 7], []):
        frames = list(clip.frames(wanted))
        assert [number_in(frame.rgb()) for frame in frames] == wanted
        assert [frame.time for frame in frames] == [i / 25 for i in wanted]
    with pytest.raises(IndexError, match=r"0\.\.60"):
        list(clip.frames([61]))
    with av.open(str(clip.path)) as file:
        keys = [packet.pts for packet in file.demux(video=0) if packet.is_keyframe and packet.size]
    assert len(keys) == -(-61 // GOP)


VARIABLE = [0, 3000, 6000, 12000, 13000, 14000, 30000, 33333, 40000, 41000, 42000, 43000, 44000, 90000]


def test_variable_rate_keeps_its_time_stamps(tmp_path: Path) -> None:
    unit = Fraction(1, 90_000)
    clip = open_clip(make_video(tmp_path / "v.mp4", len(VARIABLE), ticks=VARIABLE, unit=unit), tmp_path)
    assert not clip.steady
    np.testing.assert_allclose(clip.times, np.array(VARIABLE) / 90_000, atol=1e-9)
    assert clip.seconds > 1.0
    assert [number_in(frame.rgb()) for frame in clip.frames()] == list(range(len(VARIABLE)))


def test_a_steady_rate_is_found_exactly(tmp_path: Path, subtests) -> None:
    rates = [Fraction(24000, 1001), Fraction(24), Fraction(30000, 1001), Fraction(30), Fraction(60), Fraction(15)]
    for rate, suffix in [*((rate, "mkv") for rate in rates), (rates[0], "mp4")]:  # mkv rounds times to milliseconds
        with subtests.test(rate=rate, suffix=suffix):
            path = make_video(tmp_path / f"a.{suffix}", 40, rate=rate, options={"preset": "ultrafast"})
            clip = open_clip(path, tmp_path)
            assert (clip.rate, clip.steady) == (rate, True)
            np.testing.assert_allclose(clip.times, np.arange(40) / float(rate), atol=1e-12)


def test_frame_times_do_not_smooth_over_a_dropped_frame() -> None:
    times, seconds, rate, steady = frame_times([0, 1, 2, 4, 5], Fraction(1, 25), 1, Fraction(25))
    assert (steady, seconds) == (False, pytest.approx(0.24))
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.16, 0.2])
    assert rate == pytest.approx(5 / 0.24)


TURNS = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


def test_rotation_flags_are_applied(tmp_path: Path, subtests) -> None:
    for matrix in TURNS:
        with subtests.test(matrix=matrix):
            a, b, c, d = matrix
            path = turn_in_file(make_video(tmp_path / "r.mp4", 2, size=(144, 128)), matrix)
            clip = open_clip(path, tmp_path)
            y, x = np.mgrid[0:128, 0:144]
            to_x, to_y = a * x + c * y, b * x + d * y  # the definition of the matrix, pixel by pixel
            upright = np.zeros((128, 144, 3) if a else (144, 128, 3), np.uint8)
            upright[to_y - to_y.min(), to_x - to_x.min()] = numbered(1, 144, 128)
            assert (clip.height, clip.width) == upright.shape[:2]
            assert psnr(next(clip.frames([1])).rgb(), upright) > 38


def test_a_picture_is_turned_as_asked(tmp_path: Path, subtests) -> None:
    lying = np.ascontiguousarray(np.rot90(numbered(1, 144, 128), 1))
    Image.fromarray(lying).save(tmp_path / "a.png")
    make_video(tmp_path / "a.mp4", [lying])
    for clockwise, quarters in [(90, 3), (180, 2), (270, 1)]:
        for name in ["a.mp4", "a.png"]:
            with subtests.test(clockwise=clockwise, name=name):
                clip = finished(read_clip(tmp_path / name, tmp_path, clockwise=clockwise))
                shown = next(clip.frames()).rgb()
                assert psnr(shown, np.rot90(lying, quarters)) > 38  # numpy turns to the left
                assert ("upside down" if clockwise == 180 else "on its side") in clip.notes[-1]


def test_time_zero_is_the_first_picture(tmp_path: Path, subtests) -> None:
    for what, sound_from, first_tick, where in [
        ("late sound", 0.3, 0, 0.7),
        ("late picture", 0.0, 10, 0.0),
        ("even", 0.0, 0, 0.4),
    ]:
        for suffix in ["mp4", "mkv", "ts"]:
            with subtests.test(what, suffix=suffix):
                ticks = [first_tick + i for i in range(25)]
                path = make_video(tmp_path / f"l.{suffix}", 25, ticks=ticks, clicks=[0.4, 0.9], sound_from=sound_from)
                clip = open_clip(path, tmp_path)
                assert clip.times[0] == 0
                assert click_at(clip.speech.samples(), SAMPLE_RATE) == pytest.approx(where, abs=0.003)


def test_sound_beyond_the_picture_is_not_the_clips(tmp_path: Path) -> None:
    """Two seconds of sound to one of pictures: nothing ended early, and the clip's own sound is as long as the clip."""
    path = make_video(tmp_path / "long.mkv", 25, clicks=[0.5, 1.5], sound_for=2.0)
    clip = open_clip(path, tmp_path)
    assert (len(clip), clip.seconds, clip.notes) == (25, 1.0, ())
    assert clip.speech.seconds == pytest.approx(1.0, abs=1e-3)
    assert open_speech(path, tmp_path).seconds == pytest.approx(2.0, abs=0.03)


def test_a_video_without_sound(tmp_path: Path) -> None:
    assert open_clip(make_video(tmp_path / "quiet.mp4", 3), tmp_path).speech is None


# ---- colour


def test_colour_tags_and_range_are_kept(tmp_path: Path) -> None:
    full = open_clip(make_video(tmp_path / "a.mp4", 3, pix_fmt="yuvj420p", colour=(1, 1, 1, 2)), tmp_path)
    assert (full.colour.matrix, full.colour.primaries, full.colour.transfer, full.colour.full) == (1, 1, 1, True)
    assert psnr(next(full.frames()).rgb(), numbered(0, 160, 96)) > 38
    wide = open_clip(make_video(tmp_path / "b.mp4", 3, codec="libx264", colour=(9, 9, 14, 1)), tmp_path)
    assert (wide.colour.matrix, wide.colour.primaries, wide.colour.transfer, wide.colour.full) == (9, 9, 14, False)
    assert psnr(next(wide.frames()).rgb(), numbered(0, 160, 96)) > 38


def test_light_of_hdr_signals() -> None:
    """ITU-R BT.2408, table 1: reference white, 203 cd/m2, is 58 % PQ and 75 % HLG. ST 2084: full PQ is 10000 cd/m2."""
    grey = np.array([[0.58] * 3, [0.75] * 3, [1.0] * 3, [0.0] * 3])
    np.testing.assert_allclose(pq_light(grey)[[0, 2, 3], 0], [203, 10_000, 0], rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(hlg_light(grey)[[1, 2, 3], 0], [203, 1000, 0], rtol=0.02, atol=0.02)


def test_tone_mapping_is_monotone_and_keeps_what_is_dark() -> None:
    light = np.geomspace(0.1, 1000, 50)[:, None].repeat(3, axis=1)
    signal = tone_map(light)[:, 0]
    assert (np.diff(signal) > 0).all()
    assert signal[-1] == pytest.approx(1.0, abs=0.005)
    dark = light[:, 0] < 0.7 * 203
    np.testing.assert_allclose(signal[dark], (light[dark, 0] / 203) ** (1 / 2.4), rtol=2e-3)


# cd/m2 -> code value of 10-bit narrow-range PQ and HLG, worked out apart from the code under test
def test_hdr_is_tone_mapped(tmp_path: Path, subtests) -> None:
    for transfer, code, nits in [(16, 450, 50.2), (16, 567, 190.8), (18, 500, 50.1), (18, 300, 11.5), (16, 64, 0.0)]:
        with subtests.test(transfer=transfer, code=code, nits=nits):
            frames = [av.VideoFrame(128, 64, "yuv420p10le") for _ in range(3)]
            for image in frames:
                for plane, value in zip(image.planes, (code, 512, 512), strict=True):
                    plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
            settings = {"codec": "libx265", "pix_fmt": "yuv420p10le", "colour": (9, 9, transfer, 1)}
            quiet = {"x265-params": "log-level=none", "crf": "2"}
            clip = open_clip(make_video(tmp_path / "hdr.mp4", frames, options=quiet, **settings), tmp_path)
            assert (clip.colour.matrix, clip.colour.primaries, clip.colour.transfer) == (1, 1, 1)
            assert "HDR" in clip.notes[0]
            got = luma(next(clip.frames()).image).astype(float).mean()
            wanted = 16 + 219 * tone_map(np.full((1, 3), nits))[0, 0]
            assert got == pytest.approx(wanted, abs=1.5)


# ---- photos


def test_a_photo_is_a_clip_of_one_frame(tmp_path: Path, subtests) -> None:
    for name, size in [("a.png", (160, 96)), ("a.png", (161, 97)), ("a.jpg", (161, 97)), ("a.webp", (161, 97))]:
        with subtests.test(name=name, size=size):
            Image.fromarray(numbered(77, *size)).save(tmp_path / name, quality=95)
            clip = open_clip(tmp_path / name, tmp_path)
            assert (clip.photo, len(clip), clip.rate, clip.width, clip.height) == (True, 1, 25, *size)
            assert clip.speech is None
            assert psnr(next(clip.frames([0])).rgb(), numbered(77, *size)) > 33
            assert [number_in(frame.rgb()) for frame in clip.frames([0, 0, 0])] == [77, 77, 77]


def test_photo_orientation_and_alpha(tmp_path: Path) -> None:
    photo = Image.fromarray(numbered(5, 160, 128))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise to see it upright"
    photo.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    clip = open_clip(tmp_path / "turned.jpg", tmp_path)
    assert (clip.width, clip.height) == (160, 128)
    assert number_in(next(clip.frames()).rgb()) == 5
    photo.putalpha(Image.fromarray(np.where(np.mgrid[0:128, 0:160][0] < 64, 255, 0).astype(np.uint8)))
    photo.save(tmp_path / "cut.png")
    rgb = next(open_clip(tmp_path / "cut.png", tmp_path).frames()).rgb()
    assert number_in(rgb) == 5
    assert rgb[80:].min() > 250  # what is transparent becomes white


# ---- voices

SOUNDS = {
    "pcm.wav": {},
    "24bit.wav": {"codec": "pcm_s24le"},
    "float.wav": {"codec": "pcm_f32le"},
    "a.mp3": {"codec": "libmp3lame"},
    "a.flac": {"codec": "flac"},
    "opus.ogg": {"codec": "libopus"},
    "a.m4a": {"codec": "aac", "format": "mp4"},
    "a.aac": {"codec": "aac", "format": "adts"},
    "a.mkv": {"codec": "aac"},
    "opus.webm": {"codec": "libopus"},
}


def test_any_common_sound(tmp_path: Path, subtests) -> None:
    for number, (name, settings) in enumerate(SOUNDS.items()):
        with subtests.test(name):
            channels = 1 + number % 2
            speech = open_speech(make_sound(tmp_path / name, 2.0, [1.0], channels=channels, **settings), tmp_path)
            assert (speech.rate, speech.channels) == (48_000, channels)
            late = 0.022 if name == "a.aac" else 0.0  # ADTS has no word for the encoder's delay
            assert speech.seconds == pytest.approx(2.0 + late, abs=0.045)
            samples = speech.samples()
            assert (samples.dtype, samples.ndim, len(samples)) == (np.float32, 1, round(speech.seconds * SAMPLE_RATE))
            assert click_at(samples, SAMPLE_RATE) == pytest.approx(1.0 + late, abs=0.003)


def test_a_voice_keeps_its_own_rate(tmp_path: Path, subtests) -> None:
    for rate in [8000, 22050, 44100, 96000]:
        with subtests.test(rate=rate):
            speech = open_speech(make_sound(tmp_path / "a.wav", rate=rate), tmp_path)
            assert (speech.rate, speech.seconds) == (rate, 2.0)
            assert click_at(speech.samples(), SAMPLE_RATE) == pytest.approx(1.0, abs=0.001)


def test_a_video_lends_its_sound(tmp_path: Path) -> None:
    speech = open_speech(make_video(tmp_path / "a.mp4", 50, clicks=[1.5]), tmp_path)
    assert click_at(speech.samples(), SAMPLE_RATE) == pytest.approx(1.5, abs=0.002)


def test_samples_are_what_was_said(tmp_path: Path) -> None:
    """A 440 Hz tone in one of two channels, resampled and mixed down: still that tone, at half its height."""
    seconds = np.arange(44_100) / 44_100
    tone = 16_384 * np.sin(2 * np.pi * 440 * seconds)
    path = make_sound(
        tmp_path / "a.wav", rate=44_100, channels=2, samples=np.stack([tone, 0 * tone], 1).astype(np.int16)
    )
    samples = open_speech(path, tmp_path).samples()
    wanted = 0.25 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(samples[200:-200], wanted[200:-200], atol=2e-3)


# ---- the process


def test_reading_tells_how_far_it_is_and_can_be_stopped(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 250, size=(640, 480), options={"preset": "ultrafast"}, clicks=[1.0])
    job = tmp_path / "job"
    job.mkdir()
    told = list(read_clip(path, job))
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1
    shutil.rmtree(job)
    job.mkdir()
    steps = read_clip(path, job)
    next(steps)
    assert list(job.iterdir())
    begun = time.monotonic()
    while not list(job.rglob("times.npy")) and time.monotonic() < begun + 60:
        time.sleep(0.02)
    assert list(job.rglob("times.npy"))  # written at the end: decoding goes on while nobody asks
    steps.close()
    assert not list(job.iterdir())


def test_nothing_later_touches_the_upload(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 5, clicks=[0.1])
    clip = open_clip(path, tmp_path)
    path.unlink()
    assert isinstance(clip, Clip)
    assert len(list(clip.frames())) == 5
    assert clip.speech.samples().any()


def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 50)
    assert len(open_clip(path, tmp_path, Limits(seconds=2.0))) == 50
