"""What the watermark says, as +1 and -1 chips, and how chips that were read back are understood. Knows no pixels.

A payload is 21 bits: TAG, the same in every video of ours, and a job's number of 16 bits. Each 7 bits are one word of
the first-order Reed-Muller code RM(1,6): 128 words of 64 chips, any two at least 32 chips apart, decoded at maximum
likelihood by one Walsh-Hadamard transform. A fixed key flips about half of the chips, so that nothing in a picture
looks like a word by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

TAG = 0b10110  # "made by syncdiff, with this code": the first 5 bits of every payload
NUMBERS = 2**16  # job numbers
WORDS, BITS = 3, 7  # words of a payload; bits of a word
LENGTH = 2 ** (BITS - 1)  # chips of a word
CHIPS = WORDS * LENGTH
FALSE_ALARMS = 1e-6  # of videos without our mark, how many may be taken for ours
RADEMACHER = 1 / (4 * (1 - NormalDist().cdf(2**0.5)))  # 3.178, the least such constant: Bentkus and Dzindzalieta 2015


@dataclass(frozen=True)
class Decoded:
    """The likeliest payload behind some chips."""

    number: int  # 0 .. NUMBERS - 1
    z: float  # correlation with its chips, in standard deviations of what chance gives one payload
    agreement: float  # 0.5 (chance) .. 1: the share of chips whose sign is right


def encode(number: int) -> np.ndarray:
    """Job number -> [CHIPS] float32 of +1 and -1. Raises ValueError for a number that has more than 16 bits."""
    if not 0 <= number < NUMBERS:
        raise ValueError(f"the job number is {number}: choose 0 to {NUMBERS - 1}")
    whole = TAG * NUMBERS + number
    words = [_word(whole >> BITS * w & 2**BITS - 1) for w in reversed(range(WORDS))]
    return np.concatenate(words).astype(np.float32) * _key()


def decode(soft: np.ndarray) -> Decoded:
    """[CHIPS] real values -> the payload whose chips correlate best with them."""
    likeness = (soft * _key()).reshape(WORDS, LENGTH) @ _walsh()  # [WORDS, LENGTH]
    likeness = np.concatenate([likeness, -likeness], axis=1)  # [WORDS, 2^BITS], by the bits of the word
    first = np.arange(2**BITS) >> 2 == TAG  # the first word holds the tag and two bits of the number
    likeness[0, ~first] = -np.inf
    number = 0
    for best in likeness.argmax(1):
        number = number << BITS | int(best)
    return held_against(soft, number & NUMBERS - 1)


def held_against(soft: np.ndarray, number: int) -> Decoded:
    """[CHIPS] real values against the chips of one number."""
    chips = encode(number)
    z = float(chips @ soft / max(np.linalg.norm(soft), 1e-12))
    return Decoded(number, z, float(np.mean(chips * soft > 0)))


@dataclass(frozen=True)
class Finding:
    """What several alignments of the same chips say together."""

    likeliest: Decoded  # of all payloads
    zero: Decoded  # the best that number 0 does
    tries: int  # alignments

    @classmethod
    def of(cls, alignments: np.ndarray) -> Finding:
        """[N, CHIPS] real values."""
        nothing = Decoded(0, 0.0, 0.5)
        likeliest = max((decode(soft) for soft in alignments), key=lambda d: d.z, default=nothing)
        zero = max((held_against(soft, 0) for soft in alignments), key=lambda d: d.z, default=nothing)
        return cls(likeliest, zero, max(1, len(alignments)))

    def judged(self, false_alarms: float = FALSE_ALARMS) -> tuple[Decoded, float]:
        """What the mark most probably says, and the z from which on it counts as found."""
        any_number = threshold(self.tries, self.likeliest.number, false_alarms)
        usual = threshold(self.tries, 0, false_alarms)
        if self.likeliest.z < any_number and self.zero.z >= usual:
            return self.zero, usual  # a mark, even if another number than the usual one seems likelier by chance
        return self.likeliest, any_number

    @property
    def number(self) -> int | None:
        """The job's, where it is sure: a faint mark may be found by number 0 and be another that is like it."""
        said, needed = self.judged()
        return said.number if said.z >= needed and said.number == self.likeliest.number else None


def threshold(tries: int, number: int, false_alarms: float = FALSE_ALARMS) -> float:
    """The least z from which a payload with `number` counts as found in `tries` alignments.

    A video carries number 0 unless a host counts its jobs, so half of the false alarms are granted to that one payload,
    half to all others together: most videos are found on much less evidence.

    Were the key drawn anew for a given picture, the sign of each chip would be a fair coin, whatever the picture shows;
    a weighted sum of fair coins passes t at most RADEMACHER times as often as a normal variable does. The candidates'
    chances are added up.
    """
    candidates = tries * (1 if number == 0 else NUMBERS - 1)
    return -NormalDist().inv_cdf(false_alarms / 2 / (RADEMACHER * candidates))


def _word(bits: int) -> np.ndarray:
    return (-1 if bits >= LENGTH else 1) * _walsh()[bits % LENGTH]


@cache
def _walsh() -> np.ndarray:
    """[LENGTH, LENGTH] float32, symmetric: Sylvester's Hadamard matrix."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < LENGTH:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@cache
def _key() -> np.ndarray:
    """[CHIPS] float32 of +1 and -1: the same on every machine and in every version of numpy."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"syncdiff watermark 1").digest(CHIPS // 8), np.uint8))
    return 1 - 2 * bits.astype(np.float32)
