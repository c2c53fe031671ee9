"""The whole journey: a face video and a voice go in, a re-spoken, scored video comes out.

`SyncDiffPipeline.__call__` reads downward as the journey does. It is a generator: it yields Progress after every bit of
work and ends with one Result, so that page, command line and tests show and stop it the same way; closing it cancels.
No stage holds the clip: frames are streamed from the normalised file, crops lie in a file of the private job folder.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin, VQModel
from diffusers.models.attention_processor import AttnProcessor2_0

from syncdiff.audio.silence import pauses
from syncdiff.conditioning import CropFile, FaceClip, GeneratorStep, Scene
from syncdiff.devices import autocast
from syncdiff.diffusion import sampler
from syncdiff.diffusion.losses import Objective
from syncdiff.errors import CheckpointError, InputError
from syncdiff.faces import FaceTrack, Spot, at_spot, choose, track_faces
from syncdiff.faces.face_alignment_backend import check_files
from syncdiff.fit import fit
from syncdiff.generator import CompactGenerator
from syncdiff.geometry import crops
from syncdiff.media import LIMITS, Clip, ClipWriter, Patch, Speech, read_clip, read_speech, timeline
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder, listen
from syncdiff.options import OPTIONS, Profile, SampleOptions
from syncdiff.paper import PaperDenoiser, PaperGenerator
from syncdiff.paper.avhubert import AVHubert
from syncdiff.progress import Made
from syncdiff.provenance import Watermark, credentials, label, sign
from syncdiff.results import Progress, Result, Stage, Stopwatch
from syncdiff.sync import syncnet_v2
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import FPS as SCORE_RATE
from syncdiff.sync.scoring import Scores, score
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.weights.folders import COMPACT, profile_of, read_network, read_schedule

PREVIEW_SIDE = 720  # px, longer side of the browser-playable copy of the source
NO_SYNCNET = (
    "LSE-C and LSE-D are not told: SyncNet's own weights are not here. `python -m syncdiff score VIDEO --fetch` asks, "
    "then fetches them."
)
OWN = replace(LIMITS, bytes=2**50, seconds=86_400.0)  # a result may be larger and, by a frame, longer than an upload
Attention = Literal["auto", "sdpa", "xformers"]
REHEARSED = 30.0  # s at the most, that are drawn only to see whether the lips would be in step


NETWORKS: dict[Profile, dict[str, type[ModelMixin]]] = {  # by the name of their sub-folder
    "compact": {"denoiser": Denoiser, "speech": SpeechEncoder},
    "paper": {"denoiser": PaperDenoiser, "speech": AVHubert, "vae": VQModel},
}


Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]  # frame [H, W, 3] and transform [2, 3] -> crop [side, side, 3]


@dataclass(frozen=True)
class JudgeCrops:
    """The face as the judge looks at it, in either profile: upright crops of source and result, by frame number."""

    to_frame: np.ndarray  # [T, 2, 3] crop px -> px of the source's frames
    source: CropFile
    result: CropFile


class SyncDiffPipeline(DiffusionPipeline):
    """SyncDiff on one machine: `for update in pipe(face, voice, out): ...`.

    The components decide the profile: with an autoencoder they are the paper's (`syncdiff.paper`), without one they are
    the compact model. What differs between the two is the generator's.
    """

    _optional_components = ["vae"]  # noqa: RUF012 -- diffusers' own name and type

    def __init__(
        self,
        denoiser: Denoiser | PaperDenoiser,
        speech: SpeechEncoder | AVHubert,
        scheduler: DDIMScheduler,
        vae: VQModel | None = None,
    ) -> None:
        super().__init__()
        denoiser.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster this way
        self.register_modules(denoiser=denoiser, speech=speech, scheduler=scheduler, vae=vae)
        self.judge: JudgeNet | None = None
        self.syncnet: SyncNet | None = None
        self.marking = True  # the invisible mark: only an evaluation, whose PSNR would count it, leaves it out
        self.attention = "sdpa"

    @classmethod
    def ready(cls, folder: str | Path = COMPACT, attention: Attention = "auto") -> SyncDiffPipeline:
        """`from_pretrained`, SyncNet where its weights are; onto the GPU where there is one; attention as asked for."""
        pipe = cls.from_pretrained(folder)
        with suppress(CheckpointError):  # a wrong file in that place stops nothing: `score` says what is wrong with it
            pipe.syncnet = syncnet_v2.load()
        if torch.cuda.is_available() and not os.environ.get("SPACES_ZERO_GPU"):  # which lends one call by call
            pipe.to("cuda")
        pipe.attend(attention)
        return pipe

    def attend(self, attention: Attention) -> None:
        """Choose the kernel of attention; `self.attention` then says which one runs.

        "auto" takes xformers where it is installed and a GPU is in use, else torch's scaled_dot_product_attention.
        Raises InputError where xformers was asked for and cannot run.
        """
        if attention not in ("auto", "sdpa", "xformers"):
            raise InputError(f"The attention option is {attention!r}: choose auto, sdpa or xformers.")
        installed = find_spec("xformers") is not None
        if attention == "xformers" and not (installed and self.device.type == "cuda"):
            why = "it is not installed (pip install 'syncdiff[gpu]')" if not installed else "it has no CPU operator"
            raise InputError(f"xformers cannot be used here: {why}. Choose auto or sdpa.")
        if attention != "sdpa" and installed and self.device.type == "cuda":
            try:
                # The one call that diffusers' U-Nets obey: set_attention_backend("xformers") changes nothing in them.
                self.denoiser.unet.enable_xformers_memory_efficient_attention()
            except Exception as error:  # it tries the operator out, which fails in as many ways as there are builds
                if attention == "xformers":
                    raise InputError(f"xformers cannot be used here: {error}. Choose auto or sdpa.") from error
            else:
                self.attention = "xformers"
                return
        self.denoiser.unet.set_attn_processor(AttnProcessor2_0())
        self.attention = "sdpa"

    @property
    def running(self) -> dict[str, str]:
        """On what and how the networks run: profile, device, precision, attention."""
        with autocast(self.device):
            half = torch.is_autocast_enabled(self.device.type)
            precision = str(torch.get_autocast_dtype(self.device.type)).removeprefix("torch.") if half else "float32"
        names = {"profile": self.profile, "device": self.device.type, "precision": precision}
        return names | {"attention": self.attention}

    @property
    def profile(self) -> Profile:
        return "compact" if self.vae is None else "paper"

    def generator(self) -> CompactGenerator | PaperGenerator:
        """Who draws one job with these components."""
        if self.vae is None:
            return CompactGenerator(self.denoiser, self.speech, self.scheduler)
        return PaperGenerator(self.denoiser, self.speech, self.vae, self.scheduler)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path = COMPACT) -> SyncDiffPipeline:
        """A folder that save_pretrained wrote, by default the shipped compact model; its judge comes along.

        Raises InputError where there is none, CheckpointError where a file in it is not what it says."""
        folder = Path(pretrained_model_name_or_path)
        parts = {name: read_network(kind, folder / name) for name, kind in NETWORKS[profile_of(folder)].items()}
        pipe = cls(**parts, scheduler=read_schedule(folder / "scheduler"))
        judge = (folder if pipe.vae is None else COMPACT) / "judge" / "judge.safetensors"  # the paper has none
        pipe.judge = JudgeNet.load(judge) if judge.exists() else None
        return pipe

    def __call__(
        self, face: str | Path, voice: str | Path, out: str | Path, options: SampleOptions | None = None
    ) -> Generator[Progress | Result, None, None]:
        """Redraw the mouth in `face` so that it speaks `voice`; write `out` (mp4) and `<out stem>.source.mp4`.

        Raises InputError. Whatever happens, the private folder is removed and no half-written file is left at `out`.
        """
        options = options or OPTIONS[self.profile]()
        out, watch, generator = Path(out), Stopwatch(), self.generator()
        preview = out.with_name(out.stem + ".source.mp4")
        _check_target((out, preview), (Path(face), Path(voice)))
        finder, notes = _finder(generator)
        for asked, what in ((options.fit, "Fitting to a face"), (options.correct_offset, "Correcting the offset")):
            if asked and self.profile == "paper":
                raise InputError(f"{what} is made for the compact profile: leave it out.")
        credentials()  # a key that cannot be read is said before the work, not after it
        with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
            folder = Path(name)
            with watch.stage("reading"):
                clip = yield from _staged("reading", read_clip(face, folder), until=50)
                speech = yield from _staged("reading", read_speech(voice, folder), since=50)
                line = timeline(clip, speech, options.tail)
            with watch.stage("finding the face"):
                tracks, wanted = (yield from _track(clip, finder)), options.face
                if isinstance(wanted, Spot):
                    wanted = at_spot(tracks, wanted, clip.times, (clip.height, clip.width))
                track = choose(tracks, wanted)
                to_frame, upright = generator.align(clip, track), crops.align(track, clip.times)
                shown, made = CropFile(folder / "shown", generator.side), CropFile(folder / "made")
                cuts = [(generator.cut, to_frame, shown)]
                if not generator.upright:
                    cuts.append((crops.cut, upright, CropFile(folder / "upright")))
                yield from _cut(clip, cuts)
                judged = JudgeCrops(upright, cuts[-1][2], made)
            with watch.stage("listening"):
                yield Progress("listening", 0, 1)
                heard = generator.listen(speech.samples())
                yield Progress("listening", 1, 1)
            _trim()
            scene = Scene.of(generator.face_clip(track, to_frame, shown), clip, line, track)
            if options.fit:
                with watch.stage("fitting"):
                    generator = yield from self._fitted(scene.face_clip, clip, options.seed)
            earlier = 0
            if options.correct_offset:
                with watch.stage("rehearsing"):
                    part, until = scene.until(REHEARSED), min(REHEARSED, line.seconds)
                    yield from self._rehearse(generator, part, heard, made, options.seed)
                    found = self._score(made, part.times, track.state[part.indices], speech, until)
                earlier = found.out_of_step
                scene, notes = scene.ahead(earlier / SCORE_RATE), (*notes, _correction(found))
            with (
                watch.stage("drawing"),
                ClipWriter(out, clip, line, speech) as video,
                ClipWriter(preview, clip, line, clip.speech, scale_to=PREVIEW_SIDE) as source,
            ):
                yield from self._draw(generator, scene, clip, heard, judged, video, source, options)
            sign(out, labelled=options.label and label(clip.width, clip.height) is not None)
            redrawn, passed, state = int(scene.wanted.sum()), scene.passed_through(clip, line, track), track.state
            silent = pauses(speech.samples())
            del heard, scene, track, tracks  # a long clip's landmarks and features: scoring needs neither
            _trim()
            with watch.stage("scoring"):
                yield Progress("scoring", 0, 2)
                before = self._score(judged.source, clip.times, state, clip.speech, clip.seconds)
                yield Progress("scoring", 1, 2)
                after = self._score(judged.result, line.times, state[line.indices], speech, line.seconds)
                yield Progress("scoring", 2, 2)
                source_lse, result_lse, lse_needs = (), (), NO_SYNCNET
                if self.syncnet is not None:
                    try:
                        source_lse = yield from _staged("scoring", syncnet_v2.score_video(face, self.syncnet))
                        result_lse = yield from _staged(
                            "scoring", syncnet_v2.score_video(out, self.syncnet, limits=OWN)
                        )
                        lse_needs = None
                    except InputError as sentence:  # files of the face detector are missing
                        source_lse, lse_needs = (), str(sentence)
        yield Result(
            video=out,
            source=preview,
            frames=len(line),
            redrawn=redrawn,
            seconds=watch.seconds,
            passed_through=passed,
            silent=silent,
            notes=tuple(dict.fromkeys((*clip.notes, line.note, *notes))),
            source_scores=before,
            result_scores=after,
            peak_memory_mib=_peak_memory_mib(),
            options=options,
            running=self.running,
            earlier_frames=earlier,
            source_lse=source_lse,
            result_lse=result_lse,
            lse_needs=lse_needs,
        )

    def _fitted(self, face_clip: FaceClip, clip: Clip, seed: int) -> Generator[Progress, None, CompactGenerator]:
        """An generator for this job alone, its denoiser fitted to the clip's face."""
        heard = listen(self.speech, clip.speech.samples()) if clip.speech else None
        middles = (clip.times + np.append(clip.times[1:], clip.seconds)) / 2
        practice = fit(self.denoiser, Objective(self.scheduler), face_clip, middles, heard, seed)
        denoiser = yield from _staged("fitting", practice)
        return CompactGenerator(denoiser, self.speech, self.scheduler)

    def _rehearse(
        self, generator: CompactGenerator, part: Scene, heard: Any, drawn: CropFile, seed: int
    ) -> Iterator[Progress]:
        """Draw a part of the scene in one step, only for the judge."""
        for i in np.flatnonzero(~part.wanted):
            drawn[i] = part.face_clip.crops[part.indices[i]]
        done = 0
        for start in range(0, len(part), sampler.LANE * sampler.LANES):
            for stroke in generator.draw_chunk(part, heard, start, steps=1, seed=seed):
                for i, crop in zip(stroke.frames, () if stroke.crops is None else stroke.crops, strict=False):
                    drawn[i] = crop
                done = min(done + len(stroke.frames), len(part))
                yield Progress("rehearsing", done, len(part), stroke.look)

    def _draw(
        self,
        generator: CompactGenerator | PaperGenerator,
        scene: Scene,
        clip: Clip,
        heard: Any,
        judged: JudgeCrops,
        video: ClipWriter,
        source: ClipWriter,
        options: SampleOptions,
    ) -> Iterator[Progress]:
        """Chunk by chunk: draw its frames, then paste them into its frames and hand those to the encoder."""
        steps, chunk = options.steps, sampler.LANE * sampler.LANES
        total = len(scene) * (steps + 1)  # a frame counts once for every evaluation and once for the pasting
        mark = Watermark(options.job) if self.marking else None
        plate = label(clip.width, clip.height) if options.label else None
        for start in range(0, len(scene), chunk):
            stop = min(start + chunk, len(scene))
            done, drawn_by = start * (steps + 1), start * (steps + 1) + (stop - start) * steps
            drawn: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}  # crop and, where it was bent, its shape
            for stroke in generator.draw_chunk(scene, heard, start, steps=steps, seed=options.seed):
                if stroke.crops is not None:
                    shapes = [None] * len(stroke.crops) if stroke.shapes is None else stroke.shapes
                    drawn.update(zip(stroke.frames, zip(stroke.crops, shapes, strict=True), strict=True))
                done = min(done + len(stroke.frames), drawn_by)
                yield Progress("drawing", done, total, stroke.look)
            for i, frame in zip(range(start, stop), clip.frames(scene.indices[start:stop]), strict=True):
                source.write(frame, scene.times[i])
                at, patch = scene.indices[i], None
                if i in drawn:
                    image = frame.rgb()
                    patch = _pasted(generator, scene, i, image, *drawn.pop(i), judged.to_frame[at], mark)
                    image[patch.y : patch.y + patch.rgb.shape[0], patch.x : patch.x + patch.rgb.shape[1]] = patch.rgb
                    judged.result[i] = crops.cut(image, judged.to_frame[at])  # what the visitor gets is what is scored
                else:
                    judged.result[i] = judged.source[at]
                video.write(frame, scene.times[i], patch, plate)
                yield Progress("drawing", drawn_by + i - start + 1, total)

    def draw_chunk(self, scene: Scene, heard: Any, start: int, options: SampleOptions) -> Iterator[GeneratorStep]:
        """Draw the chunk that begins at output frame `start`, with what the generator's `listen` made of the voice."""
        return self.generator().draw_chunk(scene, heard, start, steps=options.steps, seed=options.seed)

    def _score(
        self, crops: CropFile, times: np.ndarray, states: np.ndarray, speech: Speech | None, seconds: float
    ) -> Scores:
        """Crops [S, S, 3] shown from `times` on, `seconds` in all, against a voice, on the judge's 25 fps clock."""
        if self.judge is None:
            return Scores("no judge", reason="not scorable: these weights come without a judge")
        if speech is None:
            return Scores(self.judge.name, reason="not scorable: the face came without a sound of its own")
        ticks = np.arange(int(seconds * SCORE_RATE + 1e-6)) / SCORE_RATE
        at = np.searchsorted(times, ticks + 1e-6, side="right") - 1
        return score((crops[i] for i in at), speech.samples(), self.judge, states=states[at])


