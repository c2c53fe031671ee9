"""Does the invisible mark come through, and is it seen where there is none?

    python -m syncdiff.provenance.measure VIDEO|FOLDER ... [--seconds 5] [--number 0] [--keys 1000]

The first seconds of every video: its own mouth is marked, pasted and written as the product does it ("own"), saved
again at CRF 28 by x264, and that at half size. Each file is then read as a stranger would read it - intake, faces
found anew, crops cut anew. Bits are the 16 of the job number (0 unless a host counts its jobs), from the likeliest
payload even where it does not count as found. For false alarms the videos are read as they are, with our key and with
as many others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces import OK, choose, track_faces
from syncdiff.geometry.crops import align, cut, paste
from syncdiff.media import Clip, ClipWriter, Speech, open_clip, timeline
from syncdiff.progress import finished
from syncdiff.provenance import payload
from syncdiff.provenance.label import label
from syncdiff.provenance.watermark import SHIFTS, Watermark, alignments, rhythms_of

BITS = 16  # of a job number
CRF = 28
COPIES = {"own": None, f"CRF {CRF}": False, f"half size, CRF {CRF}": True}  # name: at half size? None: not copied
RATES = (1e-2, 1e-3, 1e-6)  # false alarms stated, against which those of other keys are held


@dataclass(frozen=True)
class Reading:
    """The likeliest payload of one file."""

    z: float
    found: bool
    bits: int  # of BITS that are right


@dataclass(frozen=True)
class Examined:
    """One video."""

    name: str
    scale: float  # frame px per crop px
    seconds: float
    copies: dict[str, Reading]
    unmarked: float  # z of the video as it is
    others: list[payload.Finding]  # the same with other keys


def written(clip: Clip, out: Path, mark: Watermark, seconds: float = np.inf) -> float:
    """The clip's first seconds with its own mouth marked, labelled, by our writer; frame px per crop px."""
    track = choose(finished(track_faces(frame.rgb() for frame in clip.frames())))
    to_frame = align(track, clip.times)
    plate = label(clip.width, clip.height)
    line = timeline(clip, Speech(out, 48_000, 1, min(seconds, clip.seconds)), "trim")
    with ClipWriter(out, clip, line, None) as writer:
        for i, frame in zip(range(len(line)), clip.frames(line.indices), strict=True):
            patch = None
            if track.state[i] == OK:
                image = frame.rgb()
                drawn = mark.mark(cut(image, to_frame[i]), line.times[i])
                patch = paste(image, drawn, to_frame[i])
            writer.write(frame, line.times[i], patch, plate)
    return float(np.nanmedian(np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0])))


def copied(video: Path, out: Path, *, half: bool = False) -> Path:
    """As any program saves it again: H.264 at CRF 28, x264's default effort."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        given = source.streams.video[0]
        stream = target.add_stream("libx264", rate=given.average_rate, options={"crf": str(CRF)})
        stream.width, stream.height = (side // 4 * 2 if half else side for side in (given.width, given.height))
        stream.pix_fmt = "yuv420p"
        for frame in source.decode(given):
            image = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            image.pict_type = 0
            target.mux(stream.encode(image))
        target.mux(stream.encode())
    return out


def chips_of(video: Path) -> np.ndarray:
    """What a stranger reads: soft chips [alignments of all faces, CHIPS]."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        return alignments(finished(rhythms_of(open_clip(video, Path(folder)))))


def read(chips: np.ndarray, number: int) -> Reading:
    """What soft chips [N, CHIPS] say, held against the job number that was written."""
    finding = payload.Finding.of(chips)
    said, needed = finding.judged()
    return Reading(said.z, said.z >= needed, BITS - (finding.likeliest.number ^ number).bit_count())


def with_other_keys(chips: np.ndarray, keys: int) -> list[payload.Finding]:
    """What readers with other keys would have found in soft chips [N, CHIPS]."""
    flips = np.random.default_rng(0).choice([-1.0, 1.0], (keys, payload.CHIPS))
    return [payload.Finding.of(chips * flip) for flip in flips]


def examine(video: Path, seconds: float, number: int, keys: int) -> Examined:
    """Mark, copy and read one video. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
        folder = Path(name)
        clip = open_clip(video, folder)
        unmarked = chips_of(video)
        scale = written(clip, folder / "own.mp4", Watermark(number), seconds)
        copies = {}
        for how, half in COPIES.items():
            file = folder / "own.mp4" if half is None else copied(folder / "own.mp4", folder / "copy.mp4", half=half)
            copies[how] = read(chips_of(file), number)
    z = read(unmarked, number).z
    return Examined(video.name, scale, min(seconds, clip.seconds), copies, z, with_other_keys(unmarked, keys))


def table(videos: list[Examined]) -> str:
    """Markdown: a row a video; below, how many were found, the bits, and the false alarms."""
    heads = [f"{how}: z, bits" for how in COPIES]
    lines = [f"| video | crop px to frame px | s | {' | '.join(heads)} | unmarked: z |", "|---" * 7 + "|"]
    for video in videos:
        cells = [f"{'found' if r.found else 'missed'}, {r.z:.1f}, {r.bits}/{BITS}" for r in video.copies.values()]
        lines.append(f"| {video.name} | {video.scale:.1f} | {video.seconds:.1f} | {' | '.join(cells)} "
                     f"| {video.unmarked:.1f} |")  # fmt: skip
    sums = []
    for how in COPIES:
        here = [v.copies[how] for v in videos]
        right = np.mean([r.bits / BITS for r in here])
        sums.append(f"{sum(r.found for r in here)} of {len(here)}, bits {right:.1%}")
    lines.append(f"| all | | | {' | '.join(sums)} | at most {max(v.unmarked for v in videos):.1f} |")
    others = [finding for video in videos for finding in video.others]
    if others:
        shares = []
        for rate in RATES:
            judged = [finding.judged(rate) for finding in others]
            shares.append(f"{np.mean([said.z >= needed for said, needed in judged]):.2%} at 1 in {1 / rate:,.0f}")
        zero, another = (payload.threshold(SHIFTS, number) for number in (0, 1))
        highest = max(finding.likeliest.z for finding in others)
        lines.append(
            f"\nFound from z {zero:.2f} on with number 0, from {another:.2f} on with another. {len(others):,} readings "
            f"of unmarked videos with other keys: z at most {highest:.2f}; found by chance, for a stated rate of false "
            f"alarms: {', '.join(shares)}."
        )
    return "\n".join(lines)


def videos_in(paths: list[Path]) -> Iterator[Path]:
    """Files as they are, folders by the videos in them."""
    for path in paths:
        yield from sorted(p for p in path.rglob("*.mp4")) if path.is_dir() else [path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--number", type=int, default=0, help="the job's, 0 to 65535")
    parser.add_argument("--keys", type=int, default=1000)
    args = parser.parse_args()
    found = []
    for video in videos_in(args.videos):
        try:
            found.append(examine(video, args.seconds, args.number, args.keys))
        except InputError as sentence:
            print(f"{video.name}: {sentence}", file=sys.stderr)
        else:
            print(found[-1].name, found[-1].copies, file=sys.stderr, flush=True)
    if not found:
        sys.exit("No video could be read.")
    print(table(found))


if __name__ == "__main__":
    main()
