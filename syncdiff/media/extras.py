"""Tags of file and tracks, chapters and subtitles: read from the upload, written into the result."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import av.container
import av.stream

KEPT_TAGS = ("title", "artist", "album", "comment", "description", "copyright", "date", "creation_time", "genre")
Flag = av.stream.Disposition
# Dispositions that mp4 can store and PyAV reads back.
KEPT_FLAGS = (
    Flag.default | Flag.dub | Flag.comment | Flag.forced | Flag.hearing_impaired | Flag.visual_impaired | Flag.captions
    | Flag.descriptions
)
STOCK_NAME = re.compile("handler|media|^$", re.IGNORECASE)  # a handler name that is the muxer's, not a title
CHAPTERS_NAME = re.compile("text|subtitle", re.IGNORECASE)  # handler of the mp4 track that holds chapter titles
MARKUP = re.compile(r"\{[^}]*\}|<[^>]*>")  # in subtitles
TEXT_SUBTITLES = ("mov_text", "subrip", "srt", "text", "ass", "ssa", "webvtt")
# Limits, beyond which the rest is left out: letters a text, chapters, subtitle tracks, cues a track, cues at one time.
MAX_LETTERS, MAX_CHAPTERS, MAX_TRACKS, MAX_CUES, MAX_AT_ONCE = 1000, 200, 8, 5000, 8
TICK = Fraction(1, 1000)  # seconds
LANGUAGES = {  # ISO 639-1 -> 639-2: matroska and browsers write two letters
    "ar": "ara", "cs": "ces", "da": "dan", "de": "deu", "el": "ell", "en": "eng", "es": "spa", "fi": "fin",
    "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor",
    "nl": "nld", "no": "nor", "pl": "pol", "pt": "por", "ro": "ron", "ru": "rus", "sv": "swe", "th": "tha",
    "tr": "tur", "uk": "ukr", "vi": "vie", "zh": "zho",
}  # fmt: skip

Span = tuple[float, float, str]  # start and end on the video's clock, s, and text


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a picture stream is a cover or a thumbnail, not the film."""
    return bool(stream.disposition & (Flag.attached_pic | Flag.timed_thumbnails))


@dataclass(frozen=True)
class TrackTags:
    """Language, title and disposition of a track."""

    language: str = ""  # three letters of ISO 639-2
    title: str = ""
    flags: int = 0  # of av.stream.Disposition

    @classmethod
    def of(cls, stream: av.stream.Stream) -> TrackTags:
        """Tags of a track of any container. An mp4 holds the title as `name`, or as the name of the handler."""
        metadata, handler = stream.metadata, stream.metadata.get("handler_name", "")
        title = metadata.get("title") or metadata.get("name") or ("" if STOCK_NAME.search(handler) else handler)
        return cls(language_of(stream), _clean(title), int(stream.disposition))

    def write(self, stream: av.stream.Stream) -> None:
        """Set them on a track of an mp4."""
        titles = {"title": self.title, "handler_name": self.title}  # ffmpeg up to 5 reads the second alone
        stream.metadata.update({k: v for k, v in (titles | {"language": self.language}).items() if v})
        stream.disposition = Flag(self.flags & KEPT_FLAGS)

    def lost(self, what: str) -> list[str]:
        """A sentence on flags that an mp4 cannot hold; none where it holds all."""
        names = [str(flag.name).replace("_", " ") for flag in Flag if flag & self.flags & ~KEPT_FLAGS]
        return [f"{what} is marked as {', '.join(names)}, which an mp4 cannot hold."] * bool(names)


@dataclass(frozen=True)
class Subtitles:
    """One track of text."""

    tags: TrackTags
    cues: tuple[Span, ...]


