"""Frames -> FaceTracks: find every face, follow it, say where it cannot be used. Knows nothing of crops or models.

mesh    mediapipe's nets: faces and 478 points in one picture        fan    face-alignment's: boxes and 68 points
follow  which face in this picture is which face in the last         pose   which way a head looks
track   what the other rooms see: FaceTrack, Gap, choose()
"""

from syncdiff.faces.track import (
    MAX_YAW,
    MIN_EYE_DISTANCE,
    MISSING,
    OK,
    OUTSIDE,
    SMALL,
    TURNED,
    FaceTrack,
    Gap,
    Spot,
    at_spot,
    choose,
    make_track,
)
from syncdiff.faces.tracker import track_faces

__all__ = [
    "MAX_YAW",
    "MIN_EYE_DISTANCE",
    "MISSING",
    "OK",
    "OUTSIDE",
    "SMALL",
    "TURNED",
    "FaceTrack",
    "Gap",
    "Spot",
    "at_spot",
    "choose",
    "make_track",
    "track_faces",
]
