"""One job: a face video and a voice are read, the face is redrawn, and a scored, signed video is written.

`Job.__call__` yields Progress after every bit of work and ends with one Result, so that page, command line and tests
show and stop it the same way; closing it cancels. No stage holds the clip in memory: frames are streamed from the
normalised file, and crops lie in a file of the private job folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from syncdiff.audio.silence import pauses
from syncdiff.conditioning import CropFile, FramePlan
from syncdiff.devices import free_memory, peak_memory_mib
from syncdiff.drawing import DECODED_AHEAD, Cut, Drawing, JudgeCrops, cut_crops
from syncdiff.errors import CheckpointError, InputError, disk_errors_as_sentences
from syncdiff.faces import FaceTrack, Spot, choose, face_index, read_upright, track_faces
from syncdiff.faces.face_alignment_backend import check_files
from syncdiff.faces.tracker import Backend
from syncdiff.generator import CompactGenerator, FaceGenerator
from syncdiff.geometry import crops
from syncdiff.media import LIMITS, Clip, ClipWriter, Speech, Timeline, read_speech, timeline
from syncdiff.models.occlusion import mark_covered
from syncdiff.options import OPTIONS, TEST_PASS_SECONDS, SampleOptions
from syncdiff.pipeline import Attention, SyncDiffPipeline
from syncdiff.progress import adapted, prefetched
from syncdiff.provenance.label import label
from syncdiff.provenance.manifest import credentials, sign
from syncdiff.provenance.watermark import Watermark
from syncdiff.results import Progress, Result, Stage, Stopwatch, correction_note, mouth_path, offset_notes
from syncdiff.server_tmpdir import JOB_PREFIX, RESULT_PREFIX, locked_tmpdir
from syncdiff.sync import syncnet_v2
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import FPS as SCORE_RATE
from syncdiff.sync.scoring import Scores, score
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.weights.folders import COMPACT

PREVIEW_SIDE = 720  # px, longer side of the browser-playable copy of the source
NO_SYNCNET = (
    "LSE-C and LSE-D need SyncNet's weights, which are not installed. `python -m syncdiff score VIDEO --fetch` asks, "
    "then fetches them."
)
RESULT_LIMITS = replace(LIMITS, bytes=2**50, seconds=86_400.0)  # a result may be larger and longer than an upload

Value = TypeVar("Value")


class Job:
    """Runs jobs with one loaded pipeline: `for update in job(face, voice, out): ...`.

    Args:
        pipe: the components.
        judge: the project's own sync judge; without one nothing is scored.
        syncnet: SyncNet v2, where its weights are installed.
        marking: whether the invisible mark is written; an evaluation, whose PSNR would count it, leaves it out.
        source_copy: whether a browser-playable copy of the source is written beside the result.
    """

    def __init__(
        self,
        pipe: SyncDiffPipeline,
        judge: JudgeNet | None = None,
        syncnet: SyncNet | None = None,
        *,
        marking: bool = True,
        source_copy: bool = True,
    ) -> None:
        self.pipe, self.judge, self.syncnet = pipe, judge, syncnet
        self.marking, self.source_copy = marking, source_copy

    @classmethod
    def ready(cls, folder: str | Path = COMPACT, attention: Attention = "auto", *, source_copy: bool = True) -> Job:
        """A job with the pipeline in a folder, its judge, and SyncNet where its weights are."""
        pipe, syncnet = SyncDiffPipeline.ready(folder, attention), None
        with suppress(CheckpointError):  # a wrong file in that place stops nothing: `score` says what is wrong with it
            syncnet = syncnet_v2.load()
        return cls(pipe, JudgeNet.shipped(), syncnet, source_copy=source_copy)

    def __call__(
        self, face: str | Path, voice: str | Path, out: str | Path, options: SampleOptions | None = None
    ) -> Generator[Progress | Result, None, None]:
        """Redraw the mouth in `face` so that it speaks `voice`.

        Writes `out` (mp4) and, where a copy of the source is wanted, `<out stem>.source.mp4`, both at the very end:
        until then files of these names stay what they were. Whatever happens, nothing else is left.

        Args:
            face: a video or a photo.
            voice: a sound file, or a video whose sound it is.
            out: the mp4 to write.
            options: SampleOptions, or PaperOptions for the paper's profile.

        Yields:
            Progress after every bit of work, and one Result at the end.

        Raises:
            InputError: an input cannot be used, or a disk is full; one sentence.
        """
        options = options or OPTIONS[self.pipe.profile]()
        out, watch, generator = Path(out), Stopwatch(), self.pipe.generator()
        preview = out.with_name(out.stem + ".source.mp4")
        _check_targets((out, preview), (Path(face), Path(voice)))
        finder, notes = _finder(generator)
        if options.correct_offset and self.pipe.profile == "paper":
            raise InputError("Correcting the offset is made for the compact profile: leave it out.")
        credentials()  # raises for a key that cannot be read, before the work and not after it
        temp = Path(tempfile.gettempdir())
        with (
            disk_errors_as_sentences(out.parent, temp),
            locked_tmpdir(temp, JOB_PREFIX) as folder,
            locked_tmpdir(out.parent, RESULT_PREFIX) as beside,
        ):
            video, original = beside / "result.mp4", beside / "source.mp4"
            with watch.stage("reading"):
                clip, speech = yield from _read(face, voice, folder)
                line = timeline(clip, speech, options.tail)
            with watch.stage("finding the face"):
                track = yield from _track(clip, finder, options.face)
                to_frame, source = generator.align(clip, track), CropFile(folder / "source", generator.side)
                cuts: list[tuple[Cut, np.ndarray, CropFile]] = [(generator.cut, to_frame, source)]
                if not generator.upright:
                    cuts.append((crops.cut, crops.align(track, clip.times), CropFile(folder / "upright")))
                yield from cut_crops(clip, cuts)
                _, upright_to_frame, upright = cuts[-1]
                judged = JudgeCrops(upright_to_frame, upright, CropFile(folder / "result"))
                track = mark_covered(track, upright)  # pyright: ignore[reportArgumentType]
            with watch.stage("listening"):
                yield Progress("listening", 0, 1)
                drawing = Drawing(generator, clip, generator.encode(speech.samples()), judged)
                yield Progress("listening", 1, 1)
            free_memory()
            plan = FramePlan.of(generator.face_clip(clip, track, to_frame, source), clip, line, track)
            earlier = 0
            if options.correct_offset:
                with watch.stage("testing the offset"):
                    scores = yield from self._test_pass(drawing, plan, line, track, speech, options.seed)
                earlier = scores.out_of_step
                plan, notes = plan.ahead(earlier / SCORE_RATE), (*notes, correction_note(scores))
            with (
                watch.stage("drawing"),
                ClipWriter(video, clip, line, speech) as result_writer,
                (
                    ClipWriter(original, clip, line, clip.speech, scale_to=PREVIEW_SIDE)
                    if self.source_copy
                    else nullcontext()
                ) as source_writer,
            ):
                mark = Watermark() if self.marking else None
                yield from drawing.write(plan, options, mark, result_writer, source_writer)
            sign(video, labelled=options.label and label(clip.width, clip.height) is not None)
            offset = plan.face.offset
            source_offset = offset.frames if offset is not None and offset.sure else None
            redrawn, passed, state = int(plan.to_redraw.sum()), plan.passed_through(clip, line, track), track.state
            del drawing, plan, track  # a long clip's landmarks and features: scoring needs neither
            free_memory()
            with watch.stage("scoring"):
                yield Progress("scoring", 0, 2)
                before = self._score(judged.source, clip.times, state, clip.speech, clip.seconds)
                yield Progress("scoring", 1, 2)
                after = self._score(judged.result, line.times, state[line.indices], speech, line.seconds)
                yield Progress("scoring", 2, 2)
                source_lse, result_lse, lse_needs = yield from self._lse(face, video)
            silent = pauses(speech.samples())
            if self.source_copy:
                original.replace(preview)
            video.replace(out)
        yield Result(
            video=out,
            source=preview if self.source_copy else None,
            frames=len(line),
            redrawn=redrawn,
            seconds=watch.seconds,
            passed_through=passed,
            silent=silent,
            notes=tuple(dict.fromkeys((*clip.notes, *offset_notes(source_offset), *speech.notes, line.note, *notes))),
            source_scores=before,
            result_scores=after,
            peak_memory_mib=peak_memory_mib(),
            options=options,
            running=self.pipe.running,
            source_offset=source_offset,
            mouth=mouth_path(judged.to_frame[line.indices], line.times, clip.width, clip.height),
            earlier_frames=earlier,
            source_lse=source_lse,
            result_lse=result_lse,
            lse_needs=lse_needs,
        )

    def score(self, video: str | Path) -> Generator[Progress | Scores, None, None]:
        """Score a video's largest face against its own sound: Progress, then one Scores. Raises InputError."""
        temp = Path(tempfile.gettempdir())
        with disk_errors_as_sentences(temp), locked_tmpdir(temp, JOB_PREFIX) as folder:
            clip = yield from _staged("reading", read_upright(video, folder), until=50)
            track = yield from _track(clip, CompactGenerator.finder, None)
            upright = CropFile(folder / "upright")
            yield from cut_crops(clip, [(crops.cut, crops.align(track, clip.times), upright)])
            yield Progress("scoring", 0, 1)
            yield self._score(upright, clip.times, track.state, clip.speech, clip.seconds)

    def _test_pass(
        self, drawing: Drawing, plan: FramePlan, line: Timeline, track: FaceTrack, speech: Speech, seed: int
    ) -> Generator[Progress, None, Scores]:
        """Scores of the plan's first TEST_PASS_SECONDS, drawn in one step into the crops that the result replaces."""
        plan, seconds = plan.until(TEST_PASS_SECONDS), min(TEST_PASS_SECONDS, line.seconds)
        yield from drawing.draft(plan, seed)
        return self._score(drawing.judged.result, plan.times, track.state[plan.indices], speech, seconds)

    def _score(
        self, upright: CropFile, times: np.ndarray, states: np.ndarray, speech: Speech | None, seconds: float
    ) -> Scores:
        """Score crops [S, S, 3] against a voice, at the judge's 25 fps.

        Args:
            times: [T] s, when each crop is first shown.
            states: [T] uint8, of the track.
            seconds: length of the video.
        """
        if self.judge is None:
            return Scores("no judge", reason="not scorable: these weights come without a judge")
        if speech is None:
            return Scores(self.judge.name, reason="not scorable: the face came without a sound of its own")
        ticks = np.arange(int(seconds * SCORE_RATE + 1e-6)) / SCORE_RATE
        shown = np.searchsorted(times, ticks + 1e-6, side="right") - 1
        return score((upright[i] for i in shown), speech.samples(), self.judge, states=states[shown])

    def _lse(
        self, face: str | Path, out: Path
    ) -> Generator[Progress, None, tuple[tuple[Scores, ...], tuple[Scores, ...], str | None]]:
        """LSE scores of source and result, and a sentence on what is missing where they cannot be measured."""
        if self.syncnet is None:
            return (), (), NO_SYNCNET
        try:
            source = yield from _staged("scoring", syncnet_v2.score_video(face, self.syncnet))
            result = yield from _staged("scoring", syncnet_v2.score_video(out, self.syncnet, limits=RESULT_LIMITS))
        except InputError as error:  # files of the face detector are missing
            return (), (), str(error)
        return source, result, None