@dataclass(frozen=True)
class Extras:
    """What is copied to the result besides picture and sound."""

    tags: Mapping[str, str] = field(default_factory=dict)
    picture: TrackTags = field(default_factory=TrackTags)
    chapters: tuple[Span, ...] = ()
    subtitles: tuple[Subtitles, ...] = ()

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Extras:
        """From the facts of `read_extras`."""
        tracks = tuple(Subtitles(TrackTags(**tags), tuple(map(tuple, cues))) for tags, cues in facts["subtitles"])
        return cls(facts["tags"], TrackTags(**facts["picture"]), tuple(map(tuple, facts["chapters"])), tracks)

    def until(self, seconds: float) -> Extras:
        """The same, cut off at that second."""

        def cut(spans: Sequence[Span]) -> tuple[Span, ...]:
            return tuple((start, min(end, seconds), text) for start, end, text in spans if start < seconds)

        tracks = tuple(replace(track, cues=cut(track.cues)) for track in self.subtitles)
        return replace(self, chapters=cut(self.chapters), subtitles=tracks)


def read_extras(container: av.container.InputContainer, picture: int, start: float) -> tuple[dict[str, Any], list[str]]:
    """The facts for `Extras.of`, and notes on what cannot be copied.

    Args:
        container: read to its end where it has subtitles.
        picture: index of the picture stream.
        start: time of the first picture on the file's clock, s; it becomes time 0.
    """
    metadata = {key.lower(): _clean(value) for key, value in container.metadata.items()}
    tags = {key: metadata[key] for key in KEPT_TAGS if metadata.get(key)}
    chapters = []
    for chapter in container.chapters()[:MAX_CHAPTERS]:
        begin, end = (float(chapter[edge] * chapter["time_base"]) - start for edge in ("start", "end"))  # pyright: ignore[reportOperatorIssue]
        if begin < end and end > 0:
            chapters.append((max(0.0, begin), end, _clean(chapter["metadata"].get("title", ""))))
    texts = [s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in TEXT_SUBTITLES]
    notes = _dropped_notes(container, len(texts))
    cues, styled = _read_cues(container, texts[:MAX_TRACKS], start)
    subtitles = [(TrackTags.of(stream), cues[stream.index]) for stream in texts if cues.get(stream.index)]
    facts = {"tags": tags, "picture": asdict(TrackTags.of(container.streams[picture])), "chapters": chapters}
    facts["subtitles"] = [(asdict(tags), spans) for tags, spans in subtitles]
    for number, (track, _) in enumerate(subtitles, start=1):
        notes += track.lost(f"Subtitle track {number}")
    if subtitles and not any(track.flags & Flag.default for track, _ in subtitles):
        notes.append("No subtitle track is marked as default; in an mp4 the first one is.")
    if styled:
        notes.append("The subtitles go over as plain words, without styles and places.")
    return facts, notes


def _read_cues(
    container: av.container.InputContainer, streams: Sequence[Any], start: float
) -> tuple[dict[int, list[Span]], bool]:
    """Cues by stream index, on a clock on which `start` is 0, and whether any had styles."""
    cues: dict[int, list[Span]] = {stream.index: [] for stream in streams}
    styled = False
    for packet in container.demux(*streams) if streams else ():
        if packet.pts is None or not packet.size or len(cues[packet.stream_index]) >= MAX_CUES:
            continue
        begin = float(packet.pts * packet.time_base) - start
        end = begin + float((packet.duration or 0) * packet.time_base)
        data, codec = bytes(packet), packet.stream.codec_context.name
        text = cue_text(data, codec)
        styled |= codec in ("ass", "ssa") or MARKUP.search(data.decode("utf-8", "replace")) is not None
        if text and end > max(0.0, begin):
            cues[packet.stream_index].append((max(0.0, begin), end, text))
    return cues, styled


def last_cue_end(facts: dict[str, Any]) -> float:
    """Seconds from the first picture to the end of the last subtitle."""
    return max((end for _, cues in facts["subtitles"] for _, end, _ in cues), default=0.0)


