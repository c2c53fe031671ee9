"""A first look at what was given: who is in the picture, and one frame redrawn, before the long run.

Only the first seconds are read, and only every so many frames: this is a glimpse, and says so where it can be wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncdiff.audio import SAMPLE_RATE
from syncdiff.faces import OK, FaceTrack, Spot, at_spot, choose, read_upright, track_faces
from syncdiff.faces.track import REASONS
from syncdiff.geometry.crops import WINDOW, S, align, cut_all
from syncdiff.media import Clip, open_speech
from syncdiff.options import SampleOptions
from syncdiff.progress import finished

if TYPE_CHECKING:
    from syncdiff.models.speech_encoder import SpeechFeatures
    from syncdiff.pipeline import SyncDiffPipeline

LOOKED_SECONDS = 3.0  # seconds of the face that are looked at
MAX_TRIAL_SECOND = 60.0  # second of the last frame that can be tried: all before it is decoded
SAMPLED_FRAMES = 12  # frames of them
VOICE_SECONDS = 8.0  # seconds of the voice, of which the loudest moment is drawn


@dataclass(frozen=True)
class Face:
    """Somebody in the picture."""

    picture: np.ndarray  # [h, w, 3] uint8, the head
    spot: Spot  # what names this face in SampleOptions
    trouble: str | None  # why no frame of it that was seen can be redrawn


@dataclass(frozen=True)
class Trial:
    """One frame as it was and redrawn, and where the work was done, in frame pixels."""

    before: np.ndarray  # [H, W, 3] uint8
    after: np.ndarray  # [H, W, 3] uint8
    crop: np.ndarray  # [4, 2] corners of what the model was shown
    mask: np.ndarray  # [P, 2] outline of what it may redraw
    second: float  # of the voice, that the mouth speaks


class Preview:
    """The first look. pipe: gives the loaded pipeline; asked where a frame is redrawn, for faces are found without."""

    def __init__(self, pipe: Callable[[], SyncDiffPipeline]) -> None:
        self.pipe = pipe

    def faces(self, face: str | Path) -> list[Face]:
        """Who is in the first seconds, largest first. Raises InputError where the file cannot be used."""
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
            glimpse = PreviewClip.of(face, Path(name))
            return [glimpse.face(track) for track in glimpse.tracks]

    def trial(self, face: str | Path, voice: str | Path, options: SampleOptions, at: float | None = None) -> Trial:
        """Redraw one frame of `face` as it speaks the loudest moment of the first seconds of `voice`.

        at: the second of that frame, up to MAX_TRIAL_SECOND; by default the frame of the first seconds that is nearest
        to the moment of the voice. Raises InputError."""
        pipe = self.pipe()
        from syncdiff.models.speech_encoder import speech_features  # behind it, which may still be loading the same

        with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
            speech = open_speech(voice, Path(name))
            glimpse = PreviewClip.of(face, Path(name), at)
            samples = speech.samples()[: round(VOICE_SECONDS * SAMPLE_RATE)]
            features, second = speech_features(pipe.speech, samples), _loudest(samples)
            return glimpse.drawn(pipe, features, second, options, second if at is None else at)


@dataclass(frozen=True)
class PreviewClip:
    """A few frames of the first seconds, and the faces that were followed through them."""

    clip: Clip
    images: list[np.ndarray]  # [H, W, 3] uint8
    times: np.ndarray  # s, of the images
    tracks: list[FaceTrack]  # over the images

    @classmethod
    def of(cls, path: str | Path, folder: Path, at: float | None = None) -> PreviewClip:
        """The first LOOKED_SECONDS seconds, or those up to the second `at`."""
        until = max(LOOKED_SECONDS, min(at or 0.0, MAX_TRIAL_SECOND) + 0.1)
        clip = finished(read_upright(path, folder, until=until))
        first, exactly = np.searchsorted(clip.times, (until - LOOKED_SECONDS, at or 0.0)).clip(0, len(clip) - 1)
        indices = np.unique([*np.linspace(first, len(clip) - 1, SAMPLED_FRAMES).round().astype(int), exactly])
        images = [frame.rgb() for frame in clip.frames(indices)]
        return cls(clip, images, clip.times[indices], finished(track_faces(iter(images))))

    def face(self, track: FaceTrack) -> Face:
        seen = np.flatnonzero(~np.isnan(track.points[:, 0, 0]))
        usable = np.flatnonzero(track.state == OK)
        best = int((usable if usable.size else seen)[0])
        points, image = track.points[best], self.images[best]
        height, width = image.shape[:2]
        x, y = np.clip(points.mean(0) / (width, height), 0, 1)
        trouble = None if usable.size else REASONS[int(track.state[best])]
        return Face(_head(image, points), Spot(float(self.times[best]), float(x), float(y)), trouble)

    def drawn(
        self, pipe: SyncDiffPipeline, features: SpeechFeatures, second: float, options: SampleOptions, at: float
    ) -> Trial:
        """One frame as it speaks `second` of the voice: of those that can be redrawn the one nearest to second `at`."""
        from syncdiff.conditioning import FaceClip, FramePlan
        from syncdiff.generator import drawn_frames
        from syncdiff.models.occlusion import mark_covered

        wanted = options.face
        if isinstance(wanted, Spot):
            wanted = at_spot(self.tracks, wanted, self.times, (self.images[0].shape[0], self.images[0].shape[1]))
        track = choose(self.tracks, wanted)
        to_frame = align(track, self.times)
        crops = cut_all(self.images, to_frame, np.isfinite(to_frame[:, 0, 0]))
        track = mark_covered(track, crops, consecutive=False)  # pyright: ignore[reportArgumentType]
        usable = np.flatnonzero(track.state == OK)
        chosen = int(usable[np.abs(self.times[usable] - at).argmin()])
        one = np.array([chosen])
        face = FaceClip.of(track, to_frame, crops, film=lambda frames: (self.images[i] for i in frames))
        plan = FramePlan(face, one, np.zeros(1), np.array([second]), np.ones(1, np.float32))
        ((_, drawn),) = drawn_frames(pipe.generator(), plan, features, steps=options.steps, seed=options.seed)
        before, after = self.images[chosen], self.images[chosen].copy()
        drawn.patch(before, drawn.crop).apply(after)
        return Trial(before, after, _moved(_SQUARE, to_frame[chosen]), _moved(_outline(), to_frame[chosen]), second)


_SQUARE = np.array([[0, 0], [S, 0], [S, S], [0, S]], np.float32)


def _outline() -> np.ndarray:
    """Corners of the window in crop pixels [4, 2]: nothing outside it changes."""
    (top, bottom), (left, right) = ((part.start, part.stop) for part in WINDOW)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _loudest(samples: np.ndarray) -> float:
    """Second around which the sound [N] is loudest for a tenth of a second: a vowel, with the mouth open."""
    span = SAMPLE_RATE // 10
    parts = samples[: len(samples) // span * span].reshape(-1, span)
    return (float(np.square(parts).sum(1).argmax()) + 0.5) * span / SAMPLE_RATE


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _head(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The square around a face, with some hair and neck, inside the picture."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.75 * float((high - low).max())
    height, width = image.shape[:2]
    x0, y0 = (int(max(0, value)) for value in middle - half)
    x1, y1 = int(min(width, middle[0] + half)), int(min(height, middle[1] + half))
    return image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].copy()
