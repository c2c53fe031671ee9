"""Presentation times on a clock without jumps, and the frame rate. Runs in the decode worker."""

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
MAX_LONE_GAP_SECONDS = 10.0  # a longer gap in a stream without another is a jump; a shorter one is a pause
MIN_COVERED = 0.5  # share of a gap in one stream that the other must fill for the gap to be real
MAX_PACKET_SECONDS = 600.0  # a longer duration of a packet is ignored: joined Vorbis files show 2^32 ticks
MAX_PACKETS = 1_000_000  # later jumps are not closed. Ten minutes at 250 frames a second have 150,000 packets
MATCH_SECONDS = 0.02  # tolerance when a time stamp is assigned to a stretch


@dataclass
class Stretch:
    """Packets of one stream between two jumps of its clock; all in the stream's ticks."""

    shift: int  # to be added to their time stamps
    low: int  # earliest presentation time
    high: int  # latest presentation time


@dataclass
class StreamClock:
    """Maps presentation times of one stream to a clock without jumps. Called in decoding order."""

    unit: Fraction  # seconds per tick
    stretches: list[Stretch] = field(default_factory=list)
    first_key: int | None = None  # presentation time of the first key frame
    end: int = 0  # when the last packet ends, on the clock without jumps
    _current: int = 0  # index of the stretch of the last call
    _last: int | None = None  # tick of the last call

    @property
    def start(self) -> float | None:
        """Time of the first packet, s; None where the stream has none."""
        return float(self.stretches[0].low * self.unit) if self.stretches else None

    @property
    def seconds(self) -> float:
        """Seconds from the first packet to the end of the last."""
        return float(self.end * self.unit) - (self.start or 0.0)

    def __call__(self, tick: int) -> int:
        """Tick on the clock without jumps."""
        if not self.stretches:
            return tick
        slack = round(MATCH_SECONDS / self.unit)
        current = self.stretches[self._current]
        if tick > current.high + slack or (self._last is not None and tick < self._last - slack):
            later = enumerate(self.stretches[self._current + 1 :], self._current + 1)
            matches = (i for i, stretch in later if stretch.low - slack <= tick <= stretch.high + slack)
            self._current = next(matches, self._current)
        self._last = tick
        return tick + self.stretches[self._current].shift


@dataclass
class Scan:
    """What the packets of a file tell before any is decoded."""

    clocks: dict[int, StreamClock]  # by stream index
    jumps: int = 0  # of the file's clock


@dataclass
class _Packets:
    """Packets of one stream, in file order."""

    dts: list[float] = field(default_factory=list)  # decoding times, s
    pts: list[int] = field(default_factory=list)  # presentation times, ticks
    durations: list[float] = field(default_factory=list)  # s


def lacks_pts(container: av.container.Container) -> bool:
    """Whether only decoding times can be used: for AVI, ffmpeg guesses presentation times, wrongly with B-frames."""
    return container.format.name == "avi"


def scan(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream], keep_alive: Callable[[], None]
) -> Scan:
    """Read all packets of the streams without decoding them, and close the jumps of their clock.

    A gap that another stream fills is kept: a held picture, a pause. A gap in all streams is a jump, and so is a step
    back: the file joins two recordings. What follows a jump continues where the last packet ended; picture and sound
    stay together. keep_alive: is called every 1000 packets.
    """
    packets = {stream.index: _Packets() for stream in streams}
    order: list[int] = []  # stream index of every packet
    result = Scan({stream.index: StreamClock(stream.time_base or Fraction(1, 1000)) for stream in streams})
    demuxed = container.demux(*streams)
    while len(order) < MAX_PACKETS:
        try:
            packet = next(demuxed, None)
        except av.error.FFmpegError:  # a damaged place; the demuxer goes on behind it, or ends
            continue
        if packet is None:
            break
        pts = packet.dts if lacks_pts(container) or packet.pts is None else packet.pts
        if pts is None:
            continue
        stream_packets, unit = packets[packet.stream_index], packet.time_base
        stream_packets.dts.append(float((pts if packet.dts is None else packet.dts) * unit))
        stream_packets.pts.append(pts)
        duration = float((packet.duration or 0) * unit)
        stream_packets.durations.append(duration if duration <= MAX_PACKET_SECONDS else 0.0)
        clock = result.clocks[packet.stream_index]
        if clock.first_key is None and packet.is_keyframe:
            clock.first_key = pts
        order.append(packet.stream_index)
        if len(order) % 1000 == 0:
            keep_alive()
    _close_jumps(result, packets, order)
    return result


