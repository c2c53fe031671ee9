"""The sound of an upload -> a 16-bit wav at its own rate and channels. Runs inside the intake process."""

from __future__ import annotations

import math
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from syncdiff.errors import InputError
from syncdiff.media.clip import Limits
from syncdiff.media.video import decode_what_can_be

HIGHEST_RATE = 192_000  # Hz
MOST_CHANNELS = 8
JUMP = 0.05  # seconds: a smaller disagreement between time stamps and samples is rounding


class SoundWriter:
    """A wav file that sounds are laid on at their time."""

    def __init__(self, out: wave.Wave_write, first: av.AudioFrame, end: float | None) -> None:
        self.rate = min(first.sample_rate, HIGHEST_RATE)
        self.channels = len(first.layout.channels)
        self.layout: Any = first.layout
        if self.channels > MOST_CHANNELS:
            self.channels, self.layout = 2, "stereo"
        self.count = 0  # samples so far, of which those before `end` are written
        self._out, self._room = out, math.inf if end is None else round(end * self.rate)
        self._shape, self._resampler = None, None
        out.setparams((self.channels, 2, self.rate, 0, "NONE", ""))

    def lay(self, sound: av.AudioFrame, at: float | None) -> None:
        """Lay the sound on second `at` (None: after the last one), over silence or without what is there already."""
        samples = self._resample(sound)
        missing = 0 if at is None else round(at * self.rate) - self.count
        slack = JUMP * self.rate if self.count else 0
        if missing > slack:
            for done in range(0, missing, 65_536):
                self._append(np.zeros((min(65_536, missing - done), self.channels), np.int16))
        elif missing < -slack:
            samples = samples[-missing:]
        self._append(samples)

    def _append(self, samples: np.ndarray) -> None:
        room = max(0, self._room - self.count)
        self._out.writeframesraw(samples[: min(room, len(samples))].tobytes())
        self.count += len(samples)

    def _resample(self, sound: av.AudioFrame) -> np.ndarray:
        shape = (sound.sample_rate, sound.format.name, sound.layout.name)
        if shape != self._shape:
            self._shape = shape
            self._resampler = av.AudioResampler(format="s16", layout=self.layout, rate=self.rate)
        sound.pts = None  # the resampler would fill gaps by itself, without a limit
        parts = [part.to_ndarray().reshape(-1, self.channels) for part in self._resampler.resample(sound)]
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), np.int16)


def read_sound(
    container: av.container.InputContainer,
    name: str,
    folder: Path,
    limits: Limits,
    report: Callable[[float], None],
    *,
    start: float | None = None,
    end: float | None = None,
) -> dict[str, Any] | None:
    """Write sound.wav; its rate, channels and seconds, and the seconds heard in all; None when nothing can be decoded.

    start: the second that becomes time 0 (earlier sound is cut, later sound is preceded by silence); by default the
    sound's own first moment. end: from which second on, counted from start, nothing is kept. Raises InputError."""
    stream, tape = container.streams.audio[0], None
    if stream.codec_context is None:  # a codec that is unknown here
        return None
    with (folder / "sound.wav").open("wb") as file, wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        for sound in decode_what_can_be(container, stream, []):
            tape = tape or SoundWriter(out, sound, end)
            start = sound.time if start is None else start
            at = None if sound.time is None or start is None else sound.time - start
            length = max(at or 0.0, tape.count / tape.rate)
            if length > limits.seconds + 0.5 and end is not None:
                break
            if length > limits.seconds + 0.5:
                most = limits.seconds
                raise InputError(f"The sound of {name} is longer than {most:.0f} s, the most there may be; cut it.")
            tape.lay(sound, at)
            report(length)
    if tape is None or not tape.count:
        return None
    heard = tape.count / tape.rate
    seconds = heard if end is None else min(heard, round(end * tape.rate) / tape.rate)
    return {"rate": tape.rate, "channels": tape.channels, "seconds": seconds, "heard": heard}


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
