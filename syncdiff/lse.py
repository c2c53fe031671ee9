"""LSE-C and LSE-D: what the published SyncNet v2 says of a video, by the two protocols that papers use.

Written after `joonson/syncnet_python` and Wav2Lip's `evaluation/scores_LSE`, whose behaviour it follows (raw BGR,
MFCC of 16-bit samples, 31 shifts over zeros beyond the ends, embeddings as they are), save for what is said at
`score_video`. The weights are not shipped: `find` looks for them, `fetch_weights` asks before it brings them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import torch
from torch import Tensor, nn

from syncdiff.avhubert import HOP, N_FFT, PREEMPHASIS, filterbank
from syncdiff.avhubert import WINDOW as SOUND_WINDOW
from syncdiff.checkpoints import CheckpointError, Offer, fetch, load_strictly, read_tensors
from syncdiff.faces.fan import load_face_alignment
from syncdiff.faces.follow import Scenes
from syncdiff.media import Clip, InputError, read_clip
from syncdiff.progress import scaled
from syncdiff.scores import REACH, Scores, curve
from syncdiff.syncnet import FPS, FRAME_SAMPLES, WINDOW

FILE = "syncnet_v2.model"
SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"
OFFER = Offer(
    f"http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/{FILE}",
    "SyncNet v2 by the Visual Geometry Group, Oxford, 55 MB. The code it belongs to is MIT-licensed; the file names no "
    "licence of its own and was trained on broadcasts of the BBC. Cite Chung and Zisserman, 'Out of time' (2016).",
    SHA256,
)
SIDE = 224  # px
CEPSTRA, LIFTER = 13, 22
COLUMNS_PER_FRAME = 4  # MFCC columns, of 10 ms
COLUMNS = 20  # of one window
PIECE = 16  # windows embedded at once: 0.5 GB
PIECE_ROWS = 6_000  # sound windows transformed at once: a minute

Protocol = Literal["frame", "tracks"]
NAMES = {
    "frame": "SyncNet v2, LSE on the whole frame",
    "tracks": "SyncNet v2, LSE on face tracks",
}


# --- the network


class SyncNet(nn.Module):
    """SyncNet v2 with the layers and key names of the released file: 88 tensors, 13,640,256 floats."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1, 1),
            *_convolution(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(nn.Conv2d(192, 384, 3, padding=1)),
            *_convolution(nn.Conv2d(384, 256, 3, padding=1)),
            *_convolution(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_convolution(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)) for _ in range(2)
        )

    def look(self, pictures: Tensor) -> Tensor:
        """[B,3,T,224,224] BGR 0..255 -> [B,T-4,1024]. Only the first layer mixes times, so windows share one pass."""
        seen = self.netcnnlip(pictures).flatten(2).transpose(1, 2)
        return self.netfclip(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])

    def listen(self, cepstra: Tensor) -> Tensor:
        """Windows [B,1,13,20] of MFCC -> [B,1024]."""
        return self.netfcaud(self.netcnnaud(cepstra).flatten(1))

    @classmethod
    def read(cls, path: Path | str) -> SyncNet:
        """The released weights. Raises CheckpointError for a file that is not exactly the released one."""
        tensors = read_tensors(path, sha256=SHA256)
        with torch.device("meta"):
            net = cls()
        counters = {key: torch.tensor(0) for key in net.state_dict() if key.endswith("num_batches_tracked")}
        load_strictly(net, counters | tensors, path, assign=True)
        return net.eval()


