"""Folders of talking-head videos -> face-crop clips that training reads. Faces are tracked once; resumable.

    python -m syncdiff.training.prepare OUT SET=FOLDER [SET=FOLDER ...] [--workers 2]

For every video `OUT/SET/NAME.mp4` (the 128 px crop, H.264, 25 fps) and `OUT/SET/NAME.npz` (sound, lip landmarks, viseme
curves where the folder has a visemes.npz); for every sound file `OUT/SET/NAME.npz` with the sound alone. Any folder of
videos will do, LRS2, LRS3 and GRID as they are unpacked too: DIR/NAME.mp4 becomes DIR__NAME, and DIR who it shows.
`OUT/SET/report.tsv` lists what was kept, what was dropped, and why. Files that are already there are not made again.
The folders are trusted: visitors' files go through `syncdiff.media` instead.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.faces import OK, choose, track_faces
from syncdiff.geometry.crops import S, align, cut_all
from syncdiff.progress import finished

FPS = 25
VIDEOS, SOUNDS = {".mp4", ".mkv", ".mov", ".avi", ".mpg", ".webm"}, {".wav", ".flac", ".ogg", ".mp3"}
# FaceMesh indices kept, in this order: 20 outer lip points, 20 inner lip points, chin, nose base, nose tip, outer eyes.
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
KEPT = (*OUTER_LIPS, *INNER_LIPS, 152, 2, 4, 33, 263)
MIN_SECONDS, MIN_USABLE = 1.0, 0.95  # of a clip; share of its frames with a usable face


def prepare_set(name: str, folder: Path, out: Path, workers: int = 1) -> list[dict]:
    """Prepare every video and sound below `folder` as set `name`. Returns the rows of the report."""
    (out / name).mkdir(parents=True, exist_ok=True)
    curves = folder / "visemes.npz"
    jobs = [
        (path, out / name / path.relative_to(folder).with_suffix("").as_posix().replace("/", "__"), curves)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEOS | SOUNDS
    ]
    if workers == 1:
        rows = [_prepare_one(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = list(pool.map(_prepare_one, *zip(*jobs, strict=True), chunksize=8)) if jobs else []
    if people := _people(folder, [(path, target.name) for path, target, _ in jobs]):
        with (out / name / "identities.tsv").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([("clip", "identity"), *people])
    with (out / name / "report.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["clip", "frames", "kept", "why"], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _people(folder: Path, clips: list[tuple[Path, str]]) -> list[tuple[str, str]]:
    """Clip names and who is in them: from a MANIFEST.tsv's columns `file` and `identity`, `person` or `speaker`.

    Without one, all clips of a folder are of one person: GRID has one folder a speaker, LRS2 and LRS3 one a video.
    """
    for manifest in (folder / "MANIFEST.tsv", folder.parent / "MANIFEST.tsv"):
        if manifest.exists():
            with manifest.open(newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            named = ((r["file"], r.get("identity") or r.get("person") or r.get("speaker")) for r in rows)
            return [(Path(file).stem, who) for file, who in named if who]
    inside = ((path.relative_to(folder), clip) for path, clip in clips)
    return [(clip, path.parts[0]) for path, clip in inside if len(path.parts) > 1]


def _prepare_one(path: Path, target: Path, curves: Path) -> dict:
    record = target.with_name(target.name + ".npz")
    row = {"clip": target.name, "frames": 0, "kept": 1, "why": ""}
    if record.exists():
        return row | {"why": "already there"}
    try:
        row["frames"] = (
            _write_clip(path, target, curves) if path.suffix.lower() in VIDEOS else _write_sound(path, target)
        )
    except (InputError, av.FFmpegError) as error:
        row |= {"kept": 0, "why": str(error)}
    return row


def _write_sound(path: Path, target: Path) -> int:
    sound = read_sound(path)
    if sound is None or len(sound) < MIN_SECONDS * SAMPLE_RATE:
        raise InputError(f"no sound, or under {MIN_SECONDS} s of it")
    _save(target, sound=sound)
    return 0


def _write_clip(path: Path, target: Path, curves: Path) -> int:
    images = read_frames(path)
    if len(images) < MIN_SECONDS * FPS:
        raise InputError(f"{len(images)} frames, under {MIN_SECONDS} s")
    track = choose(finished(track_faces(iter(images))))
    good = track.state == OK
    if good.mean() < MIN_USABLE:
        raise InputError(f"a usable face in only {good.mean():.0%} of the frames")
    times = np.arange(len(images)) / FPS
    to_frame = align(track, times)
    crops = cut_all(images, to_frame, good)
    points = _to_crop(track.points[:, KEPT], to_frame)
    sound = read_sound(path)
    if sound is None:
        raise InputError("no sound")
    sound = np.pad(sound, (0, max(0, len(images) * SAMPLE_RATE // FPS - len(sound))))
    extra = {}
    if curves.exists():
        with np.load(curves, allow_pickle=True) as file:
            extra["visemes"] = file[path.stem].astype(np.float16)
    scale = np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0])
    write_crops(target.with_name(target.name + ".mp4"), crops)
    _save(target, sound=sound, points=points.astype(np.float16), good=good, scale=scale.astype(np.float16), **extra)
    return len(images)


def _save(target: Path, *, sound: np.ndarray, **arrays) -> None:
    """Write the record, the last of a clip's files, under another name and rename it: a clip with a record is whole."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial.npz")
    np.savez_compressed(partial, sound=np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16), **arrays)
    partial.rename(target.with_name(target.name + ".npz"))


