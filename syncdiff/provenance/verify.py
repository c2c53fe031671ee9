"""Detects label, watermark and manifest in any file, and describes the outcome in sentences."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from syncdiff.errors import InputError
from syncdiff.media import read_clip
from syncdiff.progress import finished, scaled
from syncdiff.provenance.label import SEEN_CORRELATION, TEXT, label_likeness
from syncdiff.provenance.manifest import Manifest, read_manifest
from syncdiff.provenance.watermark import FALSE_ALARMS, MIN_SECONDS, READ_SECONDS, WatermarkReading, read_watermark

LABEL_FRAMES = 8  # frames that are searched for the label, spread over the video
Label = Literal["seen", "declared", "not seen", "not checked"]


@dataclass(frozen=True)
class Verification:
    """What was found in a file."""

    verdict: str  # a sentence on all three together
    sentences: tuple[str, str, str]  # label, watermark, manifest
    ours: bool  # a watermark, a label or an intact manifest of this program is there
    label: Label  # "seen" in the pixels; "declared": by the manifest only, for it may have been cut off
    likeness: float  # -1..1: correlation with the label; "seen" from SEEN_CORRELATION on
    watermark: WatermarkReading | None  # None where no picture could be read
    manifest: Manifest

    def report(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return asdict(self)


def verify(video: str | Path) -> Verification:
    """Look for label, watermark and manifest in any file. Raises InputError only where there is no file."""
    return finished(verifying(video))


def verifying(video: str | Path) -> Generator[float, None, Verification]:
    """As verify, but yields the fraction done, 0..1. Closing the generator stops the work and removes its files."""
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
            chosen = np.unique(np.linspace(0, len(clip) - 1, LABEL_FRAMES).astype(int))
            likeness = label_likeness(frame.rgb() for frame in clip.frames(chosen))
            mark = yield from scaled(read_watermark(clip), 0.35, 1.0)
    return _conclude(likeness, mark, manifest, trouble)


def _conclude(likeness: float, mark: WatermarkReading | None, manifest: Manifest, trouble: str) -> Verification:
    intact = manifest.state in ("trusted", "self-signed")
    signed = intact and manifest.ours
    label: Label = "seen" if likeness >= SEEN_CORRELATION else "not checked" if mark is None else "not seen"
    if label != "seen" and signed and manifest.labelled:
        label = "declared"
    found = mark is not None and mark.found
    ours = found or signed or label == "seen"
    if found:
        verdict = "The lips in this video were redrawn by AI, with syncdiff."
    elif signed:
        verdict = "By its signed manifest, the lips in this video were redrawn by AI, with syncdiff."
    elif label == "seen":
        verdict = "This video shows syncdiff's label, so its lips were probably redrawn by AI. A label can be copied."
    elif manifest.state == "tampered":
        verdict = "This file was changed after it was signed: do not rely on its manifest."
    elif intact and manifest.redrawn:
        program = manifest.maker or "another program"
        verdict = f"By its signed manifest, this file was made or changed by AI, with {program}."
    elif mark is None:
        verdict = f"Nothing was found, and the picture could not be read. {trouble}"
    else:
        verdict = (
            "No sign of syncdiff was found. That does not prove the video genuine: marks can be lost when a video is "
            "copied, and other programs leave none."
        )
    if ours and manifest.state == "tampered":
        verdict += " The file was changed after it was signed."
    sentences = (_of_label(label), _of_watermark(mark, trouble), _of_manifest(manifest))
    return Verification(verdict, sentences, ours, label, round(likeness, 3), mark, manifest)


def _of_label(label: Label) -> str:
    return {
        "seen": f'Label: "{TEXT}" is in the picture.',
        "declared": "Label: the manifest says there is one, but it is not seen: it was covered or cut off.",
        "not seen": "Label: none is seen in the picture.",
        "not checked": "Label: not checked, since the picture cannot be read.",
    }[label]


def _of_watermark(mark: WatermarkReading | None, trouble: str) -> str:
    if mark is None:
        return f"Invisible watermark: not checked. {trouble}"
    if mark.found:
        chance = f"fewer than one of {1 / FALSE_ALARMS:,.0f} videos"
        return f"Invisible watermark: found in the mouth. Chance alone would show it in {chance}."
    if not mark.seconds:
        return f"Invisible watermark: not checked, since no face looks at the camera for {MIN_SECONDS} s at a time."
    return (
        f"Invisible watermark: none was found in {mark.seconds:.1f} s of face (the first {READ_SECONDS:.0f} s of a "
        "video are read). It is lost where the picture is very small, very short or strongly compressed."
    )


def _of_manifest(manifest: Manifest) -> str:
    if manifest.state == "none":
        return "C2PA manifest: none. Most programs remove it when they save a copy."
    if manifest.state == "tampered":
        return f"C2PA manifest: broken, the file or the manifest was changed after signing ({manifest.why})."
    says = "that AI was used" if manifest.redrawn else "nothing of AI"
    intact = f"C2PA manifest: intact, written by {manifest.maker or 'an unnamed program'}, and says {says}."
    if manifest.state == "trusted":
        return f"{intact} The signer, {manifest.signer}, is known to this machine."
    return (
        f"{intact} The signer ({manifest.signer or 'unnamed'}) is not known to this machine: the file is as it was "
        "signed, but anybody could have signed it."
    )
