"""Time stamps -> seconds on a clock without jumps, and the frame rate if it is steady. Runs in the decode worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.container
import av.error
import av.stream
import numpy as np

from syncdiff.media.clip import PHOTO_RATE

BROADCAST_RATES = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))
USUAL_RATES = BROADCAST_RATES + tuple(Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60))
ROUNDING_SECONDS = 1.1e-3  # matroska keeps whole milliseconds
MAX_BACKWARD_SECONDS = 0.3  # decoding times that go back by more belong to another recording
MAX_COMMON_GAP_SECONDS = 1.0  # a longer gap in picture and sound at once is a jump of the clock
MAX_LONE_GAP_SECONDS = 10.0  # a longer gap in the only stream is a jump; a shorter one is a still picture or silence
MIN_COVERED = 0.5  # share of a gap in one stream that the other must fill for the gap to be real
MAX_PACKET_SECONDS = 600.0  # a packet said to last longer says nothing: in joined Vorbis takes ffmpeg counts 2^32 ticks
MAX_PACKETS = 1_000_000  # scanned; jumps behind them stay open. Ten minutes at 250 frames a second have 150,000


@dataclass
class Stretch:
    """Packets of one stream on one unbroken clock, in the stream's ticks."""

    shift: int  # to add to their time stamps
    low: int  # presentation times of the packets: first and last
    high: int


@dataclass
class StreamClock:
    """Presentation times of one stream -> ticks on a clock without jumps, in the order of decoding."""

    unit: Fraction  # seconds per tick
    stretches: list[Stretch] = field(default_factory=list)
    first_key: int | None = None  # presentation time of the first key frame
    end: int = 0  # when the last packet ends, on the clock without jumps
    _at: int = 0
    _last: int | None = None

    @property
    def start(self) -> float | None:
        """Seconds, of the first packet; None where the stream has none."""
        return float(self.stretches[0].low * self.unit) if self.stretches else None

    @property
    def seconds(self) -> float:
        """From the first packet to the end of the last."""
        return float(self.end * self.unit) - (self.start or 0.0)

    def __call__(self, tick: int) -> int:
        """The tick without jumps."""
        if not self.stretches:
            return tick
        slack = round(0.02 / self.unit)
        here = self.stretches[self._at]
        left = tick > here.high + slack or (self._last is not None and tick < self._last - slack)
        if left:
            later = self.stretches[self._at + 1 :]
            at = next((i for i, s in enumerate(later) if s.low - slack <= tick <= s.high + slack), None)
            if at is not None:
                self._at += 1 + at
        self._last = tick
        return tick + self.stretches[self._at].shift


@dataclass
class Scan:
    """What the packets of a file say before any is decoded."""

    clocks: dict[int, StreamClock]  # by stream index
    jumps: int = 0


@dataclass
class _Packets:
    """Decoding time, presentation time and length of a stream's packets, in seconds."""

    stream: av.stream.Stream
    decoded: list[float] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)  # ticks
    lasts: list[float] = field(default_factory=list)


def scan(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream], alive: Callable[[], None]
) -> Scan:
    """Read all packets of the streams without decoding them, and close the jumps of their clock.

    A gap that the other stream fills is kept: a held picture, a pause. A gap in both is a jump, and so is a step back:
    the file joins two recordings. What follows it goes on where the last stopped; picture and sound stay together.
    """
    rows = {stream.index: _Packets(stream) for stream in streams}
    order: list[int] = []
    only_order = container.format.name == "avi"  # its presentation times are ffmpeg's guess
    found = Scan({stream.index: StreamClock(stream.time_base or Fraction(1, 1000)) for stream in streams})
    packets = container.demux(*streams)
    while len(order) < MAX_PACKETS:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # a damaged place; the demuxer goes on behind it, or ends
            continue
        if packet is None:
            break
        shown = packet.dts if only_order or packet.pts is None else packet.pts
        if shown is None:
            continue
        row, unit = rows[packet.stream_index], packet.time_base
        row.decoded.append(float((shown if packet.dts is None else packet.dts) * unit))
        row.shown.append(shown)
        lasts = float((packet.duration or 0) * unit)
        row.lasts.append(lasts if lasts <= MAX_PACKET_SECONDS else 0.0)
        clock = found.clocks[packet.stream_index]
        if clock.first_key is None and packet.is_keyframe:
            clock.first_key = shown
        order.append(packet.stream_index)
        if len(order) % 1000 == 0:
            alive()
    _close_jumps(found, rows, order)
    return found


