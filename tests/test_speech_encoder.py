"""Speech features against frequencies and times that the test planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.audio import SAMPLE_RATE, mel
from syncdiff.audio.mel import HOP, MELS, N_FFT, log_mel, mel_filters
from syncdiff.audio.silence import pauses
from syncdiff.models.speech_encoder import SpeechEncoder, encode_speech, speech_features, token_window


@pytest.fixture
def encoder() -> SpeechEncoder:
    return SpeechEncoder(width=16, layers=2, kernel=5, hidden=8).eval()


def test_filters_are_slaneys_triangles():
    filters = mel_filters()
    assert filters.shape == (MELS, N_FFT // 2 + 1)
    spacing = SAMPLE_RATE / N_FFT
    areas = filters.sum(1) * spacing
    assert torch.allclose(areas[20:], torch.ones(MELS - 20), atol=0.25)  # wide enough to hold several bins
    centre_1khz = 15 / (15 + np.log(8) / (np.log(6.4) / 27)) * (MELS + 1) - 1  # 1 kHz is mel 15 on this scale
    assert filters[:, round(1000 / spacing)].argmax().item() == pytest.approx(centre_1khz, abs=1)


def test_an_impulse_lands_in_its_frame():
    samples = torch.zeros(SAMPLE_RATE)
    samples[4800] = 1.0
    mel = log_mel(samples)
    assert mel.shape == (MELS, SAMPLE_RATE // HOP)
    assert mel.mean(0).argmax().item() == 4800 // HOP


def test_a_thump_a_click_or_a_hum_does_not_hush_the_voice():
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    voice = 0.05 * torch.randn(len(t), generator=generator) * (torch.sin(2 * torch.pi * 3 * t) > 0)
    clean = log_mel(voice)
    thump, click, hum = voice.clone(), voice.clone(), voice + 0.9 * torch.sin(2 * torch.pi * 50 * t)
    thump[16_000:17_600] += 0.9 * torch.sin(2 * torch.pi * 60 * t[:1600])
    click[16_000:16_100] += 0.9
    far = torch.ones(clean.shape[1], dtype=torch.bool)
    far[95:115] = False  # the noise itself
    for spoilt, lowest in ((thump, 0), (click, 0), (hum, 8)):
        hushed = (clean - log_mel(spoilt))[lowest:, far]
        assert hushed.quantile(0.9).item() * 40 < 13  # dB, where the loudest band alone would hush it by 25 to 35
    assert torch.equal(log_mel(voice), clean)


def test_gain_does_not_matter_but_silence_stays_silent():
    noise = torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    assert torch.allclose(log_mel(noise), log_mel(noise * 5), atol=1e-4)
    assert log_mel(torch.zeros(SAMPLE_RATE)).max().item() == pytest.approx(-1.0)
    assert log_mel(noise * 1e-5).max() < 0


def test_pieces_give_what_the_whole_gives(encoder):
    samples = np.random.default_rng(0).normal(0, 0.1, 45 * SAMPLE_RATE).astype(np.float32)
    with torch.inference_mode():
        whole = encoder(log_mel(torch.from_numpy(samples))[None])[0]
    assert torch.allclose(encode_speech(encoder, samples), whole, atol=1e-4)


def test_mel_pieces_give_what_the_whole_gives(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for length in (SAMPLE_RATE, 4 * 70 * HOP, 4 * 70 * HOP + HOP - 1, 4 * 70 * HOP + 2 * HOP):
        samples = torch.randn(2, length, generator=generator) * torch.linspace(0.01, 0.3, length)
        whole = log_mel(samples)  # loudest at the end: no piece knows how loud the recording is
        with monkeypatch.context() as small:
            small.setattr(mel, "PIECE", 70)
            assert torch.allclose(log_mel(samples), whole, atol=1e-6)


def test_very_short_speech_is_padded(encoder):
    assert encode_speech(encoder, np.zeros(100, np.float32)).shape == (25, 16)


def test_token_window_reads_the_right_time_at_any_rate():
    ramp = (torch.arange(200)[:, None] + 0.5) / 50  # every feature holds the time of its own middle
    for rate in (24, 25, 30, 60):
        times = torch.arange(30, 60) / rate
        tokens = token_window(ramp, times, tokens=9, rate=50)
        assert tokens.shape == (30, 9, 1)
        expected = times[:, None] + (torch.arange(9) - 4) / 50
        assert torch.allclose(tokens[..., 0], expected.float(), atol=1e-5)


def test_token_window_repeats_the_edges():
    ramp = torch.arange(10.0)[:, None]
    tokens = token_window(ramp, torch.tensor([-5.0, 99.0]), tokens=4, rate=50)
    assert (tokens[0] == 0).all()
    assert (tokens[1] == 9).all()


def test_save_and_load(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = SpeechEncoder.from_pretrained(tmp_path)
    mel = torch.randn(1, MELS, 40)
    assert torch.equal(again(mel), encoder(mel))


def test_pauses_are_where_the_voice_is_silent() -> None:
    t = np.arange(3 * 16_000) / 16_000
    voice = (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    voice[16_000:24_000] *= 0.001  # half a second, 60 dB down
    voice[40_000:42_000] = 0  # an eighth of a second is no pause
    assert pauses(voice) == pytest.approx(np.array([[1.0, 1.5]]), abs=0.03)
    assert pauses(np.zeros(16_000, np.float32)) == ((0.0, 1.0),)
    assert pauses(voice[:100]) == ()


def symmetric(encoder: SpeechEncoder) -> SpeechEncoder:
    """The same with every kernel symmetric in time: only the arithmetic of positions can shift what is heard."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv1d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-1)) / 2
    return encoder


def test_tokens_and_forecast_answer_a_click_at_its_time(subtests):
    """Window centres, token positions, the look-up by time and the encoder's delay agree to a quarter of a frame."""
    torch.manual_seed(0)
    encoder = symmetric(SpeechEncoder(width=16, layers=2, kernel=5, hidden=8).eval())
    quiet = np.random.default_rng(0).normal(0, 1e-3, 2 * SAMPLE_RATE).astype(np.float32)
    quiet[100] = 0.5  # the loudest band is the same in both
    without = speech_features(encoder, quiet)
    times = torch.arange(0.5, 1.5, 0.002, dtype=torch.float64)
    for at in [1.0, 1.004, 1.013, 1.03]:
        with subtests.test(at=at):
            clicked = quiet.copy()
            clicked[round(at * SAMPLE_RATE)] = 0.5
            heard = speech_features(encoder, clicked)
            for answer in (
                (heard.window(times, 3)[:, 1] - without.window(times, 3)[:, 1]).abs().sum(-1),
                (heard.lips_at(times) - without.lips_at(times)).abs().sum(-1),
            ):
                centre = float((answer * times).sum() / answer.sum())
                assert centre == pytest.approx(at, abs=0.01)
