"""Detects the type of a file from its bytes; the extension is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# ffmpeg demuxers that are allowed; none of them opens a second file
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mp3", "wav", "ogg", "flac", "aac", "aiff", "caf", "w64", "au",
              "ac3", "eac3", "amr")  # fmt: skip
PICTURES = ("png", "jpeg", "webp", "gif", "avif")  # photos and animations, which Pillow reads

_MAGIC: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("avif", rb"....ftyp(avif|avis|(mif1|msf1)(....){1,16}?avi[fs])"),  # major brand, or a compatible one
        ("a HEIC photo", rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)"),
        ("mov", rb"....(ftyp|styp|moov|mdat|wide|free|skip|pnot|uuid)"),
        ("matroska", rb"\x1aE\xdf\xa3"),
        ("avi", rb"RIFF....AVI "),
        ("wav", rb"(RIFF|RF64)....WAVE"),
        ("webp", rb"RIFF....WEBP"),
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("jpeg", rb"\xff\xd8\xff"),
        ("ogg", rb"OggS"),
        ("flac", rb"fLaC"),
        ("aiff", rb"FORM....AIF[FC]"),
        ("caf", rb"caff\x00\x01"),
        ("w64", rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"),
        ("au", rb"\.snd"),
        ("eac3", rb"\x0b\x77...[\x58-\x87]"),  # bsid 11 to 16; 8 or less is ac3
        ("ac3", rb"\x0b\x77"),
        ("amr", rb"#!AMR"),
        ("mpegts", rb"(....)?G.{187}(.{4})?G.{187}(.{4})?G"),
        ("aac", rb"\xff[\xf0\xf1\xf8\xf9]"),
        ("mp3", rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]"),
        ("a playlist", rb"\s*(#EXTM3U|ffconcat|\[playlist\]|v=0\s)"),
        ("a playlist", rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(MPD|smil|SmoothStreamingMedia|playlist|asx)\b"),
        ("gif", rb"GIF8[79]a"),
        ("a Windows Media file", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
        ("a Flash video", rb"FLV\x01"),
        ("an MPEG program stream", rb"\x00\x00\x01[\xb3\xba]"),
        ("an MXF video", rb"\x06\x0e\x2b\x34\x02\x05\x01\x01"),
        ("a video without a container", rb"\x00\x00(\x00)?\x01[\x09\x67\x27\x40]"),
        ("a TIFF picture, or a camera's raw one", rb"II\*\x00|MM\x00\*"),
        ("a BMP picture", rb"BM.{4}\x00\x00\x00\x00"),
        ("a JPEG XL photo", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
        ("a JPEG 2000 photo", rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"),
        ("a Photoshop picture", rb"8BPS"),
        ("a WavPack sound", rb"wvpk"),
        ("a DTS sound", rb"\x7f\xfe\x80\x01"),
        ("a TTA sound", rb"TTA1"),
        ("a RealMedia file", rb"\.RMF"),
        ("a DV video", rb"\x1f\x07\x00"),
        ("a NUT video", rb"nut/multimedia"),
        ("a PDF", rb"%PDF"),
        ("an archive", rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf"),
        ("a program", rb"\x7fELF|MZ|#!"),
    )
)
HEAD = 4096  # bytes from the start of a file that `sniff` needs


def sniff(head: bytes) -> str:
    """One of CONTAINERS or PICTURES, else a description of what it is instead ("" when unknown)."""
    if head.startswith(b"ID3"):  # a tag before mp3, and sometimes before flac and aac
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)) + 10
        kind = sniff(head[size:]) if size < len(head) else "mp3"
        return kind if kind in {"mp3", "flac", "aac"} else "mp3"
    for kind, pattern in _MAGIC:
        if pattern.match(head):
            return kind
    return "a text file" if head and not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head) else ""


def wav_data_size(path: Path) -> int:
    """Bytes of sound by the header of a wav file; 0 where it states none, as when it was written to a pipe."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    at = head.find(b"data", 12)
    size = int.from_bytes(head[at + 4 : at + 8], "little") if at > 0 else 0
    return size if size < 0x7FFFFFFF else 0


def is_encrypted(path: Path, kind: str) -> bool:
    """Whether the streams of a mov, matroska or mpegts file are marked as encrypted (DRM)."""
    with path.open("rb") as file:
        if kind == "mov":
            size = next((size for name, size in _boxes(file) if name in (b"moov", b"moof")), 0)
            return bool(re.search(rb"sinf....frma", file.read(min(size, 1 << 24)), re.DOTALL))
        head = file.read(1 << 20)
    if kind == "matroska":  # ContentEncodingType 1 (encryption) and ContentEncryption
        return b"\x50\x33\x81\x01" in head and b"\x50\x35" in head
    if kind == "mpegts":  # transport_scrambling_control of most packets
        size, start = (192, 4) if head[4:5] == b"\x47" and head[196:197] == b"\x47" else (188, 0)
        flags = head[start + 3 :: size]
        return bool(flags) and sum(flag >> 6 >= 2 for flag in flags) > len(flags) / 2
    return False


def holds_another(path: Path, kind: str) -> bool:
    """Whether a second file was appended to a wav or mov file: ffmpeg reads only the first."""
    with path.open("rb") as file:
        if kind == "wav":
            file.seek(8 + int.from_bytes(file.read(8)[4:], "little"))
            return file.read(4) == b"RIFF"
        names = [name for name, _ in _boxes(file)] if kind == "mov" else []
        return names.count(b"ftyp") > 1 and b"moof" not in names  # fragments are all read


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and content size of every top-level box of an ISO media file; the file is at the start of its content."""
    for _ in range(10_000):
        header = file.read(8)
        if len(header) < 8:
            return
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, length = int.from_bytes(file.read(8), "big"), 16
        end = file.tell() + size - length
        yield header[4:], size - length if size else 1 << 24
        if size < length:  # 0: up to the end of the file
            return
        file.seek(end)
