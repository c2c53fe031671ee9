"""Files in, files out. Only this package touches containers and codecs; it needs no faces and no networks.

An upload is decoded by a separate process with bounded memory, time and disk, which writes normalised files:

reader         starts and watches that process; upload -> Clip or Speech
request        what the process is asked for, and its limits
decode_worker  its main program
filetype       magic bytes -> type
streams        which track is taken, and its decoding
timestamps     presentation times -> one clock without jumps
normalize      any picture -> upright, progressive, 8-bit SDR; tonemap: the table from HDR
video, audio   pictures -> H.264, sound -> WAV
extras         tags, chapters and subtitles that go over to the result

Everything else reads only what it wrote:

clip           Clip, Frame, Speech: frames and samples of the normalised files
timeline       which source frame is shown when
writer         frames + voice -> the finished mp4
side_by_side   original and result in one video
"""

from syncdiff.media.clip import Clip, Colour, Frame, Patch, Speech
from syncdiff.media.reader import open_clip, open_speech, read_clip, read_speech
from syncdiff.media.request import LIMITS, Limits
from syncdiff.media.timeline import Timeline, timeline
from syncdiff.media.writer import ClipWriter

__all__ = ["LIMITS", "Clip", "ClipWriter", "Colour", "Frame", "Limits", "Patch", "Speech", "Timeline", "open_clip",
           "open_speech", "read_clip", "read_speech", "timeline"]  # fmt: skip
