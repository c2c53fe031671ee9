"""What else was in a video file and goes over to the result: tags of file and tracks, chapters, subtitles."""

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
# What a track may be marked as in an mp4, and is when PyAV reads it again.
KEPT_FLAGS = (
    Flag.default | Flag.dub | Flag.comment | Flag.forced | Flag.hearing_impaired | Flag.visual_impaired | Flag.captions
    | Flag.descriptions
)
STOCK_NAME = re.compile("handler|media|^$", re.IGNORECASE)  # of a track, by the program that wrote it
CHAPTERS_NAME = re.compile("text|subtitle", re.IGNORECASE)  # of the track that holds the chapters' titles in an mp4
MARKUP = re.compile(r"\{[^}]*\}|<[^>]*>")  # in subtitles
TEXT_SUBTITLES = ("mov_text", "subrip", "srt", "text", "ass", "ssa", "webvtt")
MAX_LETTERS, MAX_CHAPTERS, MAX_TRACKS, MAX_CUES, MAX_AT_ONCE = 1000, 200, 8, 5000, 8  # beyond them nothing goes over
TICK = Fraction(1, 1000)  # seconds
LANGUAGES = {  # ISO 639-1 -> 639-2: matroska and browsers write two letters
    "ar": "ara", "cs": "ces", "da": "dan", "de": "deu", "el": "ell", "en": "eng", "es": "spa", "fi": "fin",
    "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor",
    "nl": "nld", "no": "nor", "pl": "pol", "pt": "por", "ro": "ron", "ru": "rus", "sv": "swe", "th": "tha",
    "tr": "tur", "uk": "ukr", "vi": "vie", "zh": "zho",
}  # fmt: skip