def score_file(pipe: SyncDiffPipeline, video: str | Path) -> Generator[Progress | Scores, None, None]:
    """Score a video's largest face against its own sound: Progress, then one Scores. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as name:
        folder = Path(name)
        clip = yield from _staged("reading", read_clip(video, folder), until=50)
        track = choose((yield from _track(clip, CompactGenerator.finder)))
        upright = CropFile(folder / "upright")
        yield from _cut(clip, [(crops.cut, crops.align(track, clip.times), upright)])
        yield Progress("scoring", 0, 1)
        yield pipe._score(upright, clip.times, track.state, clip.speech, clip.seconds)


def _check_target(written: tuple[Path, ...], read: tuple[Path, ...]) -> None:
    for path in written:
        if not path.parent.is_dir() or path.is_dir():
            raise InputError(f"The result cannot be written to {path}: give a file name in a folder that exists.")
        if path.resolve() in {p.resolve() for p in read}:
            raise InputError(f"The result would overwrite {path.name}, which is an input: give it another name.")


def _staged(
    stage: Stage, steps: Generator[float, None, Made], since: int = 0, until: int = 100
) -> Generator[Progress, None, Made]:
    """Fractions 0..1 -> Progress from `since` to `until` percent of a stage; passes the generator's own value on."""
    while True:
        try:
            fraction = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(stage, since + round((until - since) * fraction), 100)


