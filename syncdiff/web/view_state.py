"""The states of the view beside the form: dicts of plain JSON types, drawn by assets/page/."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from syncdiff.preview import LOOKED_SECONDS, Face, Trial
from syncdiff.results import NOTICED_OFFSET, Result
from syncdiff.sync.scoring import FPS, Scores
from syncdiff.web.eta import in_words
from syncdiff.web.examples import examples
from syncdiff.web.jobs import Running, Waiting
from syncdiff.web.share_links import Settings, preset_of, query

PREVIEW_PX, TRIAL_PX, THUMB_PX = 480, 960, 96  # longer side: of a preview, of a trial's frame, of a thumbnail
WHO_SPEAKS = "Who speaks?"
SYNCNET = "SyncNet v2"
EMPTY: dict[str, Any] = {"state": "empty"}

# Lower limits of the result's confidence over the source's, for the words "good" and "fair". On original clips, another
# speaker's voice keeps 27 to 50 % of the confidence (docs/judge.md), so less than half is no better than chance.
GOOD_RATIO, FAIR_RATIO = 0.85, 0.5
MIN_SOURCE_CONFIDENCE = 0.04  # a source below it shows no sync to compare with (frozen lips have 0.02)


def picture(image: np.ndarray | None, side: int = PREVIEW_PX) -> str | None:
    """[H,W,3] uint8 -> a JPEG of at most `side` px as a data URL; nothing is written to disk."""
    if image is None:
        return None
    small = Image.fromarray(image)
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def waiting(item: Waiting) -> dict[str, Any]:
    """A run that waits in the queue."""
    first = "One video is ahead of yours." if item.ahead == 1 else f"{item.ahead} videos are ahead of yours."
    when = "" if item.seconds is None else f" Your turn: in {in_words(item.seconds)}."
    return {"state": "waiting", "message": f"{first}{when}"}


def running(item: Running, preview: np.ndarray | None) -> dict[str, Any]:
    """A run in progress. preview: [h,w,3] uint8, the newest crop."""
    stage = item.progress.stage
    return {
        "state": "running",
        "stage": stage[:1].upper() + stage[1:],
        "percent": int(100 * item.fraction),
        "left": f"{in_words(item.left)} left",
        "preview": picture(preview),
    }


def failed(sentence: str, title: str = "", where: str | None = None) -> dict[str, Any]:
    """An error, in one sentence. where: id of the part of the form that must be filled in first."""
    title = title or ("Not yet" if where else "This did not work")
    return {"state": "error", "title": title, "message": sentence, "where": where}


def done(
    result: Result, report: Path, settings: Settings, thumb: np.ndarray | None = None, lse_needs: str = ""
) -> dict[str, Any]:
    """A finished run: original, result, scores and notes.

    thumb: [h,w,3] uint8, a picture for the list of results. lse_needs: why SyncNet's scores are missing."""
    source, now = result.source_scores, result.result_scores
    options, took = settings.options, sum(result.seconds.values())
    steps = f"{options.steps} step{'' if options.steps == 1 else 's'}"
    summary = f"{result.redrawn} of {result.frames} frames redrawn in {took:.1f} s, {steps}, seed {options.seed}."
    words = verdict(source, now)
    return {
        "state": "done",
        "result": gr.FileData(path=str(result.video)).model_dump(),
        "source": gr.FileData(path=str(result.source)).model_dump(),
        "report": gr.FileData(path=str(report)).model_dump(),
        "thumb": picture(thumb, THUMB_PX),
        "label": f"{steps}, seed {options.seed}",
        "brief": f"{took:.0f} s · {words.split('.')[0]}",
        "verdict": words,
        "in_step": in_step(result),
        "mouth": result.mouth,
        "curves": [source.curve, now.curve],
        "tables": tables(result),
        "judges": judges(result, lse_needs),
        "spans": spans(result),
        "notes": [*result.notes, summary, made_on(result.running)],
        "link": query(settings),
        "shared": what_is_shared(settings),
    }


def spans(result: Result) -> list[list[Any]]:
    """[from, to, kind, reason] of silence and of gaps, s; gaps come last and are drawn over silence."""
    silent = [[start, end, "silent", ""] for start, end in result.silent]
    return silent + [[gap.start, gap.end, "left", gap.reason] for gap in result.passed_through]


