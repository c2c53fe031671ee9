"""The first bytes of a file -> what it is. The name is never asked."""

from __future__ import annotations

import re

# demuxers of ffmpeg that an upload may reach; none of them opens a second file
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mp3", "wav", "ogg", "flac", "aac")
STILLS = ("png", "jpeg", "webp")

_MAGIC: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("a HEIC photo", rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)"),
        ("an AVIF photo", rb"....ftyp(avif|avis)"),
        ("mov", rb"....(ftyp|styp|moov|mdat|wide|free|skip|pnot|uuid)"),
        ("matroska", rb"\x1aE\xdf\xa3"),
        ("avi", rb"RIFF....AVI "),
        ("wav", rb"(RIFF|RF64)....WAVE"),
        ("webp", rb"RIFF....WEBP"),
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("jpeg", rb"\xff\xd8\xff"),
        ("ogg", rb"OggS"),
        ("flac", rb"fLaC"),
        ("mpegts", rb"(....)?G.{187}(.{4})?G.{187}(.{4})?G"),
        ("aac", rb"\xff[\xf0\xf1\xf8\xf9]"),
        ("mp3", rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]"),
        ("a playlist", rb"\s*(#EXTM3U|ffconcat|\[playlist\]|v=0\s)"),
        ("a playlist", rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(MPD|smil|SmoothStreamingMedia|playlist|asx)\b"),
        ("a GIF", rb"GIF8"),
        ("a Windows Media file", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
        ("a Flash video", rb"FLV\x01"),
        ("an MPEG program stream", rb"\x00\x00\x01[\xb3\xba]"),
        ("a PDF", rb"%PDF"),
        ("an archive", rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf"),
        ("a program", rb"\x7fELF|MZ|#!"),
    )
)
HEAD = 4096  # bytes that are enough to tell


def sniff(head: bytes) -> str:
    """One of CONTAINERS or STILLS, or else words for what it is instead ("" when unknown)."""
    if head.startswith(b"ID3"):  # a tag that is written before mp3, and at times before flac and aac
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)) + 10
        kind = sniff(head[size:]) if size < len(head) else "mp3"
        return kind if kind in {"mp3", "flac", "aac"} else "mp3"
    for kind, pattern in _MAGIC:
        if pattern.match(head):
            return kind
    return "a text file" if head and not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head) else ""