def _close_jumps(found: Scan, rows: dict[int, _Packets], order: Sequence[int]) -> None:
    shifts, starts, opened_by = [0.0], [-np.inf], [-1]  # of every clock in the file, the oldest first
    place = dict.fromkeys(rows, 0)  # of the next packet of each stream
    on = dict.fromkeys(rows, 0)  # the clock that each stream is on
    ends = dict.fromkeys(rows, None)  # when its last packet ended, on that clock
    jumps = {index: _jumps(rows, index) for index in rows}
    for index in order:
        row, i = rows[index], place[index]
        place[index] += 1
        at, clock = row.decoded[i], found.clocks[index]
        if i in jumps[index]:
            if on[index] < len(shifts) - 1 and opened_by[-1] != index and abs(at - starts[-1]) < MAX_LONE_GAP_SECONDS:
                on[index] = len(shifts) - 1  # the other stream has jumped to this clock before
            else:
                reached = max(end + shifts[on[j]] for j, end in ends.items() if end is not None)
                shifts.append(reached - at)
                starts.append(at)
                opened_by.append(index)
                on[index] = len(shifts) - 1
            clock.stretches.append(Stretch(round(shifts[-1] / clock.unit), row.shown[i], row.shown[i]))
        elif not clock.stretches:
            clock.stretches.append(Stretch(0, row.shown[i], row.shown[i]))
        stretch = clock.stretches[-1]
        stretch.low, stretch.high = min(stretch.low, row.shown[i]), max(stretch.high, row.shown[i])
        clock.end = max(clock.end, row.shown[i] + stretch.shift + round(row.lasts[i] / clock.unit))
        ends[index] = at + row.lasts[i]
    found.jumps = len(shifts) - 1


def _jumps(rows: dict[int, _Packets], index: int) -> set[int]:
    """Packets of a stream before which its clock jumps."""
    row = rows[index]
    at = np.array(row.decoded)
    if len(at) < 2:
        return set()
    gaps = at[1:] - at[:-1] - row.lasts[:-1]
    found = set((np.flatnonzero(np.diff(at) < -MAX_BACKWARD_SECONDS) + 1).tolist())
    others = [np.array(other.decoded) for key, other in rows.items() if key != index and other.decoded]
    spans = [np.array(other.lasts) for key, other in rows.items() if key != index and other.decoded]
    for i in (np.flatnonzero(gaps > MAX_COMMON_GAP_SECONDS) + 1).tolist():
        covered, common = 0.0, False
        for times, lasts in zip(others, spans, strict=True):
            inside = (times > at[i - 1]) & (times < at[i])
            covered = max(covered, float(lasts[inside].sum()))
            common |= bool((times <= at[i - 1] + 0.5).any() and (times >= at[i] - 0.5).any())
        limit = MAX_COMMON_GAP_SECONDS if common else MAX_LONE_GAP_SECONDS
        if gaps[i - 1] > limit and covered < MIN_COVERED * gaps[i - 1]:
            found.add(i)
    return found


def frame_times(
    ticks: list[int], unit: Fraction, last: int, average: Fraction | None
) -> tuple[np.ndarray, float, Fraction, bool]:
    """(times [T] float64 from 0 on, end of the last frame, frame rate, whether the times are exactly i / rate).

    ticks: when each frame is shown, in `unit` seconds; last: how long the last one stays (0: not said); average: the
    rate the container names. A container that rounds time stamps gets its steady rate back; real variation is kept."""
    times = (np.array(ticks, np.int64) - ticks[0]) * float(unit)
    T = len(times)
    if T == 1:
        return np.zeros(1), float(1 / PHOTO_RATE), PHOTO_RATE, True
    measured = Fraction((T - 1) / times[-1]).limit_denominator(1001)
    candidates = [rate for rate in (average, *USUAL_RATES, measured) if rate]
    grid = np.arange(T)
    error, place = min((float(np.abs(times - grid / float(rate)).max()), i) for i, rate in enumerate(candidates))
    if error <= max(ROUNDING_SECONDS, 1.01 * float(unit)) and error < 0.25 / float(candidates[place]):
        rate = candidates[place]
        return grid / float(rate), T / float(rate), rate, True
    usual = float(np.median(np.diff(times)))
    stays = last * float(unit)
    seconds = float(times[-1]) + (stays if 0 < stays <= 4 * usual else usual)
    return times, seconds, Fraction(T / seconds).limit_denominator(1001), False
