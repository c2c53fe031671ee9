"""Settings <-> query string of a link, which works after any restart and never holds a visitor's file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from syncdiff.errors import InputError
from syncdiff.options import PRESETS, SampleOptions
from syncdiff.web.examples import examples

FILES = ("face", "voice")
SWITCHES = {"correct": "correct_offset", "label": "label"}  # parameter -> field of SampleOptions
MAX_SHOWN_LETTERS = 40  # of a wrong value, in an error sentence


@dataclass(frozen=True)
class Settings:
    """What a link can hold."""

    face: str | None = None  # key of an example; None for the visitor's own
    voice: str | None = None  # likewise
    options: SampleOptions = field(default_factory=SampleOptions)  # without the chosen face, a place in a file


def preset_of(steps: int | None) -> str | None:
    """The preset with so many steps."""
    return next((name for name, value in PRESETS.items() if value == steps), None)


def query(settings: Settings) -> str:
    """'example=speaker-1&preset=slow&seed=7': equal settings give equal text.

    Options at their default are left out, except preset and seed.
    """
    options, default = settings.options, SampleOptions()
    pairs: dict[str, object] = {}
    if settings.face and settings.face == settings.voice:
        pairs["example"] = settings.face
    else:
        pairs |= {name: key for name in FILES if (key := getattr(settings, name))}
    preset = preset_of(options.steps)
    pairs |= {"preset": preset.lower()} if preset else {"steps": options.steps}
    pairs["seed"] = options.seed
    if options.tail != default.tail:
        pairs["tail"] = options.tail
    for name, option in SWITCHES.items():
        if (on := getattr(options, option)) != getattr(default, option):
            pairs[name] = "yes" if on else "no"
    return urlencode(pairs)


def parse_query(parameters: Mapping[str, str]) -> Settings | None:
    """The settings of a link, with defaults for those it does not name; None where it names none.

    Raises InputError for a value that is not allowed.
    """
    names = ("example", *FILES, "preset", "steps", "seed", "tail", *SWITCHES)
    given = {name: parameters[name] for name in names if name in parameters}  # others are gradio's, such as __theme
    if not given:
        return None
    files = {name: _one_of(examples(), "example", given[name]) for name in FILES if name in given}
    if "example" in given:
        files = dict.fromkeys(FILES, _one_of(examples(), "example", given["example"])) | files
    options: dict[str, Any] = {name: _number(name, given[name]) for name in ("steps", "seed") if name in given}
    if "preset" in given:
        presets = {name.lower(): steps for name, steps in PRESETS.items()}
        options = {"steps": presets[_one_of(presets, "preset", given["preset"].lower())]} | options
    if "tail" in given:
        options["tail"] = _one_of(("keep", "trim"), "tail", given["tail"])
    for name, option in SWITCHES.items():
        if name in given:
            options[option] = _one_of(("yes", "no"), name, given[name]) == "yes"
    return Settings(**files, options=SampleOptions(**options))  # checks the ranges


def _one_of(names: Collection[str], what: str, value: str) -> str:
    """The value, if it is one of the names. Raises InputError."""
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