def _convolution(layer: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm3d
    return layer, norm(layer.out_channels), nn.ReLU()


# --- where the weights are


def offered() -> Path:
    """Where `fetch_weights` puts the file and `find` looks for it: torch's own folder of checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def find(path: Path | str | None = None) -> Path | None:
    """The released file: `path`, or what SYNCDIFF_SYNCNET names, or the one in torch's folder; None where none is.

    Raises CheckpointError when a file was named and is not there."""
    named = path or os.environ.get("SYNCDIFF_SYNCNET")
    if named is None:
        return offered() if offered().is_file() else None
    if not Path(named).is_file():
        raise CheckpointError(named, "there is no such file", f"{FILE} of {OFFER.url}")
    return Path(named)


def load(path: Path | str | None = None) -> SyncNet | None:
    """What `find` finds, read; None where there is nothing. Raises CheckpointError for another file."""
    found = find(path)
    return None if found is None else SyncNet.read(found)


def fetch_weights(ask: Callable[[str], bool]) -> Path:
    """Fetch the released file after `ask` showed where it is from and got a yes. Raises CheckpointError."""
    return fetch(OFFER, offered().parent, ask=ask)


def how_to_get() -> str:
    """One line for those who have no weights."""
    return (
        "For LSE-C and LSE-D, SyncNet's own weights are needed: `python -m syncdiff score VIDEO --fetch` asks, then "
        f"fetches them; or put {FILE} into {offered().parent}."
    )


# --- sound


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> [T100,13] float64 as python_speech_features.mfcc gives for them as int16.

    26 bands, cepstral coefficients lifted by 22, the first replaced by the log of the energy; T100 = 1 + ceil((N - 400)
    / 160), the last window filled with zeros."""
    signal = (torch.as_tensor(samples, dtype=torch.float32) * 32_768).round().clamp(-32_768, 32_767).double()
    signal[1:] -= PREEMPHASIS * signal[:-1].clone()
    rows = 1 + max(0, -(-(len(signal) - SOUND_WINDOW) // HOP))
    signal = nn.functional.pad(signal, (0, (rows - 1) * HOP + SOUND_WINDOW - len(signal)))
    n = torch.arange(CEPSTRA, dtype=torch.float64)
    bands = filterbank()
    places = (torch.arange(len(bands), dtype=torch.float64) + 0.5) / len(bands)
    cosines = torch.cos(torch.pi * n[:, None] * places) * (2 / len(bands)) ** 0.5  # the DCT-II that keeps lengths
    lift = 1 + LIFTER / 2 * torch.sin(torch.pi * n / LIFTER)
    least = torch.finfo(torch.float64).eps
    found = []
    for part in signal.unfold(0, SOUND_WINDOW, HOP).split(PIECE_ROWS):
        power = torch.fft.rfft(part, N_FFT).abs() ** 2 / N_FFT
        in_bands, energy = power @ bands.T, power.sum(1)
        cepstra = torch.where(in_bands == 0, least, in_bands).log() @ cosines.T * lift
        cepstra[:, 0] = torch.where(energy == 0, least, energy).log()
        found.append(cepstra)
    return torch.cat(found).numpy()


@torch.inference_mode()
def hear(net: SyncNet, samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> [N // 640 - 5, 1024]: window v is the sound of frames v .. v+4.

    One window fewer than fits: so does the original."""
    windows = max(0, len(samples) // FRAME_SAMPLES - WINDOW)
    cepstra = torch.from_numpy(mfcc(samples)).float().T if windows else torch.zeros(CEPSTRA, 0)
    parts = []
    for start in range(0, windows, 10 * PIECE):
        stop = min(start + 10 * PIECE, windows)
        piece = cepstra[:, COLUMNS_PER_FRAME * start : COLUMNS_PER_FRAME * (stop - 1) + COLUMNS]
        parts.append(net.listen(piece.unfold(1, COLUMNS, COLUMNS_PER_FRAME).transpose(0, 1).unsqueeze(1)).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 1024), np.float32)


# --- pictures


def see(net: SyncNet, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """T pictures, uint8 [224,224,3] BGR each, at 25 fps -> pieces [n,1024] of all T-4 windows, as they are done."""
    stream = iter(pictures)
    held = list(islice(stream, WINDOW - 1))
    while fresh := list(islice(stream, PIECE)):
        held += fresh
        with torch.inference_mode():
            yield net.look(torch.from_numpy(np.stack(held)).permute(3, 0, 1, 2)[None].float())[0].numpy()
        held = held[-(WINDOW - 1) :]


def jpegs(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures [H,W,3] uint8 RGB of one video -> BGR, after a JPEG of about 1 kB each.

    The original's figures are made of such pictures: its ffmpeg writes the frames as JPEG without asking for a quality,
    and then 200 kbit/s is the aim, which the encoder misses in the first frames and nears by and by."""
    codec = None
    for number, picture in enumerate(pictures):
        if codec is None:
            codec = av.CodecContext.create("mjpeg", "w")
            codec.height, codec.width, codec.pix_fmt = *picture.shape[:2], "yuvj420p"
            codec.time_base, codec.framerate, codec.bit_rate = Fraction(1, FPS), FPS, 200_000
            codec.thread_count = 1  # several would share the rate in another way
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuvj420p")
        frame.pts = number
        for packet in codec.encode(frame):
            yield cv2.imdecode(np.frombuffer(bytes(packet), np.uint8), cv2.IMREAD_COLOR)


def squashed(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures of any size, whole -> [224,224,3]."""
    return (cv2.resize(picture, (SIDE, SIDE)) for picture in pictures)


# --- the score


def distances(seen: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Embeddings of picture and sound, both [W,D] -> [W,31]: from each to the sound -15 .. +15 windows from it.

    Beyond the ends the sound is zeros, and 1e-6 is added to every difference: torch's pairwise_distance does."""
    padded = np.pad(heard, ((REACH, REACH), (0, 0)))
    shifts = [np.linalg.norm(seen - padded[k : k + len(seen)] + np.float32(1e-6), axis=1) for k in range(2 * REACH + 1)]
    return np.stack(shifts, 1)


def lse(seen: np.ndarray, heard: np.ndarray, name: str) -> Scores:
    """Embeddings [T-4,1024] of T frames and [N // 640 - 5, 1024] of their sound -> confidence LSE-C, distance LSE-D."""
    W = min(len(seen) - 1, len(heard))
    if W < 1:
        return Scores(name, reason=f"not scorable: at least {WINDOW + 1} frames with their sound are needed")
    apart = distances(seen[:W], heard[:W])
    mean = apart.mean(0)
    best = int(mean.argmin())
    return Scores(
        name,
        confidence=float(np.median(mean) - mean[best]),
        distance=float(mean[best]),
        offset_frames=REACH - best,
        curve=curve(apart, best),
    )


# --- the tracks of the protocol for real videos


DETECTED_AT = 0.25  # of the frame's size
SURE = 0.9
OVERLAP = 0.1  # boxes in one frame that share more are one face
SAME = 0.5  # boxes in two frames that share more are one face
MISSED = 25  # frames from one detection of a face to the next, at the most
MIN_TRACK = 100  # detections; one more is needed: clips of 4 s give nothing
MIN_FACE = 100  # px
STEADY = 13  # frames of the median filter over place and size
MARGIN = 0.4
GREY = 110  # beyond the picture's edges


@dataclass(frozen=True)
class Track:
    """One face in consecutive frames at 25 fps."""

    first: int
    boxes: np.ndarray  # [n,4] x0 y0 x1 y1, px


def detect(detector: Any, image: np.ndarray) -> list[np.ndarray]:
    """Face boxes [4] in a picture uint8 [H,W,3] RGB, by face-alignment's S3FD on a quarter of its size."""
    small = cv2.resize(image, None, fx=DETECTED_AT, fy=DETECTED_AT)
    found = sorted(detector.detect_from_image(small), key=lambda box: -box[4])
    kept: list[np.ndarray] = []
    for box in (np.asarray(box[:4]) / DETECTED_AT for box in found if box[4] > SURE):
        if all(_shared(box, other) <= OVERLAP for other in kept):
            kept.append(box)
    return kept


def tracks(found: Sequence[Sequence[np.ndarray]], cuts: Sequence[int], min_track: int = MIN_TRACK) -> list[Track]:
    """Boxes of every frame -> the tracks within each shot, in the order of their first frames' boxes."""
    made = []
    edges = [0, *cuts, len(found)]
    for start, stop in pairwise(edges):
        left = [list(boxes) for boxes in found[start:stop]]
        while stop - start >= min_track and (met := _one_track(left)):
            frames, boxes = [t for t, _ in met], np.stack([box for _, box in met])
            if len(met) > min_track and (boxes[:, 2:] - boxes[:, :2]).mean(0).max() > MIN_FACE:
                every = np.arange(frames[0], frames[-1] + 1)
                filled = np.stack([np.interp(every, frames, side) for side in boxes.T], 1)
                made.append(Track(start + frames[0], filled))
    return made


def _one_track(left: list[list[np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    """Take one face's boxes out of those that are left, from the first one on."""
    met: list[tuple[int, np.ndarray]] = []
    for t, boxes in enumerate(left):
        if met and t - met[-1][0] > MISSED:
            break
        for i, box in enumerate(boxes):
            if not met or _shared(box, met[-1][1]) > SAME:
                met.append((t, boxes.pop(i)))
                break
    return met


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(0.0, width) * max(0.0, height)
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def places(track: Track) -> np.ndarray:
    """[n,3]: centre x, y and half the longer side of its boxes, px, each by a median over 13 frames.

    Zeros beyond the ends count, as in scipy's medfilt: the first frame gets the least of the first seven."""
    lower, upper = track.boxes[:, :2], track.boxes[:, 2:]
    told = np.concatenate([(lower + upper) / 2, (upper - lower).max(1, keepdims=True) / 2], 1)
    padded = np.pad(told, ((STEADY // 2, STEADY // 2), (0, 0)))
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, STEADY, 0), -1)


def crop(image: np.ndarray, x: float, y: float, s: float) -> np.ndarray:
    """The face as SyncNet sees it: rows y-s .. y+1.8s, columns x -+ 1.4s, grey beyond the picture; [224,224,3]."""
    edge = int(s * (1 + 2 * MARGIN))
    around = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    x, y = x + edge, y + edge
    rows = slice(int(y - s), int(y + s * (1 + 2 * MARGIN)))
    face = around[rows, int(x - s * (1 + MARGIN)) : int(x + s * (1 + MARGIN))]
    return cv2.resize(face, (SIDE, SIDE))


# --- whole videos


def score_video(
    video: Path | str, net: SyncNet, protocol: Protocol = "tracks", *, min_track: int = MIN_TRACK
) -> Generator[float, None, tuple[Scores, ...]]:
    """LSE-C (confidence) and LSE-D (distance) of a video file; yields how far it is, 0..1; returns one Scores a face.

    Args:
        protocol: "frame": the whole frame squashed to 224x224, for videos that show nothing but a centred face (LRS2,
            LRS3; what SyncDiff's and TalkLip's tables hold). "tracks": real videos; every face that S3FD follows for
            more than `min_track` frames of one shot, its score from its own stretch of the sound.
        min_track: 100 in the original; LatentSync's figures are with 50.

    Where nothing can be scored the one Scores has a reason. Not as in the original: the upload is normalised once by
    `media` (above 50 dB) where the original encodes twice with MPEG-4; other time bases are read at 25 fps by time;
    shots are told by `faces`, not by PySceneDetect; S3FD is face-alignment's copy. Raises InputError.
    """
    name = NAMES[protocol]
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        clip = yield from scaled(read_clip(video, Path(folder)), 0.0, 0.1)
        if clip.speech is None:
            return (Scores(name, reason="not scorable: the video has no sound"),)
        samples, ticks = clip.speech.samples(), _ticks(clip)
        if protocol == "frame":
            pictures = squashed(jpegs(frame.rgb() for frame in clip.frames(ticks)))
            return ((yield from scaled(_score(net, pictures, len(ticks), samples, name), 0.1, 1.0)),)
        found = yield from scaled(_follow(clip, ticks, min_track), 0.1, 0.5)
        scores = []
        for i, track in enumerate(found):
            where, stop = places(track), track.first + len(track.boxes)
            frames = clip.frames(ticks[track.first : stop])
            faces = (crop(frame.rgb(), *place) for frame, place in zip(frames, where, strict=True))
            sound = samples[track.first * FRAME_SAMPLES : stop * FRAME_SAMPLES]
            steps = _score(net, squashed(jpegs(faces)), len(where), sound, name)
            first, last = (0.5 + 0.5 * n / len(found) for n in (i, i + 1))
            scores.append((yield from scaled(steps, first, last)))
    if not scores:
        least = f"more than {min_track} frames at 25 fps and {MIN_FACE} pixels across"
        scores.append(Scores(name, reason=f"not scorable: no face is followed for {least}"))
    return tuple(scores)


def _ticks(clip: Clip) -> np.ndarray:
    """Which frame is shown at every 25th of a second."""
    ticks = np.arange(int(clip.seconds * FPS + 1e-6)) / FPS
    return np.searchsorted(clip.times, ticks + 1e-6, side="right") - 1


def _follow(clip: Clip, ticks: np.ndarray, min_track: int) -> Generator[float, None, list[Track]]:
    detector, scenes, found = load_face_alignment().face_detector, Scenes(), []
    for t, frame in enumerate(clip.frames(ticks)):
        image = frame.rgb()
        scenes.changed(t, image)
        found.append(detect(detector, image))
        yield (t + 1) / len(ticks)
    return tracks(found, scenes.cuts, min_track)


def _score(
    net: SyncNet, pictures: Iterable[np.ndarray], frames: int, samples: np.ndarray, name: str
) -> Generator[float, None, Scores]:
    seen: list[np.ndarray] = []
    for piece in see(net, pictures):
        seen.append(piece)
        yield sum(map(len, seen)) / frames
    return lse(np.concatenate(seen or [np.zeros((0, 1024))]), hear(net, samples), name)


VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".ts", ".m4v", ".mpg"}


@dataclass(frozen=True)
class Row:
    """One video of a folder."""

    video: Path
    scores: tuple[Scores, ...]  # one a face


def score_folder(
    folder: Path, net: SyncNet, protocol: Protocol = "frame", *, min_track: int = MIN_TRACK
) -> Generator[float, None, list[Row]]:
    """Every video in a folder and the folders in it, by name, as `score_video`; a file that cannot be read says why.

    Raises InputError for a folder without videos."""
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not videos:
        raise InputError(f"{folder} holds no video: give a folder of files in {', '.join(sorted(VIDEOS))}.")
    rows = []
    for i, video in enumerate(videos):
        try:
            steps = score_video(video, net, protocol, min_track=min_track)
            scores = yield from scaled(steps, i / len(videos), (i + 1) / len(videos))
        except InputError as sentence:
            scores = (Scores(NAMES[protocol], reason=f"not scorable: {sentence}"),)
        rows.append(Row(video, scores))
    return rows


def mean(rows: Iterable[Row]) -> Scores | None:
    """LSE-C and LSE-D over all faces that were scored, as published tables have it; None where there are none."""
    good = [scores for row in rows for scores in row.scores if scores.scorable]
    if not good:
        return None
    told = np.array([(scores.confidence, scores.distance) for scores in good]).mean(0)
    return Scores(good[0].judge, confidence=float(told[0]), distance=float(told[1]))
