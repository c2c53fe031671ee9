"""What the view beside the form is told: one dict for each state, plain JSON types. assets/page/ draws it."""

import base64
import io
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from syncdiff.preview import FIRST, Face, Trial
from syncdiff.results import Progress, Result
from syncdiff.sync.scoring import FPS, Scores
from syncdiff.web.eta import in_words
from syncdiff.web.examples import examples
from syncdiff.web.jobs import Waiting
from syncdiff.web.share_links import Settings, preset_of, query

PREVIEW, TRIAL, THUMB = 480, 960, 96  # px, longer side of the preview, of a trial's frame, of a face to choose
EMPTY: dict[str, Any] = {"state": "empty"}

# How the result's confidence over the source's own is put into words. On clips that nobody touched, another speaker's
# voice under the lips keeps 27 to 50 % of the confidence (docs/judge.md), so less than half is no better than chance.
AS_CLOSE, CLEARLY = 0.85, 0.5
FAINT = 0.04  # confidence of a source below which the judge sees no sync to compare with (frozen lips: 0.02)


def picture(image: np.ndarray | None, side: int = PREVIEW) -> str | None:
    """uint8 [H,W,3] -> a small JPEG as a data URL: nothing is written to disk for a preview."""
    if image is None:
        return None
    small = Image.fromarray(image)
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def waiting(item: Waiting) -> dict[str, Any]:
    """Whose turn it is."""
    first = "One video comes before yours." if item.ahead == 1 else f"{item.ahead} videos come before yours."
    when = "" if item.seconds is None else f" It should be your turn in {in_words(item.seconds)}."
    return {"state": "waiting", "message": f"{first}{when}"}


def running(progress: Progress, fraction: float, left: float | None, preview: np.ndarray | None) -> dict[str, Any]:
    """How far it is."""
    return {
        "state": "running",
        "stage": progress.stage[:1].upper() + progress.stage[1:],
        "percent": int(100 * fraction),
        "left": "" if left is None else f"{in_words(left)} left",
        "preview": picture(preview),
    }


def failed(sentence: str, title: str = "", where: str | None = None) -> dict[str, Any]:
    """One sentence that says why. where: id of the part of the form that is to be filled in first."""
    title = title or ("One thing is missing" if where else "This did not work")
    return {"state": "error", "title": title, "message": sentence, "where": where}


def done(result: Result, report: Path, settings: Settings) -> dict[str, Any]:
    """The two videos and everything known about them."""
    source, now = result.source_scores, result.result_scores
    options = settings.options
    made = (
        f"{result.redrawn} of {result.frames} frames redrawn in {sum(result.seconds.values()):.1f} s, "
        f"steps {options.steps}, seed {options.seed}."
    )
    return {
        "state": "done",
        "result": gr.FileData(path=str(result.video)).model_dump(),
        "source": gr.FileData(path=str(result.source)).model_dump(),
        "report": gr.FileData(path=str(report)).model_dump(),
        "verdict": verdict(source, now),
        "in_step": in_step(result),
        "curves": [source.curve, now.curve],
        "table": table(result),
        "judges": judges(result),
        "spans": spans(result),
        "notes": [*result.notes, made, made_on(result.running)],
        "link": query(settings),
        "shared": what_is_shared(settings),
    }


def spans(result: Result) -> list[list[Any]]:
    """[from, to, kind, reason] of what is not plainly redrawn speech; what was left alone lies over what is silent."""
    silent = [[start, end, "silent", ""] for start, end in result.silent]
    return silent + [[gap.start, gap.end, "left", gap.reason] for gap in result.passed_through]


def trial(seen: Trial) -> dict[str, Any]:
    """One frame before and after, and where the work was done."""
    height, width = seen.before.shape[:2]

    def polygon(points: np.ndarray) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points.tolist())

    return {
        "state": "trial",
        "before": picture(seen.before, TRIAL),
        "after": picture(seen.after, TRIAL),
        "size": [width, height],
        "crop": polygon(seen.crop),
        "mask": polygon(seen.mask),
        "message": f"One frame, as it would speak second {seen.second:.1f} of the voice.",
    }


def faces(found: list[Face]) -> dict[str, Any]:
    """The faces to choose from, for a row of picks: the largest is chosen."""
    items = [
        {"key": str(i), "label": f"Face {i + 1}", "poster": picture(f.picture, THUMB)} for i, f in enumerate(found)
    ]
    return {"label": "Which face should speak?", "items": items, "chosen": "0"}


def about_faces(found: list[Face]) -> str:
    """What the first look at the face has to say, if anything."""
    if not found:
        return f"No face is seen in the first {FIRST:.0f} seconds. All of the video is searched when it is made."
    if len(found) > 1:
        return "Which face should speak?"
    return f"In the first {FIRST:.0f} seconds {found[0].trouble}." if found[0].trouble else ""


