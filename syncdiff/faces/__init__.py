"""Frames -> FaceTracks: detects every face, follows it, and marks the frames in which it cannot be redrawn.

detection               one face in one frame
mediapipe_backend       faces and 478 landmarks by mediapipe's networks
face_alignment_backend  boxes and 68 landmarks by face-alignment's
orientation             films recorded upside down or sideways
tracker                 associates detections over time
track                   FaceTrack, Gap, choose(), face_index()
head_pose               yaw from landmarks
"""

# ruff: noqa: F401 -- imported for users of the package

from syncdiff.faces.orientation import read_upright
from syncdiff.faces.track import (
    COVERED,
    MISSING,
    OK,
    OTHER,
    OUTSIDE,
    SMALL,
    TURNED,
    FaceTrack,
    Gap,
    Spot,
    choose,
    face_index,
    make_track,
)
from syncdiff.faces.tracker import track_faces