def _to_crop(points: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
    """[T, P, 2] frame pixels -> crop pixels."""
    inverse = np.linalg.inv(to_frame[:, :, :2].astype(np.float64))
    return np.einsum("tij,tpj->tpi", inverse, points - to_frame[:, None, :, 2])


def read_frames(path: Path) -> list[np.ndarray]:
    """RGB frames [H, W, 3] uint8 at 25 fps."""
    return [frame.to_ndarray(format="rgb24") for frame in decode_frames(path)]


def decode_frames(path: Path) -> list[av.VideoFrame]:
    """Decoded frames at 25 fps: for every tick of the clock the frame on screen at that time."""
    with av.open(str(path)) as container:
        stamped = [(frame.time, frame) for frame in container.decode(video=0)]
    start = stamped[0][0]
    starts = np.array([t - start for t, _ in stamped])
    step = float(np.median(np.diff(starts))) if len(starts) > 1 else 1 / FPS
    ticks = np.arange(round((starts[-1] + step) * FPS)) / FPS
    return [stamped[i][1] for i in np.searchsorted(starts, ticks + 0.25 * step, side="right") - 1]


def read_sound(path: Path) -> np.ndarray | None:
    """[N] float32 mono at 16 kHz from the video's first frame on, or None."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        video = container.streams.video
        start = float((video[0].start_time or 0) * (video[0].time_base or 0)) if video else 0.0
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        parts, first = [], None
        for frame in container.decode(audio=0):
            first = frame.time if first is None else first
            parts += [f.to_ndarray()[0] for f in resampler.resample(frame)]
        parts += [f.to_ndarray()[0] for f in resampler.resample(None)]
    if not parts:
        return None
    sound = np.concatenate(parts)
    late = round(((first or 0.0) - start) * SAMPLE_RATE) if video else 0
    return np.pad(sound, (late, 0)) if late > 0 else sound[-late:]


def write_crops(path: Path, crops: np.ndarray) -> None:
    """[T, S, S, 3] uint8 -> H.264 4:4:4 at CRF 12: about 45 dB, a tenth of a percent of the raw size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12", "preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = S, S, "yuv444p"
        for crop in crops:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(crop, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="+", metavar="SET=FOLDER")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    for spec in args.sets:
        name, _, folder = spec.partition("=")
        rows = prepare_set(name, Path(folder), args.out, args.workers)
        kept = sum(row["kept"] for row in rows)
        minutes = sum(row["frames"] for row in rows) / FPS / 60
        print(f"{name}: {kept} of {len(rows)} kept, {minutes:.1f} min new", flush=True)


if __name__ == "__main__":
    main()