Span = tuple[float, float, str]  # seconds from and to on the video's clock, and text


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a picture stream is a cover or a thumbnail, not the film."""
    return bool(stream.disposition & (Flag.attached_pic | Flag.timed_thumbnails))


@dataclass(frozen=True)
class TrackTags:
    """What a track says about itself."""

    language: str = ""  # three letters of ISO 639-2
    title: str = ""
    flags: int = 0  # of av.stream.Disposition

    @classmethod
    def of(cls, stream: av.stream.Stream) -> TrackTags:
        """Of a track of any container: an mp4 has its title in `name`, or in that of its handler."""
        said, handler = stream.metadata, stream.metadata.get("handler_name", "")
        title = said.get("title") or said.get("name") or ("" if STOCK_NAME.search(handler) else handler)
        return cls(language_of(stream), _clean(title), int(stream.disposition))

    def write(self, stream: av.stream.Stream) -> None:
        """Into a track of an mp4."""
        titles = {"title": self.title, "handler_name": self.title}  # ffmpeg up to 5 reads the second alone
        stream.metadata.update({k: v for k, v in (titles | {"language": self.language}).items() if v})
        stream.disposition = Flag(self.flags & KEPT_FLAGS)

    def lost(self, what: str) -> list[str]:
        """A sentence where an mp4 cannot hold what the track is marked as."""
        names = [str(flag.name).replace("_", " ") for flag in Flag if flag & self.flags & ~KEPT_FLAGS]
        return [f"{what} is marked as {', '.join(names)}, which an mp4 cannot hold."] * bool(names)


@dataclass(frozen=True)
class Subtitles:
    """One track of text."""

    tags: TrackTags
    cues: tuple[Span, ...]


@dataclass(frozen=True)
class Extras:
    """What goes over to the result besides picture and sound."""

    tags: Mapping[str, str] = field(default_factory=dict)
    picture: TrackTags = field(default_factory=TrackTags)
    chapters: tuple[Span, ...] = ()
    subtitles: tuple[Subtitles, ...] = ()

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Extras:
        """From what `read_extras` wrote."""
        tracks = tuple(Subtitles(TrackTags(**tags), tuple(map(tuple, cues))) for tags, cues in facts["subtitles"])
        return cls(facts["tags"], TrackTags(**facts["picture"]), tuple(map(tuple, facts["chapters"])), tracks)

    def until(self, seconds: float) -> Extras:
        """The same without what begins later."""

        def cut(spans: Sequence[Span]) -> tuple[Span, ...]:
            return tuple((start, min(end, seconds), text) for start, end, text in spans if start < seconds)

        tracks = tuple(replace(track, cues=cut(track.cues)) for track in self.subtitles)
        return replace(self, chapters=cut(self.chapters), subtitles=tracks)


def read_extras(container: av.container.InputContainer, picture: int, start: float) -> tuple[dict[str, Any], list[str]]:
    """The facts for `Extras.of`, and notes on what cannot go over. Reads the packets of the subtitle tracks.

    Args:
        picture: index of the picture stream.
        start: second of the first picture on the file's clock, which is time 0 of the result.
    """
    said = {key.lower(): _clean(value) for key, value in container.metadata.items()}
    tags = {key: said[key] for key in KEPT_TAGS if said.get(key)}
    chapters = []
    for chapter in container.chapters()[:MAX_CHAPTERS]:
        ends = [float(chapter[edge] * chapter["time_base"]) - start for edge in ("start", "end")]  # pyright: ignore[reportOperatorIssue]
        if ends[0] < ends[1] and ends[1] > 0:
            chapters.append((max(0.0, ends[0]), ends[1], _clean(chapter["metadata"].get("title", ""))))
    streams = list(container.streams.subtitles)
    texts = [s for s in streams if s.codec_context is not None and s.codec_context.name in TEXT_SUBTITLES]
    known, texts = len(texts), texts[:MAX_TRACKS]
    cues: dict[int, list[Span]] = {stream.index: [] for stream in texts}
    styled = False
    if texts:
        for packet in container.demux(*texts):
            if packet.pts is None or not packet.size or len(cues[packet.stream_index]) >= MAX_CUES:
                continue
            begin = float(packet.pts * packet.time_base) - start
            end = begin + float((packet.duration or 0) * packet.time_base)
            data, codec = bytes(packet), packet.stream.codec_context.name
            text = cue_text(data, codec)
            styled |= codec in ("ass", "ssa") or MARKUP.search(data.decode("utf-8", "replace")) is not None
            if text and end > max(0.0, begin):
                cues[packet.stream_index].append((max(0.0, begin), end, text))
    subtitles = [(TrackTags.of(stream), cues[stream.index]) for stream in texts if cues[stream.index]]
    facts = {"tags": tags, "picture": asdict(TrackTags.of(container.streams[picture])), "chapters": chapters}
    facts["subtitles"] = [(asdict(tags), spans) for tags, spans in subtitles]
    notes = _left_behind(container, known, len(texts))
    for number, (track, _) in enumerate(subtitles, start=1):
        notes += track.lost(f"Subtitle track {number}")
    if subtitles and not any(track.flags & Flag.default for track, _ in subtitles):
        notes.append("No subtitle track is marked as default; in an mp4 the first one is.")
    if styled:
        notes.append("The subtitles go over as plain words, without styles and places.")
    return facts, notes


def last_cue_end(facts: dict[str, Any]) -> float:
    """Seconds from the first picture to the end of the last subtitle that was read."""
    return max((end for _, cues in facts["subtitles"] for _, end, _ in cues), default=0.0)


def _left_behind(container: av.container.InputContainer, texts: int, taken: int) -> list[str]:
    """Sentences on what does not go over: `taken` of `texts` tracks of text do."""
    notes, pictures = [], len(container.streams.subtitles) - texts
    if pictures:
        notes.append(f"{pictures} subtitle track{'s' * (pictures > 1)} made of pictures cannot go over into an mp4.")
    if texts > taken:
        notes.append(f"The file has {texts} subtitle tracks; the first {taken} go over.")
    if any(is_cover(stream) for stream in container.streams.video):
        notes.append("The cover picture of the file does not go over.")
    streams = [stream for stream in container.streams if stream.type in ("data", "attachment")]
    rest = [stream for stream in streams if not CHAPTERS_NAME.search(stream.metadata.get("handler_name", ""))]
    if rest:
        notes.append(f"{len(rest)} track{'s' * (len(rest) > 1)} of other data (of a camera, fonts) cannot go over.")
    return notes


def language_of(stream: av.stream.Stream) -> str:
    """The track's language, three letters of ISO 639-2; "" where it is not said, or by two letters of a rare one."""
    language = re.split("[-_]", stream.metadata.get("language", "").lower())[0]  # de, deu, de-AT
    language = LANGUAGES.get(language, language)
    return language if re.fullmatch("[a-z]{3}", language) and language != "und" else ""


def cue_text(data: bytes, codec: str) -> str:
    """The plain words of one subtitle packet."""
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", "replace")
    if codec in ("ass", "ssa"):
        text = text.split(",", 8)[-1]
    text = MARKUP.sub("", text).replace("\\N", "\n").replace("\\n", "\n")
    return "\n".join(filter(None, (_clean(line) for line in text.splitlines())))[:MAX_LETTERS]


def _clean(text: str) -> str:
    """One line of printable letters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MAX_LETTERS]


class ExtrasWriter:
    """Writes Extras into an mp4 that is being made; the cues go in as their time comes."""

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
            self._waiting.append((stream, one_after_another(track.cues)))

    def write_until(self, seconds: float) -> None:
        """Write the cues that begin before that second."""
        for stream, cues in self._waiting:
            while cues and cues[0][0] * TICK < seconds:
                start, end, text = cues.pop(0)
                words = text.encode()
                packet = av.Packet(struct.pack(">H", len(words)) + words)
                packet.stream, packet.time_base = stream, TICK
                packet.pts = packet.dts = start
                packet.duration = end - start
                self._file.mux(packet)


def one_after_another(cues: Sequence[Span]) -> list[tuple[int, int, str]]:
    """Cues in ticks that follow on each other from 0 on, as in an mp4 each is shown until the next.

    Those that overlap are shown together while they do, one below the other; between two there is an empty one.
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
