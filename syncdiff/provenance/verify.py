"""Reads label, mark and note back from any file, and says in plain words what they mean together."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.errors import InputError
from syncdiff.media import read_clip
from syncdiff.progress import finished, scaled
from syncdiff.provenance.label import ALIKE, TEXT, sees_label
from syncdiff.provenance.manifest import Manifest, read_manifest
from syncdiff.provenance.payload import FALSE_ALARMS
from syncdiff.provenance.watermark import LEAST, WATCHED, WatermarkReading, reading

LOOKS = 8  # frames in which the label is looked for, over the whole video
Label = Literal["seen", "declared", "not seen", "not checked"]


@dataclass(frozen=True)
class Verification:
    """What was found in a file. `sentences` are the label, the mark and the note, one each; `verdict` is their sum."""

    verdict: str
    sentences: tuple[str, str, str]
    ours: bool  # a mark, a label or an unbroken note of this program is there
    label: Label  # "seen" is the pixels' own word, "declared" only the note's: it may have been cut off
    likeness: float  # -1..1: correlation with the label, seen from ALIKE on
    watermark: WatermarkReading | None  # None where no picture could be read
    manifest: Manifest

    def report(self) -> dict:
        """Everything as plain JSON types."""
        return asdict(self)


def verify(video: str | Path) -> Verification:
    """Look for all three marks in any file. Raises InputError only where there is no file to read."""
    return finished(verifying(video))


def verifying(video: str | Path) -> Generator[float, None, Verification]:
    """As verify, but yields how far it is, 0..1. Closing it stops the work and removes its files."""
    path = Path(video)
    if not path.is_file():
        raise InputError(f"{path.name or video} is not a file that can be read; choose the video again.")
    manifest = read_manifest(path)
    yield 0.05
    likeness, mark, trouble = -1.0, None, ""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        try:
            clip = yield from scaled(read_clip(path, Path(folder)), 0.05, 0.35)
        except InputError as error:
            trouble = str(error)
        else:
            looks = np.unique(np.linspace(0, len(clip) - 1, LOOKS).astype(int))
            likeness = sees_label(frame.rgb() for frame in clip.frames(looks))
            mark = yield from scaled(reading(clip), 0.35, 1.0)
    return _judged(likeness, mark, manifest, trouble)


def _judged(likeness: float, mark: WatermarkReading | None, manifest: Manifest, trouble: str) -> Verification:
    label: Label = "seen" if likeness >= ALIKE else "not checked" if mark is None else "not seen"
    intact = manifest.state in ("trusted", "self-signed")
    if label != "seen" and intact and manifest.ours and manifest.labelled:
        label = "declared"
    found = mark is not None and mark.found
    ours = found or label == "seen" or (intact and manifest.ours)
    if ours:
        verdict = _ours(found=found, signed=intact and manifest.ours)
        if manifest.state == "tampered":
            verdict += " The file was changed after it was signed."
    elif manifest.state == "tampered":
        verdict = "This file was changed after somebody signed it: do not rely on what its note says."
    elif intact and manifest.redrawn:
        verdict = (
            f"By its signed note, this file was made or changed by AI, with {manifest.maker or 'another program'}."
        )
    elif mark is None:
        verdict = f"Nothing was found, and the picture could not be looked at. {trouble}"
    else:
        verdict = (
            "No sign of syncdiff was found. That does not prove the video genuine: marks can be lost when a video is "
            "copied, and other programs leave none."
        )
    sentences = (_of_label(label), _of_mark(mark, trouble), _of_note(manifest))
    return Verification(verdict, sentences, ours, label, round(likeness, 3), mark, manifest)


def _ours(*, found: bool, signed: bool) -> str:
    if found:
        return "The lips in this video were redrawn by AI, with syncdiff."
    if signed:
        return "By its signed note, the lips in this video were redrawn by AI, with syncdiff."
    return "This video wears syncdiff's label, so its lips were probably redrawn by AI. A label can be copied."


def _of_label(label: Label) -> str:
    return {
        "seen": f'Label: "{TEXT}" is in the picture.',
        "declared": "Label: the signed note says there is one, but it is not seen: it was covered or cut off.",
        "not seen": "Label: none is seen in the picture.",
        "not checked": "Label: not checked, since the picture cannot be read.",
    }[label]


def _of_mark(mark: WatermarkReading | None, trouble: str) -> str:
    if mark is None:
        return f"Invisible mark: not checked. {trouble}"
    if mark.found:
        number = "too faint to read its job number" if mark.number is None else f"with the job number {mark.number}"
        return (
            f"Invisible mark: found in the mouth, {number}. Chance alone would show it in "
            f"fewer than one of {1 / FALSE_ALARMS:,.0f} videos."
        )
    if not mark.seconds:
        return f"Invisible mark: not checked, since no face looks at the camera for {LEAST} s at a time."
    return (
        f"Invisible mark: none was found in {mark.seconds:.1f} s of face (the first {WATCHED:.0f} s of a video are "
        "read). A mark is lost where the picture is very small, very short or strongly compressed."
    )


def _of_note(manifest: Manifest) -> str:
    if manifest.state == "none":
        return "Signed note (C2PA): none. Most programs remove it when they save a copy."
    if manifest.state == "tampered":
        return f"Signed note (C2PA): broken, the file or the note was changed after signing ({manifest.why})."
    says = "that AI was used" if manifest.redrawn else "nothing of AI"
    who = f"written by {manifest.maker or 'an unnamed program'}, and says {says}"
    if manifest.state == "trusted":
        return f"Signed note (C2PA): unbroken, {who}. The signer, {manifest.signer}, is known to this machine."
    return (
        f"Signed note (C2PA): unbroken, {who}. Nobody known to this machine vouches for the signer "
        f"({manifest.signer or 'unnamed'}): the file is as it was signed, but anybody could have signed it."
    )