def _close_jumps(result: Scan, packets: dict[int, _Packets], order: Sequence[int]) -> None:
    """Fill in the stretches of every clock of `result`, and the number of jumps.

    A source clock is one recording's clock in a file that joins several; streams may switch to it at different packets.
    """
    shifts, starts, opened_by = [0.0], [-np.inf], [-1]  # s, s, stream index: of every source clock, the oldest first
    position = dict.fromkeys(packets, 0)  # index of each stream's next packet
    source = dict.fromkeys(packets, 0)  # source clock that each stream is on
    ends = dict.fromkeys(packets, None)  # s, end of each stream's last packet, on that clock
    jumps = {index: _jumps(packets, index) for index in packets}
    for index in order:
        stream_packets, i, clock = packets[index], position[index], result.clocks[index]
        position[index] += 1
        dts, pts = stream_packets.dts[i], stream_packets.pts[i]
        newest = len(shifts) - 1
        if i in jumps[index]:
            joins = source[index] < newest and opened_by[-1] != index
            if not (joins and abs(dts - starts[-1]) < MAX_LONE_GAP_SECONDS):  # no other stream has jumped there before
                reached = max(end + shifts[source[j]] for j, end in ends.items() if end is not None)
                shifts.append(reached - dts)
                starts.append(dts)
                opened_by.append(index)
                newest += 1
            source[index] = newest
            clock.stretches.append(Stretch(round(shifts[-1] / clock.unit), pts, pts))
        elif not clock.stretches:
            clock.stretches.append(Stretch(0, pts, pts))
        stretch = clock.stretches[-1]
        stretch.low, stretch.high = min(stretch.low, pts), max(stretch.high, pts)
        clock.end = max(clock.end, pts + stretch.shift + round(stream_packets.durations[i] / clock.unit))
        ends[index] = dts + stream_packets.durations[i]
    result.jumps = len(shifts) - 1


def _jumps(packets: dict[int, _Packets], index: int) -> set[int]:
    """Indices of a stream's packets before which its clock jumps."""
    stream_packets = packets[index]
    dts = np.array(stream_packets.dts)
    if len(dts) < 2:
        return set()
    gaps = dts[1:] - dts[:-1] - stream_packets.durations[:-1]
    jumps = set((np.flatnonzero(np.diff(dts) < -MAX_BACKWARD_SECONDS) + 1).tolist())
    others = [(np.array(one.dts), np.array(one.durations)) for key, one in packets.items() if key != index and one.dts]
    for i in (np.flatnonzero(gaps > MAX_COMMON_GAP_SECONDS) + 1).tolist():
        covered, common = 0.0, False
        for times, durations in others:
            inside = (times > dts[i - 1]) & (times < dts[i])
            covered = max(covered, float(durations[inside].sum()))
            common |= bool((times <= dts[i - 1] + 0.5).any() and (times >= dts[i] - 0.5).any())
        limit = MAX_COMMON_GAP_SECONDS if common else MAX_LONE_GAP_SECONDS
        if gaps[i - 1] > limit and covered < MIN_COVERED * gaps[i - 1]:
            jumps.add(i)
    return jumps


def frame_times(
    ticks: list[int], unit: Fraction, last_duration: int, average: Fraction | None
) -> tuple[np.ndarray, float, Fraction, bool]:
    """(times [T] float64 from 0 on, end of the last frame, frame rate, whether the times are exactly i / rate).

    A container that rounds time stamps gets its constant frame rate back; real variation is kept.

    Args:
        ticks: presentation times, in units of `unit` seconds.
        unit: seconds per tick.
        last_duration: ticks that the last frame is shown; 0 where unknown.
        average: frame rate that the container states.
    """
    times = (np.array(ticks, np.int64) - ticks[0]) * float(unit)
    T = len(times)
    if T == 1:
        return np.zeros(1), float(1 / PHOTO_RATE), PHOTO_RATE, True
    measured = Fraction((T - 1) / times[-1]).limit_denominator(1001)
    candidates = [rate for rate in (average, *USUAL_RATES, measured) if rate]
    grid = np.arange(T)
    error, best = min((float(np.abs(times - grid / float(rate)).max()), i) for i, rate in enumerate(candidates))
    rate = candidates[best]
    if error <= max(ROUNDING_SECONDS, 1.01 * float(unit)) and error < 0.25 / float(rate):
        return grid / float(rate), T / float(rate), rate, True
    typical = float(np.median(np.diff(times)))
    last = last_duration * float(unit)
    seconds = float(times[-1]) + (last if 0 < last <= 4 * typical else typical)
    return times, seconds, Fraction(T / seconds).limit_denominator(1001), False