def trial(frame: Trial) -> dict[str, Any]:
    """One frame before and after, with the outlines of crop and mask."""
    height, width = frame.before.shape[:2]

    def polygon(points: np.ndarray) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points.tolist())

    return {
        "state": "trial",
        "before": picture(frame.before, TRIAL_PX),
        "after": picture(frame.after, TRIAL_PX),
        "size": [width, height],
        "crop": polygon(frame.crop),
        "mask": polygon(frame.mask),
        "message": (
            f"One frame, as it would speak second {frame.second:.1f} of the voice. To try another, stop the face video "
            "there."
        ),
    }


def faces(key: str, found: list[Face]) -> dict[str, Any]:
    """The faces found in the file `key`: a sentence, and buttons where there are several, the largest chosen.

    Each item holds its Spot as [second, x, y]."""
    items = [
        {
            "key": str(i),
            "label": f"Face {i + 1}",
            "poster": picture(face.picture, THUMB_PX),
            "spot": [face.spot.second, face.spot.x, face.spot.y],
        }
        for i, face in enumerate(found if len(found) > 1 else ())
    ]
    return {"of": key, "label": WHO_SPEAKS, "note": about_faces(found), "items": items, "chosen": "0"}


def about_faces(found: list[Face]) -> str:
    """A sentence on the faces found; "" where there is nothing to say."""
    if not found:
        return f"No face in the first {LOOKED_SECONDS:.0f} seconds. The whole video is searched when you make it."
    if len(found) > 1:
        return WHO_SPEAKS
    return f"In the first {LOOKED_SECONDS:.0f} seconds {found[0].trouble}." if found[0].trouble else ""


def tables(result: Result) -> list[dict[str, Any]]:
    """A table for each judge that scored: title, and rows [name, hint, original, result]; a figure for each face."""
    ours = (result.source_scores,), (result.result_scores,)
    syncnet = result.source_lse, result.result_lse
    tables = []
    for title, names, both in (
        (f"By {SYNCNET}", ("LSE-C", "LSE-D"), syncnet),
        (f"By {result.result_scores.judge}", ("Confidence", "Distance"), ours),
    ):
        if any(face.scorable for faces in both for face in faces):
            rows = (
                (names[0], "higher is better", lambda face: f"{face.confidence:.2f}"),
                (names[1], "lower is better", lambda face: f"{face.distance:.2f}"),
                ("Offset", "", lambda face: offset(face.offset_frames)),
            )
            cells = [[name, hint, *(_cell(faces, figure) for faces in both)] for name, hint, figure in rows]
            tables.append({"title": title, "rows": cells})
    return tables


def _cell(faces: Sequence[Scores], figure: Callable[[Scores], str]) -> str:
    return " · ".join(figure(face) if face.scorable else "–" for face in faces) or "–"


def offset(frames: int) -> str:
    """The offset between sound and lips in words. frames: at FPS, with SyncNet's sign."""
    return f"sound {abs(frames) * 1000 // FPS} ms {'early' if frames > 0 else 'late'}" if frames else "none"


def judges(result: Result, lse_needs: str = "") -> list[str]:
    """Sentences on what the scores mean, and why some are missing. lse_needs: in place of the result's own."""
    both, lse = (result.source_scores, result.result_scores), (*result.source_lse, *result.result_lse)
    sentences = []
    if any(scores.scorable for scores in both):
        name = result.result_scores.judge
        sentences.append(f"{name} is our own small judge: compare its scores only with each other, never with LSE.")
    unscored = (scores for scores in dict.fromkeys((*both, *lse)) if not scores.scorable)
    sentences += [f"{scores.judge}: {scores.reason}." for scores in unscored]
    return sentences + ([lse_needs or result.lse_needs] if result.lse_needs else [])


def made_on(running: dict[str, str]) -> str:
    """A sentence on device, precision and attention."""
    where = {"cpu": "the CPU", "cuda": "the GPU"}.get(running["device"], running["device"])
    kernel = {"sdpa": "torch's scaled_dot_product_attention"}.get(running["attention"], running["attention"])
    return f"Made on {where} in {running['precision']}, attention by {kernel}."