def table(result: Result) -> list[tuple[str, str, str, str]]:
    """(what, which way is better, of the original, of the result) for whatever was scored; a figure for each face."""
    ours = (result.source_scores,), (result.result_scores,)
    syncnet = result.source_lse, result.result_lse
    rows = (
        ("Confidence", "higher is better", ours, lambda face: f"{face.confidence:.2f}"),
        ("Distance", "lower is better", ours, lambda face: f"{face.distance:.2f}"),
        ("Offset", "", ours, lambda face: offset(face.offset_frames)),
        ("LSE-C", "higher is better", syncnet, lambda face: f"{face.confidence:.2f}"),
        ("LSE-D", "lower is better", syncnet, lambda face: f"{face.distance:.2f}"),
    )
    return [
        (what, hint, *(" · ".join(tell(face) if face.scorable else "–" for face in faces) or "–" for faces in both))
        for what, hint, both, tell in rows
        if any(face.scorable for faces in both for face in faces)
    ]


def offset(frames: int) -> str:
    """How far sound and lips are apart; frames of the judge's clock, SyncNet's sign."""
    return f"sound {abs(frames) * 1000 // FPS} ms {'early' if frames > 0 else 'late'}" if frames else "none"


def judges(result: Result) -> list[str]:
    """Whose figures the table holds, and why some are missing."""
    both, syncnet = (result.source_scores, result.result_scores), (*result.source_lse, *result.result_lse)
    told = [f"Confidence, distance and offset are {both[1].judge}'s: they compare only with each other."]
    told = told if any(one.scorable for one in both) else []
    told += [f"LSE-C and LSE-D are by {name}." for name in dict.fromkeys(one.judge for one in syncnet if one.scorable)]
    told += [f"{one.judge}: {one.reason}." for one in dict.fromkeys(syncnet) if not one.scorable]
    return told + ([result.lse_needs] if result.lse_needs else [])


def made_on(running: dict[str, str]) -> str:
    """Where and how the networks ran."""
    where = {"cpu": "the CPU", "cuda": "the GPU"}.get(running["device"], running["device"])
    kernel = {"sdpa": "torch's scaled_dot_product_attention"}.get(running["attention"], running["attention"])
    return f"SamplerStep on {where} in {running['precision']}, attention by {kernel}."


def verdict(source: Scores, now: Scores) -> str:
    """How well the lips follow, in words that need no figures."""
    if not now.scorable:
        return f"How well the lips follow cannot be told: {_because(now)}."
    if not source.scorable:
        return f"There is nothing to compare with, so the figures stand alone: {_because(source)}."
    if source.confidence < FAINT:
        return "Even in the original hardly any sync can be made out, so the figures say little here."
    ratio = now.confidence / source.confidence
    if ratio >= AS_CLOSE:
        words = "The lips follow the new voice as closely as they followed the old one"
    elif ratio >= CLEARLY:
        words = "The lips follow the new voice, but more loosely than they followed the old one"
    else:
        words = "The lips hardly follow the new voice: a stranger's voice might fit as well"
    return f"{words}."


def in_step(result: Result) -> dict[str, Any]:
    """Whether sound and lips are apart, in words, and whether that can still be corrected.

    An offset between lips that follow no better than a stranger's would say nothing, and is not told."""
    source, now = result.source_scores, result.result_scores
    told, correctable = [], False
    follows = now.scorable and (not source.scorable or now.confidence >= CLEARLY * source.confidence)
    if follows and now.out_of_step:
        told.append(f"In the result the lips come {_apart(now.out_of_step)}.")
        if result.options.correct_offset:
            told.append("They were corrected once: closer than this the judge cannot bring them.")
        correctable = not result.options.correct_offset
    if result.earlier_frames:
        told.append(f"Corrected: as the model drew them, the lips came {_apart(result.earlier_frames)}.")
    if source.scorable and source.out_of_step:
        told.append(
            f"In the original the lips come {_apart(source.out_of_step)}. That does not carry over: the new lips are "
            "drawn after the voice, not after the old picture."
        )
    return {"words": told, "correctable": correctable}


def _apart(frames: int) -> str:
    """'80 ms late', of lips against their sound; frames with SyncNet's sign."""
    return f"{abs(frames) * 1000 // FPS} ms {'late' if frames > 0 else 'early'}"


def _because(scores: Scores) -> str:
    return (scores.reason or "").removeprefix("not scorable: ")


def what_is_shared(settings: Settings) -> str:
    """What a copied link gives away, and what it does not."""
    own = [name for name, key in (("face", settings.face), ("voice", settings.voice)) if key is None]
    if own:
        held = "the example and the settings" if len(own) == 1 else "the settings only"
        return f"The link holds {held}. Your {' and your '.join(own)} and this video stay here."
    video = "the same video"
    return f"The link holds the example and the settings: whoever opens it can make {video}."


def public_report(result: Result) -> dict[str, Any]:
    """The report as anybody may have it: without the server's folders."""
    return {key: value for key, value in result.report().items() if key not in ("video", "source")}


def ready(settings: Settings) -> dict[str, Any]:
    """A link has filled the form."""
    options = settings.options
    what = [examples()[key].label for key in dict.fromkeys((settings.face, settings.voice)) if key]
    what += [preset_of(options.steps) or f"{options.steps} steps", f"seed {options.seed}"]
    turned = {
        "the rest cut off": options.tail == "trim",
        "offset corrected": options.correct_offset,
        "no label, if you promise to say it yourself": not options.label,
    }
    return {"state": "ready", "message": " · ".join(what + [words for words, on in turned.items() if on])}