def _dropped_notes(container: av.container.InputContainer, texts: int) -> list[str]:
    """Sentences on what is not copied. texts: how many subtitle tracks are text."""
    notes, pictures = [], len(container.streams.subtitles) - texts
    if pictures:
        notes.append(f"{pictures} subtitle track{'s' * (pictures > 1)} made of pictures cannot go over into an mp4.")
    if texts > MAX_TRACKS:
        notes.append(f"The file has {texts} subtitle tracks; the first {MAX_TRACKS} go over.")
    if any(is_cover(stream) for stream in container.streams.video):
        notes.append("The cover picture of the file does not go over.")
    streams = [stream for stream in container.streams if stream.type in ("data", "attachment")]
    rest = [stream for stream in streams if not CHAPTERS_NAME.search(stream.metadata.get("handler_name", ""))]
    if rest:
        notes.append(f"{len(rest)} track{'s' * (len(rest) > 1)} of other data (of a camera, fonts) cannot go over.")
    return notes


def language_of(stream: av.stream.Stream) -> str:
    """The track's language, three letters of ISO 639-2; "" where it is not stated or not in LANGUAGES."""
    language = re.split("[-_]", stream.metadata.get("language", "").lower())[0]  # de, deu, de-AT
    language = LANGUAGES.get(language, language)
    return language if re.fullmatch("[a-z]{3}", language) and language != "und" else ""


def cue_text(data: bytes, codec: str) -> str:
    """The text of one subtitle packet, without markup."""
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", "replace")
    if codec in ("ass", "ssa"):
        text = text.split(",", 8)[-1]
    text = MARKUP.sub("", text).replace("\\N", "\n").replace("\\n", "\n")
    return "\n".join(filter(None, (_clean(line) for line in text.splitlines())))[:MAX_LETTERS]


def _clean(text: str) -> str:
    """The text as one line of printable letters, at most MAX_LETTERS."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MAX_LETTERS]


class ExtrasWriter:
    """Writes Extras into an mp4; the cues are interleaved with the picture by `write_until`."""

    def __init__(self, file: av.container.OutputContainer, extras: Extras, picture: av.stream.Stream) -> None:
        self._file = file
        file.metadata.update(extras.tags)
        extras.picture.write(picture)
        if extras.chapters:
            file.set_chapters([
                {"id": i, "start": round(start / TICK), "end": round(end / TICK), "time_base": TICK,
                 "metadata": {"title": title}}
                for i, (start, end, title) in enumerate(extras.chapters)
            ])  # fmt: skip
        self._waiting = []
        for track in extras.subtitles:
            stream = file.add_mux_stream("mov_text")
            stream.time_base = TICK
            track.tags.write(stream)
            self._waiting.append((stream, without_overlaps(track.cues)))

    def write_until(self, seconds: float) -> None:
        """Write the cues that begin before that second."""
        for stream, cues in self._waiting:
            while cues and cues[0][0] * TICK < seconds:
                start, end, text = cues.pop(0)
                data = text.encode()
                packet = av.Packet(struct.pack(">H", len(data)) + data)
                packet.stream, packet.time_base = stream, TICK
                packet.pts = packet.dts = start
                packet.duration = end - start
                self._file.mux(packet)


def without_overlaps(cues: Sequence[Span]) -> list[tuple[int, int, str]]:
    """Cues in ticks, without gaps or overlaps from 0 on: in an mp4 each cue is shown until the next one.

    While cues overlap, one cue holds the lines of all of them. A pause is a cue without text.
    """
    waiting = sorted(((round(start / TICK), round(end / TICK), text) for start, end, text in cues), reverse=True)
    shown: list[tuple[int, int, str]] = []
    active: list[tuple[int, int, str]] = []
    for begin, end in pairwise(sorted({0, *(edge for cue in waiting for edge in cue[:2])})):
        while waiting and waiting[-1][0] <= begin:
            active.append(waiting.pop())
        active = [cue for cue in active if cue[1] > begin][:MAX_AT_ONCE]
        text = "\n".join(dict.fromkeys(text for _, _, text in active))
        first = shown.pop()[0] if shown and shown[-1][2] == text else begin
        shown.append((first, end, text))
    return shown
