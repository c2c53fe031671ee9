"""What a decode worker is asked to do, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Limits:
    """Which uploads are accepted, and what the process that decodes one may use."""

    bytes: int = 200 * 2**20  # of the upload
    pixels: int = 9_000_000  # of one picture: 4096x2160 fits
    side: int = 8192  # pixels, of one picture's longer side
    photo_pixels: int = 51_000_000  # of a photo, which is scaled down to `pixels`: phones take 12, 48 and 50 million
    photo_side: int = 16_384  # pixels, of a photo's longer side
    seconds: float = 600.0  # of video or sound, counted on what was decoded
    rate: float = 250.0  # frames per second, on average: phones film 240
    shortest_voice: float = 0.3  # seconds
    quietest_voice: float = -55.0  # dB of full scale, in the loudest tenth of a second
    memory: int = 2 * 2**30  # bytes of the process's address space; 4096x2160 HDR takes 1.3 GB
    disk: int = 8 * 2**30  # bytes of any file it writes
    timeout: float = 900.0  # seconds it may take in all
    stall: float = 60.0  # seconds it may take without getting any further


LIMITS = Limits()


@dataclass(frozen=True)
class DecodeRequest:
    """One upload to decode; travels to the worker as JSON."""

    source: str  # path of the upload
    name: str  # what to call it in a sentence
    slot: Literal["face", "voice"]
    folder: str  # where the normalised files go
    limits: Limits = LIMITS
    until: float | None = None  # seconds of a video after which nothing more is read, nor its sound
    clockwise: int = 0  # degrees by which the picture is turned: 0, 90, 180 or 270
