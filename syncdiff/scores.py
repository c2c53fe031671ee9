"""Is the sound in step with the lips? Crops and samples in, Scores out.

Knows the scoring protocol of SyncNet (Chung & Zisserman 2016) and simple landmark geometry; knows no files, no page
and nothing of the network that drew the lips.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """What a judge says about one clip. Figures of different judges must never be compared with each other."""

    judge: str  # the judge's own name; "syncdiff-judge" is not SyncNet and its figures are not LSE-C / LSE-D
    confidence: float | None = None  # median - minimum of the mean distances over the shifts; higher is better
    distance: float | None = None  # the minimum of the mean distances; lower is better
    offset_frames: int | None = None  # in 25 fps frames, SyncNet's sign: positive when the sound runs ahead of the lips
    curve: tuple[tuple[float, float], ...] = ()  # (seconds, confidence about that moment), in time order
    lip_opening_r: float | None = None  # correlation of lip opening with a reference clip's, where there is one
    lip_width_r: float | None = None  # the same for lip width
    reason: str | None = None  # "not scorable: ..." when confidence, distance and offset are None

    @property
    def scorable(self) -> bool:
        """Whether there are figures at all; if not, `reason` says why."""
        return self.reason is None
