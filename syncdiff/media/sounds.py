"""The sound of an upload -> a 16-bit wav at its own rate and channels. Runs inside the intake process."""

from __future__ import annotations

import math
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from syncdiff.media.clip import InputError, Limits
from syncdiff.media.pictures import decode_what_can_be

HIGHEST_RATE = 192_000  # Hz
MOST_CHANNELS = 8
JUMP = 0.05  # seconds: a smaller disagreement between time stamps and samples is rounding


def read_sound(
    container: av.container.InputContainer,
    name: str,
    folder: Path,
    limits: Limits,
    report: Callable[[float], None],
    *,
    start: float | None = None,
) -> dict[str, Any] | None:
    """Write sound.wav; its rate, channels and seconds, or None when nothing can be decoded.

    start: the second that becomes time 0 (earlier sound is cut, later sound is preceded by silence); by default the
    sound's own first moment."""
    stream = container.streams.audio[0]
    resampler, rate, channels, written = None, 0, 0, 0
    with (folder / "sound.wav").open("wb") as file, wave.open(file, "wb") as out:
        for sound in decode_what_can_be(container, stream, []):
            if not rate:
                rate, channels = min(sound.sample_rate, HIGHEST_RATE), len(sound.layout.channels)
                channels = channels if channels <= MOST_CHANNELS else 2
                layout = sound.layout if channels == len(sound.layout.channels) else "stereo"
                out.setparams((channels, 2, rate, 0, "NONE", ""))
            shape = (sound.sample_rate, sound.format.name, sound.layout.name)
            if resampler is None or resampler[0] != shape:
                resampler = (shape, av.AudioResampler(format="s16", layout=layout, rate=rate))
            at = written / rate if sound.time is None else sound.time
            start = at if start is None else start
            samples = _resample(resampler[1], sound, channels)
            missing = round((at - start) * rate) - written
            if missing > 0 and (missing > JUMP * rate or not written):
                _check_length((written + missing) / rate, name, limits)
                for part in _silence(missing, channels):
                    out.writeframesraw(part.tobytes())
                written += missing
            elif missing < 0 and (missing < -JUMP * rate or not written):
                samples = samples[min(-missing, len(samples)) :]
            out.writeframesraw(samples.tobytes())
            written += len(samples)
            _check_length(written / rate, name, limits)
            report(written / rate)
        if not rate:
            out.setparams((1, 2, 16_000, 0, "NONE", ""))
    return {"rate": rate, "channels": channels, "seconds": written / rate} if written else None


def _resample(resampler: av.AudioResampler, sound: av.AudioFrame, channels: int) -> np.ndarray:
    sound.pts = None  # the resampler would fill gaps by itself; here the caller does, with a limit
    parts = [part.to_ndarray().reshape(-1, channels) for part in resampler.resample(sound)]
    return np.concatenate(parts) if parts else np.zeros((0, channels), np.int16)


def _silence(count: int, channels: int) -> Iterator[np.ndarray]:
    for done in range(0, count, 65_536):
        yield np.zeros((min(65_536, count - done), channels), np.int16)


def _check_length(seconds: float, name: str, limits: Limits) -> None:
    if seconds > limits.seconds + 0.5:
        raise InputError(f"The sound of {name} is longer than {limits.seconds:.0f} s, the most there may be; cut it.")


def check_voice(sound: dict[str, Any] | None, name: str, folder: Path, limits: Limits) -> dict[str, Any]:
    """The same facts, if it is a voice at all: long and loud enough. Raises InputError."""
    if sound is None:
        raise InputError(f"No sound can be decoded from {name}; export it again, as a wav or an mp3.")
    if sound["seconds"] < limits.shortest_voice:
        least = limits.shortest_voice
        raise InputError(f"The voice in {name} lasts {sound['seconds']:.2f} s; at least {least:.1f} s are needed.")
    level = loudest(folder / "sound.wav")
    if level < limits.quietest_voice:
        heard = f"its loudest moment is at {level:.0f} dB" if level > -math.inf else "every sample is zero"
        raise InputError(f"The voice in {name} is silent: {heard}, and {limits.quietest_voice:.0f} dB are needed.")
    return sound


def loudest(path: Path) -> float:
    """Level of the loudest tenth of a second, in dB of full scale (-inf: digital silence)."""
    most = 0.0
    with wave.open(str(path), "rb") as file:
        while block := file.readframes(file.getframerate() // 10):
            most = max(most, float(np.mean(np.square(np.frombuffer(block, np.int16) / 32768.0))))
    return 10 * math.log10(most) if most else -math.inf