def _check_targets(targets: tuple[Path, ...], sources: tuple[Path, ...]) -> None:
    """Raise InputError for a target that cannot be written or that is one of the sources."""
    for path in targets:
        if not path.parent.is_dir() or path.is_dir():
            raise InputError(f"The result cannot be written to {path}: give a file name in a folder that exists.")
        for source in sources:
            if path.exists() and source.exists() and path.samefile(source):  # whatever the spelling, and through links
                raise InputError(f"The result would overwrite {source.name}, which is an input: give it another name.")


def _staged(
    stage: Stage, steps: Generator[float, None, Value], since: int = 0, until: int = 100
) -> Generator[Progress, None, Value]:
    """Fractions 0..1 -> Progress from `since` to `until` percent of a stage."""
    return adapted(steps, lambda fraction: Progress(stage, since + round((until - since) * fraction), 100))


def _read(face: str | Path, voice: str | Path, folder: Path) -> Generator[Progress, None, tuple[Clip, Speech]]:
    """Film and voice, decoded side by side, each by a process of its own."""
    with closing(read_upright(face, folder)) as film, closing(read_speech(voice, folder)) as sound:
        next(film)  # until its process has begun
        next(sound)
        clip = yield from _staged("reading", film, until=50)
        return clip, (yield from _staged("reading", sound, since=50))


def _finder(generator: FaceGenerator) -> tuple[Backend, tuple[str, ...]]:
    """The face detector that a generator asks for, or mediapipe where its files are missing; and notes."""
    if generator.finder == "face-alignment":
        try:
            check_files()
        except InputError as missing:
            instead = f"The face box is that of mediapipe's points, not S3FD's as in the paper. {missing}"
            return "mediapipe", (instead,)
    return generator.finder, ()


def _track(clip: Clip, finder: Backend, face: int | Spot | None) -> Generator[Progress, None, FaceTrack]:
    """The track of the face that was asked for (`SampleOptions.face`)."""
    steps = track_faces(prefetched((frame.rgb() for frame in clip.frames()), DECODED_AHEAD), finder)
    tracks = yield from adapted(steps, lambda done: Progress("finding the face", done, 2 * len(clip)))
    return choose(tracks, face_index(tracks, face, clip.times, (clip.height, clip.width)))
