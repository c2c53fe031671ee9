"""The sound of an upload -> a 16-bit wav at its own rate and channels. Runs in the decode worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import av.audio
import av.container
import numpy as np
import soundfile

from syncdiff.errors import InputError
from syncdiff.media.clip import LAYOUTS
from syncdiff.media.extras import TrackTags
from syncdiff.media.request import DecodeRequest
from syncdiff.media.streams import decode_skipping_errors
from syncdiff.media.timestamps import StreamClock

MAX_RATE = 192_000  # Hz
MAX_CHANNELS = 8
MAX_DRIFT_SECONDS = 0.05  # a smaller disagreement between time stamps and samples is rounding
BLOCK_SECONDS = 0.1  # in which levels are measured
# A block whose mono mix is this much below its loudest channel counts as lost: channels cancel, or one is not mixed in.
# One silent channel of two costs 6 dB, a voice in one corner of 5.1 about 10.
MAX_MIX_LOSS_DB = 12.0
MAX_MIX_LOSS_SHARE = 0.1  # share of the loudest channel's power that may lie in such blocks


class SoundWriter:
    """Writes decoded sound to a wav file, each frame at its own time.

    end: seconds after which nothing more is written (None: no end)."""

    def __init__(self, path: Path, first: av.AudioFrame, end: float | None) -> None:
        self.rate = min(first.sample_rate, MAX_RATE)
        self.channels = len(first.layout.channels)
        self.layout: Any = first.layout
        if self.channels > MAX_CHANNELS:
            self.channels, self.layout = 2, "stereo"
        self.count = 0  # samples so far, of which those before `end` are written
        self._out = soundfile.SoundFile(path, "w", self.rate, self.channels, "PCM_16", format="WAV")
        self._room = math.inf if end is None else round(end * self.rate)
        self._shape, self._resampler = None, None

    def write(self, sound: av.AudioFrame, at: float | None) -> None:
        """Write the sound at second `at` (None: after the last one): silence fills a gap, an overlap is cut off."""
        samples = self._resample(sound)
        missing = 0 if at is None else round(at * self.rate) - self.count  # samples; negative: an overlap
        slack = MAX_DRIFT_SECONDS * self.rate if self.count else 0
        if missing > slack:
            for done in range(0, missing, 65_536):
                self._append(np.zeros((min(65_536, missing - done), self.channels), np.int16))
        elif missing < -slack:
            samples = samples[-missing:]
        self._append(samples)

    def close(self) -> None:
        self._out.close()

    def _append(self, samples: np.ndarray) -> None:
        room = max(0, self._room - self.count)
        self._out.write(samples[: min(room, len(samples))])
        self.count += len(samples)

    def _resample(self, sound: av.AudioFrame) -> np.ndarray:
        shape = (sound.sample_rate, sound.format.name, sound.layout.name)
        if shape != self._shape:
            self._shape = shape
            self._resampler = av.AudioResampler(format="s16", layout=self.layout, rate=self.rate)
        sound.pts = None  # else the resampler would fill any gap itself, without a limit
        parts = [part.to_ndarray().reshape(-1, self.channels) for part in self._resampler.resample(sound)]  # pyright: ignore[reportOptionalMemberAccess]
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), np.int16)


def read_sound(
    request: DecodeRequest,
    container: av.container.InputContainer,
    stream: av.audio.AudioStream,
    clock: StreamClock,
    report: Callable[[float], None],
    *,
    start: float | None = None,
    end: float | None = None,
    keep_early: bool = False,
) -> dict[str, Any] | None:
    """Write sound.wav; returns facts about it, among them `heard`: seconds decoded. None when nothing can be decoded.

    Args:
        request: gives folder and limits.
        container: holds `stream`.
        stream: the sound to decode.
        clock: of the stream.
        report: is called with the seconds decoded so far.
        start: second of the file that becomes time 0; by default the first of the sound. Later sound is preceded by
            silence, earlier sound is cut off.
        end: seconds after `start` from which on nothing is kept.
        keep_early: sound earlier than `start` is kept, and its first moment becomes time 0.

    Raises InputError where the sound is too long.
    """
    if stream.codec_context is None:  # a codec that is unknown here
        return None
    path, most = Path(request.folder) / "sound.wav", request.limits.seconds
    writer = None
    try:
        for sound in decode_skipping_errors(container, stream, []):
            at = None if sound.pts is None else float(clock(sound.pts) * (stream.time_base or 0))
            if start is None or (keep_early and at is not None and not writer):
                start = at if start is None or at is None else min(start, at)
            offset = None if at is None or start is None else at - start
            writer = writer or SoundWriter(path, sound, end)
            length = max(offset or 0.0, writer.count / writer.rate)
            if length > most + 0.5:
                if end is not None:
                    break
                raise InputError(
                    f"The sound of {request.name} is longer than {most:.0f} s, the most there may be; cut it."
                )
            writer.write(sound, offset)
            report(length)
    finally:
        if writer is not None:
            writer.close()
    if writer is None or not writer.count:
        return None
    heard = writer.count / writer.rate
    seconds = heard if end is None else min(heard, round(end * writer.rate) / writer.rate)
    facts = {"rate": writer.rate, "channels": writer.channels, "seconds": seconds, "heard": heard}
    return facts | {"mono_channel": mono_channel(path), "tags": asdict(TrackTags.of(stream))}


def check_voice(request: DecodeRequest, sound: dict[str, Any] | None) -> dict[str, Any]:
    """The facts of `read_sound`, unchanged. Raises InputError for a voice that is missing, too short or too quiet."""
    name, limits = request.name, request.limits
    if sound is None:
        raise InputError(f"No sound can be decoded from {name}; export it again, as a wav or an mp3.")
    if sound["seconds"] < limits.shortest_voice:
        least = limits.shortest_voice
        raise InputError(f"The voice in {name} lasts {sound['seconds']:.2f} s; at least {least:.1f} s are needed.")
    level = peak_dbfs(Path(request.folder) / "sound.wav")
    if level < limits.quietest_voice:
        found = f"its loudest moment is at {level:.0f} dB" if level > -math.inf else "every sample is the same"
        raise InputError(f"The voice in {name} is silent: {found}, and {limits.quietest_voice:.0f} dB are needed.")
    return sound


def peak_dbfs(path: Path) -> float:
    """Level of the loudest tenth of a second, in dB of full scale (-inf: digital silence, or a constant)."""
    most = 0.0
    with soundfile.SoundFile(path) as file:
        for block in file.blocks(round(file.samplerate * BLOCK_SECONDS), dtype="float32"):
            most = max(most, float(np.mean(block.var(0))))
    return 10 * math.log10(most) if most else -math.inf


def mono_channel(path: Path) -> int | None:
    """Index of the channel to use instead of the mono mix, where mixing loses the voice; None: the mix.

    Power is measured on differences between neighbouring samples, where a constant or a low rumble counts little."""
    with soundfile.SoundFile(path) as file:
        layout = LAYOUTS[file.channels]
        if file.channels == 1:
            return None
        resampler = av.AudioResampler(format="s16", layout="mono", rate=file.samplerate)
        powers, mixed = [], []
        for block in file.blocks(round(file.samplerate * BLOCK_SECONDS), dtype="int16"):
            powers.append(_difference_power(block))
            sound = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=layout)  # pyright: ignore[reportArgumentType] -- int16 is meant
            sound.sample_rate = file.samplerate
            mixed.append(sum(_difference_power(part.to_ndarray().T)[0] for part in resampler.resample(sound)))
    power = np.array(powers)
    loudest = int(power.sum(0).argmax())
    lost = np.array(mixed) < power[:, loudest] * 10 ** (-MAX_MIX_LOSS_DB / 10)
    return loudest if power[lost, loudest].sum() > MAX_MIX_LOSS_SHARE * power[:, loudest].sum() else None


def _difference_power(samples: np.ndarray) -> np.ndarray:
    """[N, C] int16 -> [C]: sum of the squared differences along time."""
    return np.square(np.diff(samples.astype(np.float64), axis=0)).sum(0)