def verdict(source: Scores, now: Scores) -> str:
    """How well the lips follow the voice, compared with the original."""
    if not now.scorable:
        return f"Sync: not scored. {_because(now)}."
    if not source.scorable:
        return f"Sync: not rated. The original has nothing to compare with: {_because(source).lower()}."
    if (source.confidence or 0) < MIN_SOURCE_CONFIDENCE or not source.steady:
        return "Sync: not rated. In the original, lips and sound hardly agree, so there is nothing to compare with."
    ratio = (now.confidence or 0) / (source.confidence or 1)
    if ratio < FAIR_RATIO:
        return "Sync: poor. Another voice would fit these lips as well."
    if ratio < GOOD_RATIO:
        return "Sync: fair. Looser than in the original."
    return f"Sync: good. {'As close as' if ratio < 1 / GOOD_RATIO else 'Closer than'} in the original."


def in_step(result: Result) -> dict[str, Any]:
    """Sentences on the offset between sound and lips, and whether it can still be corrected.

    Where the lips follow no better than another voice's would, an offset means nothing and is left out."""
    source, now = result.source_scores, result.result_scores
    sentences, correctable = [], False
    follows = now.scorable and (not source.scorable or (now.confidence or 0) >= FAIR_RATIO * (source.confidence or 0))
    if follows and now.out_of_step:
        sentences.append(f"In the result the lips come {_apart(now.out_of_step)}.")
        if result.options.correct_offset:
            sentences.append("They were corrected once already.")
        correctable = not result.options.correct_offset
    if result.earlier_frames:
        sentences.append(f"Corrected: before that, the lips came {_apart(result.earlier_frames)}.")
    if result.source_offset is not None and abs(result.source_offset) >= NOTICED_OFFSET:
        apart = f"{abs(result.source_offset) * 1000 / FPS:.0f} ms {'after' if result.source_offset > 0 else 'before'}"
        sentences.append(f"In the original the lips come {apart} its own sound. The result does not inherit this.")
    return {"words": sentences, "correctable": correctable}


def _apart(frames: int) -> str:
    """'80 ms late', of the lips against the sound. frames: at FPS, with SyncNet's sign."""
    return f"{abs(frames) * 1000 // FPS} ms {'late' if frames > 0 else 'early'}"


def _because(scores: Scores) -> str:
    words = (scores.reason or "").removeprefix("not scorable: ")
    return words[:1].upper() + words[1:]


def what_is_shared(settings: Settings) -> str:
    """What a copied link reveals, and what it does not."""
    private = [name for name, key in (("face", settings.face), ("voice", settings.voice)) if key is None]
    if len(private) == 2:
        return "The link holds the settings only. Your face, your voice and this video stay here."
    if private:
        example = "voice" if private == ["face"] else "face"
        return f"The link holds the example {example} and the settings. Your {private[0]} and this video stay here."
    return "The link holds the example and the settings: whoever opens it can make the same video."


def public_report(result: Result) -> dict[str, Any]:
    """The report without the server's paths."""
    return {key: value for key, value in result.report().items() if key not in ("video", "source")}


def ready(settings: Settings) -> dict[str, Any]:
    """The form after a link has filled it in, as far as it could."""
    options, known = settings.options, examples()
    if settings.face and settings.face == settings.voice:
        what = [known[settings.face].label]
    else:
        what = [known[settings.face].face_label] if settings.face else []
        what += [f"the voice “{known[settings.voice].voice_label}”"] if settings.voice else []
    what += [preset_of(options.steps) or f"{options.steps} steps", f"seed {options.seed}"]
    switches = {
        "the rest cut off": options.tail == "trim",
        "offset corrected": options.correct_offset,
        "no label, if you promise to say it yourself": not options.label,
    }
    missing = [f"a {name}" for name in ("face", "voice") if not getattr(settings, name)]
    todo = f"Add {' and '.join(missing)}, then press" if missing else "Press"
    return {
        "state": "ready",
        "title": "The link filled in the form" if not missing else "The link filled in the settings",
        "message": " · ".join(what + [words for words, on in switches.items() if on]),
        "todo": f"{todo} “Make it speak”.",
    }
