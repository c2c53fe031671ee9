"""Settings <-> a short address that restores them after any restart. It never holds a visitor's file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from syncdiff.errors import InputError
from syncdiff.options import PRESETS, SampleOptions
from syncdiff.web.examples import examples

FILES = ("face", "voice")
SWITCHES = {"correct": "correct_offset", "label": "label"}  # in the address -> in SampleOptions
MAX_SHOWN_LETTERS = 40  # letters of a value that are shown back


@dataclass(frozen=True)
class Settings:
    """What a link can hold."""

    face: str | None = None  # keys of examples; None where it was the visitor's own
    voice: str | None = None
    options: SampleOptions = field(
        default_factory=SampleOptions
    )  # the chosen face is not told: it is a place in a file


def preset_of(steps: int | None) -> str | None:
    """The preset that takes so many steps."""
    return next((name for name, value in PRESETS.items() if value == steps), None)


def query(settings: Settings) -> str:
    """'example=speaker-1&preset=slow&seed=7': equal settings give equal text.

    Options at their default are left out, except preset and seed.
    """
    options, usual = settings.options, SampleOptions()
    pairs: dict[str, object] = {}
    if settings.face and settings.face == settings.voice:
        pairs["example"] = settings.face
    else:
        pairs |= {name: key for name in FILES if (key := getattr(settings, name))}
    preset = preset_of(options.steps)
    pairs |= {"preset": preset.lower()} if preset else {"steps": options.steps}
    pairs["seed"] = options.seed
    if options.tail != usual.tail:
        pairs["tail"] = options.tail
    for name, option in SWITCHES.items():
        if (on := getattr(options, option)) != getattr(usual, option):
            pairs[name] = "yes" if on else "no"
    return urlencode(pairs)


def restored(asked: Mapping[str, str]) -> Settings | None:
    """The settings that an address asks for, None where it asks for none; what it does not name keeps its default.

    Raises InputError with one sentence for a value that cannot be.
    """
    names = ("example", *FILES, "preset", "steps", "seed", "tail", *SWITCHES)
    asked = {name: asked[name] for name in names if name in asked}  # others are somebody else's, such as __theme
    if not asked:
        return None
    files = {name: _one_of(examples(), "example", asked[name]) for name in FILES if name in asked}
    if "example" in asked:
        files = dict.fromkeys(FILES, _one_of(examples(), "example", asked["example"])) | files
    options: dict[str, Any] = {name: _number(name, asked[name]) for name in ("steps", "seed") if name in asked}
    if "preset" in asked:
        presets = {name.lower(): steps for name, steps in PRESETS.items()}
        options = {"steps": presets[_one_of(presets, "preset", asked["preset"].lower())]} | options
    if "tail" in asked:
        options["tail"] = _one_of(("keep", "trim"), "tail", asked["tail"])
    for name, option in SWITCHES.items():
        if name in asked:
            options[option] = _one_of(("yes", "no"), name, asked[name]) == "yes"
    return Settings(**files, options=SampleOptions(**options))  # which checks the ranges


def _one_of(names: Collection[str], what: str, value: str) -> str:
    if value not in names:
        raise InputError(f"The link asks for the {what} {_shown(value)}: there is {_either(names)}.")
    return value


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise InputError(f"The link asks for {name} {_shown(value)}: give a whole number.")
    return int(value)


def _shown(value: str) -> str:
    letters = "".join(letter if letter.isprintable() else "?" for letter in value)
    return f"'{letters if len(letters) <= MAX_SHOWN_LETTERS else letters[:MAX_SHOWN_LETTERS] + '...'}'"


def _either(names: Collection[str]) -> str:
    *most, last = names or ("none here",)
    return f"{', '.join(most)} or {last}" if most else last
