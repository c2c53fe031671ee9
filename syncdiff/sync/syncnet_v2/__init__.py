"""LSE-C and LSE-D: a video's scores by the published SyncNet v2, by the two protocols that papers use.

Written after `joonson/syncnet_python` and Wav2Lip's `evaluation/scores_LSE`, whose behaviour it follows (raw BGR,
MFCC of 16-bit samples, 31 shifts over zeros beyond the ends, embeddings as they are), save for what is said at
`score_video`. The weights are not shipped: `find` finds an installed file, `fetch_weights` downloads it after a yes.

network        SyncNet v2, layer for layer
weights        finding, fetching and reading its file
face_windows   frames -> embeddings
sound_windows  samples -> MFCC -> embeddings
distance       both embeddings -> LSE-C and LSE-D
tracks, s3fd   the faces of a real video, as the protocol for such videos cuts them out
videos         a file or a folder -> scores
"""

from syncdiff.sync.syncnet_v2.distance import lse
from syncdiff.sync.syncnet_v2.face_windows import embed_video, jpeg_round_trip, resized
from syncdiff.sync.syncnet_v2.network import SyncNet
from syncdiff.sync.syncnet_v2.sound_windows import embed_audio
from syncdiff.sync.syncnet_v2.videos import NAMES, mean, score_folder, score_video
from syncdiff.sync.syncnet_v2.weights import fetch_weights, find, how_to_get, load

__all__ = ["NAMES", "SyncNet", "embed_audio", "embed_video", "fetch_weights", "find", "how_to_get", "jpeg_round_trip",
           "load", "lse", "mean", "resized", "score_folder", "score_video"]  # fmt: skip
