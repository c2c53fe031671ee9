"""Preview before the long run: the faces in the first seconds, and one frame redrawn.

Only a few frames of the first seconds are searched, so a face that comes later is missed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from syncdiff.audio import SAMPLE_RATE
from syncdiff.faces import OK, FaceTrack, Spot, choose, face_index, read_upright, track_faces
from syncdiff.faces.track import REASONS
from syncdiff.geometry.crops import WINDOW, S, align, cut_all
from syncdiff.media import Clip, open_speech
from syncdiff.options import SampleOptions
from syncdiff.progress import finished

if TYPE_CHECKING:
    from syncdiff.models.speech_encoder import SpeechFeatures
    from syncdiff.pipeline import SyncDiffPipeline

LOOKED_SECONDS = 3.0  # of the face video that are searched
MAX_TRIAL_SECOND = 60.0  # of the last frame that can be tried: all before it is decoded
SAMPLED_FRAMES = 12  # of the searched seconds
VOICE_SECONDS = 8.0  # of the voice, whose loudest moment is drawn


@dataclass(frozen=True)
class Face:
    """One face in the video."""

    picture: np.ndarray  # [h, w, 3] uint8, the head
    spot: Spot  # selects this face in SampleOptions
    trouble: str | None  # why it can be redrawn in none of the sampled frames


@dataclass(frozen=True)
class Trial:
    """One frame before and after redrawing, with the regions involved, in frame pixels."""

    before: np.ndarray  # [H, W, 3] uint8
    after: np.ndarray  # [H, W, 3] uint8
    crop: np.ndarray  # [4, 2] corners of the crop
    mask: np.ndarray  # [4, 2] corners of the window: nothing outside it changes
    second: float  # of the voice, that the mouth speaks


class Preview:
    """Makes previews. pipe: returns the loaded pipeline; called only to redraw a frame, not to find faces."""

    def __init__(self, pipe: Callable[[], SyncDiffPipeline]) -> None:
        self.pipe = pipe

    def faces(self, face: str | Path) -> list[Face]:
        """Faces in the first seconds, largest first. Raises InputError where the file cannot be used."""
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
            clip = PreviewClip.of(face, Path(name))
            return [clip.face(track) for track in clip.tracks]

    def trial(self, face: str | Path, voice: str | Path, options: SampleOptions, at: float | None = None) -> Trial:
        """Redraw one frame of `face` as it speaks the loudest moment of the first seconds of `voice`.

        at: the second of that frame, up to MAX_TRIAL_SECOND; by default the frame of the first seconds that is nearest
        to the moment of the voice. Raises InputError."""
        pipe = self.pipe()
        from syncdiff.models.speech_encoder import speech_features  # after `pipe`, which may still be importing it

        with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
            speech = open_speech(voice, Path(name))
            clip = PreviewClip.of(face, Path(name), at)
            samples = speech.samples()[: round(VOICE_SECONDS * SAMPLE_RATE)]
            features, second = speech_features(pipe.speech, samples), _loudest(samples)
            return clip.drawn(pipe, features, second, options, second if at is None else at)


@dataclass(frozen=True)
class PreviewClip:
    """A few frames of the first seconds, and the face tracks over them."""

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
        """The face of a track, from its first frame that can be redrawn, or else that shows it."""
        present, usable = np.flatnonzero(~np.isnan(track.points[:, 0, 0])), np.flatnonzero(track.state == OK)
        i = int((usable if usable.size else present)[0])
        points, image = track.points[i], self.images[i]
        x, y = np.clip(points.mean(0) / image.shape[1::-1], 0, 1)
        trouble = None if usable.size else REASONS[int(track.state[i])]
        return Face(_head(image, points), Spot(float(self.times[i]), float(x), float(y)), trouble)

    def drawn(
        self, pipe: SyncDiffPipeline, features: SpeechFeatures, second: float, options: SampleOptions, at: float
    ) -> Trial:
        """One frame as it speaks `second` of the voice: of those that can be redrawn the one nearest to second `at`."""
        from syncdiff.conditioning import FaceClip, FramePlan
        from syncdiff.generator import drawn_frames
        from syncdiff.models.occlusion import mark_covered

        height, width = self.images[0].shape[:2]
        track = choose(self.tracks, face_index(self.tracks, options.face, self.times, (height, width)))
        to_frame = align(track, self.times)
        crops = cut_all(self.images, to_frame, np.isfinite(to_frame[:, 0, 0]))
        track = mark_covered(track, crops, consecutive=False)  # pyright: ignore[reportArgumentType]
        usable = np.flatnonzero(track.state == OK)
        i = int(usable[np.abs(self.times[usable] - at).argmin()])
        face = FaceClip.of(track, to_frame, crops, film=lambda frames: (self.images[j] for j in frames))
        plan = FramePlan(face, np.array([i]), np.zeros(1), np.array([second]), np.ones(1, np.float32))
        ((_, drawn),) = drawn_frames(pipe.generator(), plan, features, steps=options.steps, seed=options.seed)
        before, after = self.images[i], self.images[i].copy()
        drawn.patch(before, drawn.crop).apply(after)
        rows, columns = WINDOW
        crop = _corners(to_frame[i], 0, S, 0, S)
        window = _corners(to_frame[i], rows.start, rows.stop, columns.start, columns.stop)
        return Trial(before, after, crop, window, second)


def _corners(to_frame: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Corners [4, 2] of a rectangle in crop px, in frame px, clockwise."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    return corners @ to_frame[:, :2].T + to_frame[:, 2]


def _loudest(samples: np.ndarray) -> float:
    """Second around which the sound [N] is loudest for a tenth of a second: a vowel, with the mouth open."""
    size = SAMPLE_RATE // 10
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    return (float(np.square(blocks).sum(1).argmax()) + 0.5) * size / SAMPLE_RATE


def _head(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The square around a face, with some hair and neck, inside the picture."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.75 * float((high - low).max())
    height, width = image.shape[:2]
    x0, y0 = (int(max(0, value)) for value in middle - half)
    x1, y1 = int(min(width, middle[0] + half)), int(min(height, middle[1] + half))
    return image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].copy()
