"""A video file, or a folder of them -> LSE-C and LSE-D by either protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces.face_alignment_backend import load_s3fd
from syncdiff.faces.tracker import SceneCuts
from syncdiff.media import LIMITS, Clip, Limits, read_clip
from syncdiff.progress import scaled
from syncdiff.sync.scoring import FPS, FRAME_SAMPLES, Scores
from syncdiff.sync.syncnet_v2.distance import lse
from syncdiff.sync.syncnet_v2.face_windows import embed_video, jpeg_round_trip, resized
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.sync.syncnet_v2.s3fd import find_original, read_original
from syncdiff.sync.syncnet_v2.sound_windows import embed_audio
from syncdiff.sync.syncnet_v2.tracks import MIN_FACE, MIN_TRACK, Track, crop, detect, link_tracks, smoothed_boxes

Protocol = Literal["frame", "tracks"]
NAMES = {
    "frame": "SyncNet v2, LSE on the whole frame",
    "tracks": "SyncNet v2, LSE on face tracks",
}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".ts", ".m4v", ".mpg"}


def score_video(
    video: Path | str,
    net: SyncNet,
    protocol: Protocol = "tracks",
    *,
    min_track: int = MIN_TRACK,
    limits: Limits = LIMITS,
) -> Generator[float, None, tuple[Scores, ...]]:
    """LSE-C (confidence) and LSE-D (distance) of a video file. Yields progress, 0..1; returns one Scores a face.

    Args:
        protocol: "frame": the whole frame squashed to 224x224, for videos that show nothing but a centred face (LRS2,
            LRS3; what SyncDiff's and TalkLip's tables hold). "tracks": real videos; every face that S3FD follows for
            more than `min_track` frames of one shot, its score from its own stretch of the sound.
        min_track: 100 in the original; LatentSync's figures are with 50.
        limits: those of uploads by default.

    Where nothing can be scored the one Scores has a reason. What differs from the original is listed in docs/lse.md.
    Raises InputError.
    """
    name = NAMES[protocol]
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        clip = yield from scaled(read_clip(video, Path(folder), limits), 0.0, 0.1)
        if clip.speech is None:
            return (Scores(name, reason="not scorable: the video has no sound"),)
        samples, indices = clip.speech.samples(), _indices_at_25_fps(clip)
        if protocol == "frame":
            pictures = resized(jpeg_round_trip(frame.image for frame in clip.frames(indices)))
            return ((yield from scaled(_score(net, pictures, len(indices), samples, name), 0.1, 1.0)),)
        tracks = yield from scaled(_face_tracks(clip, indices, min_track), 0.1, 0.5)
        scores = []
        for i, track in enumerate(tracks):
            boxes, stop = smoothed_boxes(track), track.first + len(track.boxes)
            frames = clip.frames(indices[track.first : stop])
            faces = (crop(frame.rgb(), *box) for frame, box in zip(frames, boxes, strict=True))
            sound = samples[track.first * FRAME_SAMPLES : stop * FRAME_SAMPLES]
            steps = _score(net, resized(jpeg_round_trip(faces)), len(boxes), sound, name)
            first, last = (0.5 + 0.5 * n / len(tracks) for n in (i, i + 1))
            scores.append((yield from scaled(steps, first, last)))
    if not scores:
        least = f"more than {min_track} frames at 25 fps and {MIN_FACE} pixels across"
        scores.append(Scores(name, reason=f"not scorable: no face is followed for {least}"))
    return tuple(scores)


def _indices_at_25_fps(clip: Clip) -> np.ndarray:
    """Numbers of the frames that are shown at every 25th of a second."""
    ticks = np.arange(int(clip.seconds * FPS + 1e-6)) / FPS
    return np.searchsorted(clip.times, ticks + 1e-6, side="right") - 1


def _face_tracks(clip: Clip, indices: np.ndarray, min_track: int) -> Generator[float, None, list[Track]]:
    original = find_original()
    detector = read_original(original) if original else load_s3fd()
    scenes, boxes = SceneCuts(), []
    for t, frame in enumerate(clip.frames(indices)):
        image = frame.rgb()
        scenes.changed(t, image)
        boxes.append(detect(detector, image))
        yield (t + 1) / len(indices)
    return link_tracks(boxes, scenes.cuts, min_track)


def _score(
    net: SyncNet, pictures: Iterable[np.ndarray], frames: int, samples: np.ndarray, name: str
) -> Generator[float, None, Scores]:
    embeddings: list[np.ndarray] = []
    for batch in embed_video(net, pictures):
        embeddings.append(batch)
        yield sum(map(len, embeddings)) / frames
    return lse(np.concatenate(embeddings or [np.zeros((0, 1024))]), embed_audio(net, samples), name)


@dataclass(frozen=True)
class Row:
    """One video of a folder."""

    video: Path
    scores: tuple[Scores, ...]  # one a face


def score_folder(folder: Path, net: SyncNet, protocol: Protocol = "frame") -> Generator[float, None, list[Row]]:
    """Every video in a folder and the folders in it, by name, as `score_video`; one that cannot be read gets a reason.

    Raises InputError for a folder without videos."""
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not videos:
        raise InputError(f"{folder} holds no video: give a folder of files in {', '.join(sorted(VIDEOS))}.")
    rows = []
    for i, video in enumerate(videos):
        try:
            scores = yield from scaled(score_video(video, net, protocol), i / len(videos), (i + 1) / len(videos))
        except InputError as sentence:
            scores = (Scores(NAMES[protocol], reason=f"not scorable: {sentence}"),)
        rows.append(Row(video, scores))
    return rows


def mean(rows: Iterable[Row]) -> Scores | None:
    """LSE-C and LSE-D over all faces that were scored, as published tables have it; None where there are none."""
    good = [scores for row in rows for scores in row.scores if scores.scorable]
    if not good:
        return None
    figures = np.array([(scores.confidence, scores.distance) for scores in good]).mean(0)
    return Scores(good[0].judge, confidence=float(figures[0]), distance=float(figures[1]))
