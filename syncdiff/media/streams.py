"""Which picture and sound track of an upload are taken, and their decoding. Runs in the decode worker."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Any

import av
import av.container
import av.error
import av.stream
import av.video

from syncdiff.errors import InputError
from syncdiff.media.clip import READ_THREADS
from syncdiff.media.extras import is_cover, language_of
from syncdiff.media.request import Limits


def picture_streams(container: av.container.InputContainer) -> list[av.video.VideoStream]:
    """The moving pictures: no covers, no thumbnails."""
    return [stream for stream in container.streams.video if not is_cover(stream)]


def default_stream(streams: Sequence[Any]) -> Any:
    """The stream that a player takes: the first that is marked as default and can be decoded, else the first."""
    known = [stream for stream in streams if stream.codec_context is not None]
    marked = [stream for stream in known if stream.disposition & av.stream.Disposition.default]
    return (marked or known or list(streams))[0]


def track_note(streams: Sequence[Any], taken: Any, what: str) -> list[str]:
    """A sentence that says which of several tracks was taken; none for a single track."""
    if len(streams) < 2:
        return []
    language = f" ({language_of(taken)})" if language_of(taken) else ""
    number = list(streams).index(taken) + 1
    return [f"The file has {len(streams)} {what} tracks; number {number}{language}, the default, was taken."]


def choose_picture(container: av.container.InputContainer, name: str) -> av.video.VideoStream:
    """The picture track to read. Raises InputError."""
    streams = picture_streams(container)
    if not streams:
        what = "holds sound but no picture" if container.streams.audio else "holds neither picture nor sound"
        raise InputError(f"{name} {what}; give a video or a photo here, and the voice in its own place.")
    stream = default_stream(streams)
    if stream.codec_context is None:
        raise InputError(f"The picture of {name} is coded in a way that is not known here; export it as H.264.")
    return stream


def decode_skipping_errors(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    damage: list[str],
    decoder: av.CodecContext | None = None,
) -> Iterator[Any]:
    """Frames of the stream. A packet that cannot be read or decoded is left out; its error is appended to `damage`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if decoder is None:
                yield from packet.decode()
            else:
                yield from decoder.decode(packet if packet.size else None)  # pyright: ignore[reportAttributeAccessIssue]
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
                raise
            damage.append(str(error))


def decode_pictures(
    container: av.container.InputContainer, stream: av.video.VideoStream, limits: Limits, damage: list[str]
) -> Iterator[av.VideoFrame]:
    """As decode_skipping_errors, with transparency, and without pictures above limits.pixels."""
    context, decoder = stream.codec_context, None
    if stream.metadata.get("alpha_mode") == "1":  # webm: only libvpx's own decoders read the transparency
        decoder = av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.name, context.name), "r")
        context = decoder
    context.thread_type, context.thread_count = "AUTO", READ_THREADS
    context.options = {"max_pixels": str(limits.pixels)}
    yield from decode_skipping_errors(container, stream, damage, decoder)