def _finder(generator: CompactGenerator | PaperGenerator) -> tuple[str, tuple[str, ...]]:
    """The finder of faces that the generator asks for, or where its files are missing the shipped one; and notes."""
    if generator.finder == "face-alignment":
        try:
            check_files()
        except InputError as missing:
            instead = f"The face box is that of mediapipe's points, not S3FD's as in the paper. {missing}"
            return "mediapipe", (instead,)
    return generator.finder, ()


def _track(clip: Clip, finder: str) -> Generator[Progress, None, list[FaceTrack]]:
    steps = track_faces((frame.rgb() for frame in clip.frames()), finder)
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress("finding the face", done, 2 * len(clip))


def _correction(scores: Scores) -> str:
    """What came of the wish to have the offset corrected."""
    if not scores.scorable:
        return f"Whether the lips would be in step could not be told before: {scores.reason}."
    if not scores.out_of_step:
        return "Before the drawing the lips were found to be in step as they are: nothing was corrected."
    ms = abs(scores.out_of_step) * 1000 // SCORE_RATE
    early, late = ("earlier", "late") if scores.out_of_step > 0 else ("later", "early")
    return f"The lips were drawn {ms} ms {early} than they would have been: they had come {late}."


def _cut(clip: Clip, cuts: Sequence[tuple[Cut, np.ndarray, CropFile]]) -> Generator[Progress, None, None]:
    """Crops of all frames into files, each cut as its transforms [T, 2, 3] say; black where there is no face."""
    for i, frame in enumerate(clip.frames()):
        image = frame.rgb()
        for cut, to_frame, out in cuts:
            seen = np.isfinite(to_frame[i]).all()
            out[i] = cut(image, to_frame[i]) if seen else np.zeros((out.side, out.side, 3), np.uint8)
        yield Progress("finding the face", len(clip) + i + 1, 2 * len(clip))


def _pasted(
    generator: CompactGenerator | PaperGenerator,
    scene: Scene,
    i: int,
    image: np.ndarray,
    crop: np.ndarray,
    shape: np.ndarray | None,
    upright: np.ndarray,
    mark: Watermark | None,
) -> Patch:
    """What was drawn for output frame `i`, in that frame, with the invisible mark where the mouth is."""
    time, weight = scene.times[i], scene.weight[i]
    if mark is not None and generator.upright:
        crop = mark.mark(crop, time)
    patch = generator.paste(image, crop, scene, i, shape)
    return patch if mark is None or generator.upright else mark.onto(patch, upright, time, weight)


def _trim() -> None:
    """Hand freed memory back: glibc keeps what a stage has used, which grows with the clip and would add up."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _peak_memory_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
