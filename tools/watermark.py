"""Does the invisible watermark survive copying, and is it detected where there is none?

    python tools/watermark.py VIDEO|FOLDER ... [--seconds 5] [--keys 1000]

The first seconds of every video: its own mouth is marked, pasted and written as the product does it ("own"), saved
again at CRF 28 by x264, and that at half size. Each file is then read as a stranger would read it: decoded, faces found
anew, crops cut anew. Bits are the chips with the right sign. For false alarms the videos are read as they are, with our
key and with as many others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces import OK, choose, track_faces
from syncdiff.geometry.crops import align, cut, paste_crop
from syncdiff.media import Clip, ClipWriter, Speech, open_clip, timeline
from syncdiff.progress import finished
from syncdiff.provenance.label import label
from syncdiff.provenance.watermark import CHIPS, Watermark, WatermarkReading, detect, soft_chips_of

CRF = 28
COPIES = {"own": None, f"CRF {CRF}": False, f"half size, CRF {CRF}": True}  # name: at half size? None: not copied


@dataclass(frozen=True)
class Examined:
    """One video."""

    name: str
    scale: float  # frame px per crop px
    copies: dict[str, WatermarkReading]
    unmarked: WatermarkReading  # of the video as it is
    others: list[WatermarkReading]  # the same with other keys


def write_marked(clip: Clip, out: Path, mark: Watermark, seconds: float = np.inf) -> float:
    """Write the clip's first seconds with its own mouth marked, and labelled; returns frame px per crop px."""
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
                patch = paste_crop(image, drawn, to_frame[i])
            writer.write(frame, line.times[i], patch, plate)
    return float(np.nanmedian(np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0])))


def re_encode(video: Path, out: Path, *, half: bool = False) -> Path:
    """Save a video again, as any program might: H.264 at CRF 28, x264's default effort; `half`: at half size."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        original = source.streams.video[0]
        stream = target.add_stream("libx264", rate=original.average_rate, options={"crf": str(CRF)})
        stream.width, stream.height = (side // 4 * 2 if half else side for side in (original.width, original.height))
        stream.pix_fmt = "yuv420p"
        for frame in source.decode(original):
            image = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            image.pict_type = 0
            target.mux(stream.encode(image))
        target.mux(stream.encode())
    return out


def soft_chips(video: Path) -> list[tuple[np.ndarray, float]]:
    """What a stranger reads: soft chips and seconds of each face."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        return finished(soft_chips_of(open_clip(video, Path(folder))))


def with_other_keys(faces: Sequence[tuple[np.ndarray, float]], keys: int) -> list[WatermarkReading]:
    """What readers with other keys would have found."""
    return [detect(faces, chips) for chips in np.random.default_rng(0).choice([-1.0, 1.0], (keys, CHIPS))]


def examine(video: Path, seconds: float, keys: int) -> Examined:
    """Mark, copy and read one video. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
        folder = Path(name)
        clip = open_clip(video, folder)
        unmarked = soft_chips(video)
        scale = write_marked(clip, folder / "own.mp4", Watermark(), seconds)
        copies = {}
        for how, half in COPIES.items():
            file = folder / "own.mp4" if half is None else re_encode(folder / "own.mp4", folder / "copy.mp4", half=half)
            copies[how] = detect(soft_chips(file))
    return Examined(video.name, scale, copies, detect(unmarked), with_other_keys(unmarked, keys))


def table(videos: list[Examined]) -> str:
    """Markdown: a row a video; below, how many were found, the bits, and the false alarms."""
    heads = [f"{how}: z, bits" for how in COPIES]
    lines = [f"| video | crop px to frame px | s | {' | '.join(heads)} | unmarked: z |", "|---" * 7 + "|"]
    for video in videos:
        cells = [f"{'found' if r.found else 'missed'}, {r.z:.1f}, {r.agreement:.0%}" for r in video.copies.values()]
        cells = [video.name, f"{video.scale:.1f}", f"{video.copies['own'].seconds:.1f}", *cells]
        lines.append(f"| {' | '.join(cells)} | {video.unmarked.z:.1f} |")
    sums = []
    for how in COPIES:
        readings = [v.copies[how] for v in videos]
        agreement = np.mean([r.agreement for r in readings])
        sums.append(f"{sum(r.found for r in readings)} of {len(readings)}, {agreement:.0%}")
    lines.append(f"| all | | | {' | '.join(sums)} | at most {max(v.unmarked.z for v in videos):.1f} |")
    others = [reading for video in videos for reading in video.others]
    if others:
        lines.append(
            f"\nFound from z {videos[0].unmarked.needed:.2f} on (one face). {len(others):,} readings of unmarked "
            f"videos with other keys: z at most {max(r.z for r in others):.2f}, {sum(r.found for r in others)} found."
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
    parser.add_argument("--keys", type=int, default=1000)
    args = parser.parse_args()
    examined = []
    for video in videos_in(args.videos):
        try:
            examined.append(examine(video, args.seconds, args.keys))
        except InputError as sentence:
            print(f"{video.name}: {sentence}", file=sys.stderr)
        else:
            print(examined[-1].name, examined[-1].copies, file=sys.stderr, flush=True)
    if not examined:
        sys.exit("No video could be read.")
    print(table(examined))


if __name__ == "__main__":
    main()
