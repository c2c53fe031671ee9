"""Drawing a job's frames: crops are cut, mouths generated, and pasted, watermarked and encoded in threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from syncdiff.conditioning import CropFile, FramePlan
from syncdiff.devices import usable_cores
from syncdiff.generator import CHUNK, DrawnFrame, FaceGenerator, GeneratorStep
from syncdiff.geometry import crops
from syncdiff.media import Clip, ClipWriter, Frame, Patch
from syncdiff.options import SampleOptions
from syncdiff.progress import Worker, mapped, prefetched
from syncdiff.provenance.label import label
from syncdiff.provenance.watermark import Watermark
from syncdiff.results import Progress

DECODED_AHEAD = 4  # frames that are decoded in a thread while one is searched or cut

Cut = Callable[[np.ndarray, np.ndarray], np.ndarray]  # frame [H, W, 3] and transform [2, 3] -> crop [side, side, 3]


@dataclass(frozen=True)
class JudgeCrops:
    """Upright crops of source and result, by frame number, as the judge sees them in either profile."""

    to_frame: np.ndarray  # [T, 2, 3] crop px -> px of the source's frames
    source: CropFile
    result: CropFile


def cut_crops(clip: Clip, cuts: Sequence[tuple[Cut, np.ndarray, CropFile]]) -> Generator[Progress, None, None]:
    """Write crops of all frames into files; black where there is no face.

    cuts: for each file the function that cuts, the transforms [T, 2, 3], and the file.
    """

    def cut_frame(numbered: tuple[int, Frame]) -> None:
        i, frame = numbered
        image = frame.rgb()
        for cut, to_frame, file in cuts:
            present = np.isfinite(to_frame[i]).all()
            file[i] = cut(image, to_frame[i]) if present else np.zeros((file.side, file.side, 3), np.uint8)

    frames = enumerate(prefetched(clip.frames(), DECODED_AHEAD))
    with closing(mapped(cut_frame, frames, usable_cores())) as finished:
        for done, _ in enumerate(finished, start=1):
            yield Progress("finding the face", len(clip) + done, 2 * len(clip))


@dataclass(frozen=True)
class Drawing:
    """Draws the frames of one result."""

    generator: FaceGenerator
    clip: Clip  # the source
    features: Any  # of the voice, as `generator.encode` gives them
    judged: JudgeCrops

    def draft(self, plan: FramePlan, seed: int) -> Iterator[Progress]:
        """Draw a plan's frames in one step each, into the crops of the result, which `write` replaces."""
        for i in np.flatnonzero(~plan.to_redraw):
            self.judged.result[i] = self.judged.source[plan.indices[i]]
        done = 0
        for start in range(0, len(plan), CHUNK):
            for step in self.generator.generate(plan, self.features, start, steps=1, seed=seed):
                for i, frame in (step.finished or {}).items():
                    self.judged.result[i] = frame.crop
                done = min(done + len(step.frames), len(plan))
                yield Progress("testing the offset", done, len(plan), self._preview(plan, step))

    def write(
        self,
        plan: FramePlan,
        options: SampleOptions,
        mark: Watermark | None,
        video: ClipWriter,
        original: ClipWriter | None,
    ) -> Iterator[Progress]:
        """Generate chunk by chunk; threads paste and encode a chunk's frames while the next is generated.

        Args:
            plan: which frames are drawn, and when they are shown.
            options: steps, seed, and whether the visible label is drawn.
            mark: the invisible watermark; None leaves it out.
            video: gets the result's frames.
            original: gets the source's frames at the same times; None for no copy of the source.
        """
        clip, judged, steps = self.clip, self.judged, options.steps
        total = len(plan) * (steps + 1)  # a frame counts once for every evaluation and once for the pasting
        visible_label = label(clip.width, clip.height) if options.label else None
        written = 0

        def paste(task: tuple[int, Frame, DrawnFrame | None]) -> tuple[int, Frame, Patch | None]:
            i, frame, drawn = task
            at, patch = plan.indices[i], None
            if drawn is None:
                judged.result[i] = judged.source[at]
            else:
                image = frame.rgb()
                patch = self._marked(plan, i, drawn, image, mark)
                patch.apply(image)
                judged.result[i] = self._judged(image, at)
            return i, frame, patch

        def write_chunk(start: int, drawn: dict[int, DrawnFrame], stopped: Callable[[], bool]) -> None:
            nonlocal written
            frames = range(start, min(start + CHUNK, len(plan)))
            decoded = zip(frames, clip.frames(plan.indices[frames.start : frames.stop]), strict=True)
            tasks = ((i, frame, drawn.pop(i, None)) for i, frame in decoded)
            with closing(mapped(paste, tasks, usable_cores())) as pasted:
                for i, frame, patch in pasted:
                    if stopped():
                        return
                    if original is not None:
                        original.write(frame, plan.times[i])
                    video.write(frame, plan.times[i], patch, visible_label)
                    written += 1

        with Worker() as writer:
            for start in range(0, len(plan), CHUNK):
                generated, drawn = start * steps, {}
                for step in self.generator.generate(plan, self.features, start, steps=steps, seed=options.seed):
                    drawn |= step.finished or {}
                    generated = min(generated + len(step.frames), min(start + CHUNK, len(plan)) * steps)
                    yield Progress("drawing", generated + written, total, self._preview(plan, step))
                task = partial(write_chunk, start, drawn)
                while not writer.submit(task):
                    yield Progress("drawing", generated + written, total)
            while writer.pending():
                yield Progress("drawing", len(plan) * steps + written, total)

    def _judged(self, image: np.ndarray, at: int) -> np.ndarray:
        """The judge's crop of a finished frame, so that the result itself is scored. `at`: its source frame."""
        to_frame = self.judged.to_frame[at]
        if not self.generator.upright:  # the patch may be larger than the window
            return crops.cut(image, to_frame)
        crop = self.judged.source[at]
        crop[crops.WINDOW] = crops.cut(image, to_frame, crops.WINDOW)[crops.WINDOW]
        return crop

    def _preview(self, plan: FramePlan, step: GeneratorStep) -> np.ndarray | None:
        """A step's preview, without the stripes where the crop reaches beyond the picture."""
        if step.preview is None or not self.generator.upright:
            return step.preview
        to_frame = self.judged.to_frame[plan.indices[step.frames[0]]]
        return step.preview[crops.within(to_frame, (self.clip.height, self.clip.width))]

    def _marked(self, plan: FramePlan, i: int, drawn: DrawnFrame, image: np.ndarray, mark: Watermark | None) -> Patch:
        """The patch of output frame `i`, with the invisible watermark where the mouth is."""
        if mark is None:
            return drawn.patch(image, drawn.crop)
        time = plan.times[i]
        if self.generator.upright:
            return drawn.patch(image, mark.mark(drawn.crop, time))
        to_frame = self.judged.to_frame[plan.indices[i]]
        return mark.onto(drawn.patch(image, drawn.crop), to_frame, time, plan.weight[i])
