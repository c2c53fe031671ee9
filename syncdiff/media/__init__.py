"""Files in, files out. The only room that touches containers and codecs; it knows nothing of faces or models.

door     an upload -> Clip or Speech, by way of a separate, bounded process (intake)
clip     what the other rooms see: Clip, Frame, Speech
timeline which source frame is shown when
writer   frames + voice -> one finished mp4
"""

from syncdiff.audio import SAMPLE_RATE
from syncdiff.errors import InputError
from syncdiff.media.clip import LIMITS, Clip, Colour, Frame, Limits, Patch, Speech
from syncdiff.media.reader import open_clip, open_speech, read_clip, read_speech
from syncdiff.media.timeline import Timeline, timeline
from syncdiff.media.writer import ClipWriter

__all__ = [
    "LIMITS",
    "SAMPLE_RATE",
    "Clip",
    "ClipWriter",
    "Colour",
    "Frame",
    "InputError",
    "Limits",
    "Patch",
    "Speech",
    "Timeline",
    "open_clip",
    "open_speech",
    "read_clip",
    "read_speech",
    "timeline",
]
