"""Mouths at the film's own scale, measured in the clips as they were filmed.

    python -m syncdiff.evaluation.film_scale FOLDER ... [--weights assets/weights] [--seconds 4] [--cache FOLDER]
                                             [--sheets FOLDER] [--csv FILE]

Every video of the folders is redrawn to its own sound, twice: by the references alone and with the network; and with
the network to silence. MediaPipe reads the lips of film and result from the same enlarged crops. Columns: r of the lip
opening at the best lag within two frames, its reach (standard deviation over the film's), r of the mouth's width,
variance of the Laplacian in the mouth box over the film's, distance of the outer lip contour in % of that between the
outer eye corners (each mouth about its own middle), PSNR and SSIM of the mouth box, PSNR of the window that the network
sees, jitter over the film's, and how far lips move under silence (over the film's). Without the invisible mark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from syncdiff.audio import SAMPLE_RATE
from syncdiff.conditioning import FaceClip, FramePlan
from syncdiff.errors import InputError
from syncdiff.evaluation.metrics import SSIM, jitter, lip_distance, psnr, read_landmarks
from syncdiff.evaluation.reports import print_rows, table, write_csv
from syncdiff.faces import OK, FaceTrack, choose, track_faces
from syncdiff.generator import CompactGenerator, drawn_frames
from syncdiff.geometry.crops import LIP_BOX, WINDOW, align, cut_all
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import finished
from syncdiff.sync.scoring import best_lag, correlation, lip_opening, lip_width
from syncdiff.training.prepare import FPS, VIDEOS, read_frames, read_sound
from syncdiff.weights.folders import COMPACT

Region = tuple[float, float, float]  # an upright square: x, y, side in crop px
LANDMARK_SIDE, LANDMARK_REGION = 336, (-32.0, -48.0, 192.0)  # px; what landmarks are read from
TILE_REGION = (28.0, 44.0, 72.0)  # of a contact sheet's tiles
SHEET_FRAMES = 10  # of a clip on its contact sheet
REFERENCES, NETWORK = "references alone", "with the network"
Box = tuple[slice, slice]


@dataclass(frozen=True)
class Film:
    """One clip as it was filmed, on the 25 fps clock."""

    set: str
    name: str
    frames: Sequence[np.ndarray]  # [H, W, 3] uint8
    track: FaceTrack
    sound: np.ndarray  # [N] float32 at 16 kHz

    @cached_property
    def times(self) -> np.ndarray:
        """[T] s."""
        return np.arange(len(self.frames)) / FPS

    @cached_property
    def to_frame(self) -> np.ndarray:
        """[T, 2, 3] crop px -> frame px."""
        return align(self.track, self.times)

    @cached_property
    def usable(self) -> np.ndarray:
        """[n] numbers of the frames in which the face can be redrawn."""
        return np.flatnonzero(self.track.state == OK)

    @cached_property
    def lips(self) -> np.ndarray:
        """FaceMesh landmarks [n, 478, 2] of the usable frames, in px of the enlarged crops they are read from."""
        return self.landmarks(self.frames)

    def landmarks(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """The same of redrawn frames, T of [H, W, 3]."""
        return read_landmarks(square(frames[i], self.to_frame[i], LANDMARK_REGION, LANDMARK_SIDE) for i in self.usable)

    def plan(self, generator: CompactGenerator) -> FramePlan:
        """All usable frames to be redrawn, with the articulation learnt from the clip's own sound."""
        crops = cut_all(self.frames, self.to_frame, self.track.state == OK)
        middles = self.times + 0.5 / FPS
        face = FaceClip.of(
            self.track, self.to_frame, crops,
            film=lambda indices: (self.frames[int(i)] for i in indices),
            picture=self.frames[0].shape[:2],
            own_forecast=generator.forecast(generator.encode(self.sound), middles),
        )  # fmt: skip
        weight = (self.track.state == OK).astype(np.float32)
        return FramePlan(face, np.arange(len(self.frames)), self.times, middles, weight)

    def boxes(self, region: Box) -> list[Box]:
        """Rows and columns of the frame around a region of the crop, for every usable frame."""
        (y0, y1), (x0, x1) = ((s.start, s.stop) for s in region)
        corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]])
        boxes = []
        for i in self.usable:
            in_frame = corners @ self.to_frame[i].T
            low = np.maximum(np.floor(in_frame.min(0)), 0).astype(int)
            high = np.ceil(in_frame.max(0)).astype(int)
            boxes.append((slice(low[1], high[1]), slice(low[0], high[0])))
        return boxes


