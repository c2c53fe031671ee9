"""Options of one job, with their defaults and limits. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from syncdiff.errors import InputError
from syncdiff.faces import Spot

Profile = Literal["compact", "paper"]
PAPER_STEPS = 200  # DDIM steps of the paper (section 4.3)
TEST_PASS_SECONDS = 30.0  # at the most, drawn to measure the offset before it is corrected
FEW_STEPS = 20  # of the paper profile: fewer are spaced "trailing"; "leading" would start far below full noise


@dataclass(frozen=True)
class SampleOptions:
    """Options of the compact profile, and their only defaults. Raises InputError for a value out of range."""

    steps: int = 1  # denoising steps a frame; four measured no better (docs/mouth.md)
    seed: int = 0
    face: int | Spot | None = None  # index by size over time, or where to find it; None is the largest
    tail: Literal["keep", "trim"] = "keep"  # of the video, where the voice is shorter
    correct_offset: bool = False  # measure the sync offset in a test pass, and draw the lips earlier or later by it
    label: bool = True  # visible label in the corner of every frame: the lips were redrawn by AI

    MAX_STEPS = 50
    MAX_SEED = 2**31 - 1

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Options with these values; None stands for the default."""
        return cls(**{name: value for name, value in values.items() if value is not None})

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.MAX_STEPS:
            raise InputError(f"{self.steps} steps were asked for: choose 1 to {self.MAX_STEPS}.")
        if not 0 <= self.seed <= self.MAX_SEED:
            raise InputError(f"The seed is {self.seed}: choose 0 to {self.MAX_SEED}.")
        if self.tail not in ("keep", "trim"):
            raise InputError(f"The tail option is {self.tail!r:.40}: choose keep or trim.")


@dataclass(frozen=True)
class PaperOptions(SampleOptions):
    """Options of the paper profile."""

    steps: int = PAPER_STEPS

    MAX_STEPS = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps >= FEW_STEPS and (1000 % self.steps or self.steps == 1000):  # others start below full noise
            raise InputError(
                f"{self.steps} steps were asked for: the paper's sampler takes 1 to {FEW_STEPS - 1}, or a divisor of "
                "1000 up to 500."
            )


OPTIONS: dict[Profile, type[SampleOptions]] = {"compact": SampleOptions, "paper": PaperOptions}
# The page's presets: steps a frame. Their names in lower case stand in links; renaming one breaks those.
PRESETS = {"Standard": SampleOptions.steps, "Slow": 4}
