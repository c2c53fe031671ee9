"""What else was in a video file and goes over to the result: title, comment, date, language, chapters, subtitles."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import av.container
import av.stream

KEPT_TAGS = ("title", "artist", "album", "comment", "description", "copyright", "date", "creation_time", "genre")
TEXT_SUBTITLES = ("mov_text", "subrip", "srt", "text", "ass", "ssa", "webvtt")
MAX_LETTERS, MAX_CHAPTERS, MAX_TRACKS, MAX_CUES = 1000, 200, 8, 5000  # beyond them nothing goes over
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
    disposition = av.stream.Disposition
    return bool(stream.disposition & (disposition.attached_pic | disposition.timed_thumbnails))


@dataclass(frozen=True)
class Subtitles:
    """One track of text."""

    language: str
    cues: tuple[Span, ...]


@dataclass(frozen=True)
class Extras:
    """What goes over to the result besides picture and sound."""

    tags: Mapping[str, str] = field(default_factory=dict)
    language: str = ""  # of the picture track
    chapters: tuple[Span, ...] = ()
    subtitles: tuple[Subtitles, ...] = ()

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Extras:
        """From what `read_extras` wrote."""
        tracks = tuple(Subtitles(language, tuple(map(tuple, cues))) for language, cues in facts["subtitles"])
        return cls(facts["tags"], facts["language"], tuple(map(tuple, facts["chapters"])), tracks)

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
    if texts:
        for packet in container.demux(*texts):
            if packet.pts is None or not packet.size or len(cues[packet.stream_index]) >= MAX_CUES:
                continue
            begin = float(packet.pts * packet.time_base) - start
            end = begin + float((packet.duration or 0) * packet.time_base)
            text = cue_text(bytes(packet), packet.stream.codec_context.name)
            if text and end > max(0.0, begin):
                cues[packet.stream_index].append((max(0.0, begin), end, text))
    subtitles = [(language_of(stream), cues[stream.index]) for stream in texts if cues[stream.index]]
    facts = {"tags": tags, "language": language_of(container.streams[picture]), "chapters": chapters}
    return facts | {"subtitles": subtitles}, _left_behind(container, known, len(texts))


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
    text = re.sub(r"\{[^}]*\}|<[^>]*>", "", text).replace("\\N", "\n").replace("\\n", "\n")
    return "\n".join(filter(None, (_clean(line) for line in text.splitlines())))


def _clean(text: str) -> str:
    """One line of printable letters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MAX_LETTERS]


class ExtrasWriter:
    """Writes Extras into an mp4 that is being made; the cues go in as their time comes."""

    def __init__(self, file: av.container.OutputContainer, extras: Extras, picture: av.stream.Stream) -> None:
        self._file = file
        file.metadata.update(extras.tags)
        if extras.language:
            picture.metadata["language"] = extras.language
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
            if track.language:
                stream.metadata["language"] = track.language
            self._waiting.append((stream, _filled(track.cues)))

    def write_until(self, seconds: float) -> None:
        """Write the cues that begin before that second."""
        for stream, cues in self._waiting:
            while cues and cues[0][0] < seconds:
                start, end, text = cues.pop(0)
                words = text.encode()
                packet = av.Packet(struct.pack(">H", len(words)) + words)
                packet.stream, packet.time_base = stream, TICK
                packet.pts = packet.dts = round(start / TICK)
                packet.duration = round(end / TICK) - packet.pts
                self._file.mux(packet)


def _filled(cues: Sequence[Span]) -> list[Span]:
    """Cues one after another, with empty ones between: in an mp4 each is shown until the next."""
    filled: list[Span] = []
    for start, end, text in sorted(cues):
        begin = filled[-1][1] if filled else 0.0
        if start > begin + 0.001:
            filled.append((begin, start, ""))
        if end > max(start, begin) + 0.001:
            filled.append((max(start, begin), end, text))
    return filled
