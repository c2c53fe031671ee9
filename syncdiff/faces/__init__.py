"""Frames -> FaceTracks: detects every face, follows it, and marks the frames in which it cannot be redrawn.

detection               one face in one frame
mediapipe_backend       faces and 478 landmarks by mediapipe's networks
face_alignment_backend  boxes and 68 landmarks by face-alignment's
orientation             films that stand on their head or lie on their side
tracker                 associates detections over time
track                   FaceTrack, Gap, choose()
head_pose               yaw from landmarks
"""

from syncdiff.faces.orientation import read_upright
from syncdiff.faces.track import (
    COVERED,
    MAX_YAW,
    MIN_EYE_DISTANCE,
    MISSING,
    OK,
    OTHER,
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
    "COVERED",
    "MAX_YAW",
    "MIN_EYE_DISTANCE",
    "MISSING",
    "OK",
    "OTHER",
    "OUTSIDE",
    "SMALL",
    "TURNED",
    "FaceTrack",
    "Gap",
    "Spot",
    "at_spot",
    "choose",
    "make_track",
    "read_upright",
    "track_faces",
]