def load_film(path: Path, seconds: float | None = None, cache: Path | None = None) -> Film:
    """A clip and the track of its largest face; `cache` keeps the tracks. Raises InputError where there is none."""
    frames = read_frames(path)
    cached = cache / f"{path.parent.name}__{path.stem}.npz" if cache else None
    if cached is not None and cached.exists():
        with np.load(cached) as file:
            track = FaceTrack(file["points"], file["yaw"], file["state"], tuple(file["cuts"].tolist()))
    else:
        track = choose(finished(track_faces(iter(frames))))
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            np.savez(cached, points=track.points, yaw=track.yaw, state=track.state, cuts=np.array(track.cuts, int))
    sound = read_sound(path)
    if sound is None:
        raise InputError(f"{path.name} has no sound to redraw it to.")
    n = len(frames) if seconds is None else min(len(frames), round(seconds * FPS))
    cuts = tuple(c for c in track.cuts if c < n)
    track = FaceTrack(track.points[:n], track.yaw[:n], track.state[:n], cuts)
    return Film(path.parent.name, path.stem, frames[:n], track, sound[: n * SAMPLE_RATE // FPS])


def redraw(
    generator: CompactGenerator, film: Film, sound: np.ndarray, options: SampleOptions, *, network: bool
) -> list[np.ndarray]:
    """The film's frames speaking a sound [N], by the references alone or with the network."""
    plan, speech, out = film.plan(generator), generator.encode(sound), [frame.copy() for frame in film.frames]
    if not network:
        mouths = generator.mouths(plan, speech)
        for i in film.usable:
            view = plan.face.in_film(int(i), film.frames[i])
            out[i][view.box] = plan.face.reference(view, int(i), mouths, int(i)).pixels
        return out
    for i, drawn in drawn_frames(generator, plan, speech, steps=options.steps, seed=options.seed):
        drawn.patch(film.frames[i], drawn.crop).apply(out[i])
    return out


def measure(film: Film, redrawn: Sequence[np.ndarray]) -> dict[str, float | None]:
    """One row of the table: redrawn frames, T of [H, W, 3] uint8, against the film's own."""
    lips, truth = film.landmarks(redrawn), film.lips
    opening, filmed = lip_opening(lips), lip_opening(truth)
    lag = best_lag(opening, filmed, 2)
    eyes = np.linalg.norm(truth[:, 33] - truth[:, 263], axis=-1)[:, None, None]
    row = {
        "r": lag and lag.r,
        "reach": float(opening.std() / filmed.std()),
        "width_r": correlation(lip_width(lips), lip_width(truth)),
        "landmarks_%": 100 * lip_distance(lips / eyes, truth / eyes),
        "jitter": jitter(lips) / jitter(truth),
    }

    def cut_out(frames: Sequence[np.ndarray], region: Box) -> list[np.ndarray]:
        return [frames[i][box] for i, box in zip(film.usable, film.boxes(region), strict=True)]

    mouths, windows = ([cut_out(frames, region) for frames in (film.frames, redrawn)] for region in (LIP_BOX, WINDOW))
    grey = [[cv2.cvtColor(np.ascontiguousarray(m), cv2.COLOR_RGB2GRAY) for m in frames] for frames in mouths]
    sharpness = [np.mean([cv2.Laplacian(m, cv2.CV_32F).var() for m in frames]) for frames in grey]
    return row | {
        "sharpness": float(sharpness[1] / sharpness[0]),
        "PSNR": psnr(*mouths),
        "SSIM": float(np.mean([structural_similarity(*pair, **SSIM) for pair in zip(*grey, strict=True)])),
        "PSNR_window": psnr(*windows),
    }


def square(image: np.ndarray, to_frame: np.ndarray, region: Region, side: int) -> np.ndarray:
    """A region of the frame, upright: [side, side, 3]."""
    x, y, length = region
    to_tile = to_frame.astype(np.float64).copy()
    to_tile[:, 2] += to_tile[:, :2] @ (x, y)
    to_tile[:, :2] *= length / side
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_tile, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def sheet(film: Film, rows: dict[str, Sequence[np.ndarray]], numbers: Sequence[int] = ()) -> np.ndarray:
    """Mouths at the film's scale, upright: [h, w, 3] RGB with one row for each name.

    Args:
        rows: frames, T of [H, W, 3] uint8, by name.
        numbers: of the frames to show; SHEET_FRAMES of the usable ones by default.
    """
    scale = float(np.median(np.hypot(film.to_frame[film.usable, 0, 0], film.to_frame[film.usable, 1, 0])))
    side = max(160, round(TILE_REGION[2] * scale))
    if not numbers:
        numbers = film.usable[np.linspace(0, len(film.usable) - 1, SHEET_FRAMES).round().astype(int)].tolist()
    lines = []
    for name, frames in rows.items():
        tiles = [square(frames[i], film.to_frame[i], TILE_REGION, side) for i in numbers]
        line = np.concatenate(tiles, axis=1)
        cv2.putText(line, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0))
        lines.append(line)
    return np.concatenate(lines)


def evaluate_films(
    pipe: SyncDiffPipeline,
    paths: Sequence[Path],
    options: SampleOptions,
    seconds: float | None = None,
    cache: Path | None = None,
    show: Callable[[Film, np.ndarray], None] = lambda *_: None,
) -> Iterator[dict]:
    """Rows of the table, clip by clip.

    Args:
        seconds: of every clip, from its beginning; None takes it whole.
        cache: folder for the tracks of the faces.
        show: called with every clip's contact sheet [h, w, 3].
    """
    for path in paths:
        film, generator = load_film(path, seconds, cache), cast(CompactGenerator, pipe.generator())
        results = {
            REFERENCES: redraw(generator, film, film.sound, options, network=False),
            NETWORK: redraw(generator, film, film.sound, options, network=True),
        }
        silent = film.landmarks(redraw(generator, film, np.zeros_like(film.sound), options, network=True))
        silence_move = float(lip_opening(silent).std() / lip_opening(film.lips).std())
        for name, frames in results.items():
            row = {"method": name, "set": film.set, "clip": film.name, "frames": len(film.frames)}
            yield row | measure(film, frames) | {"silence_move": silence_move if name == NETWORK else None}
        show(film, sheet(film, {film.name: film.frames} | results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, default=COMPACT)
    parser.add_argument("--steps", type=int, default=SampleOptions.steps)
    parser.add_argument("--seconds", type=float, help="of every clip, from its beginning")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps the tracks of the faces")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="for a contact sheet of every clip")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    paths = sorted(p for folder in args.folders for p in folder.iterdir() if p.suffix.lower() in VIDEOS)
    if not paths:
        raise SystemExit(f"{args.folders[0]} holds no videos ({', '.join(sorted(VIDEOS))}).")
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)

    def show(film: Film, picture: np.ndarray) -> None:
        if args.sheets:
            cv2.imwrite(str(args.sheets / f"{film.set}-{film.name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    pipe = SyncDiffPipeline.ready(args.weights)
    rows = print_rows(evaluate_films(pipe, paths, SampleOptions(steps=args.steps), args.seconds, args.cache, show))
    print(table(rows))
    write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
