"""Settings <-> a short address that restores them after any restart. Knows names and numbers, never a file of yours."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from syncdiff.media import InputError
from syncdiff.page.examples import examples
from syncdiff.pipeline import SampleOptions

PRESETS = {"Draft": 1, "Standard": SampleOptions().steps, "Best": 8}  # steps a frame
NAMES = ("example", "face", "voice", "preset", "steps", "seed")
LONGEST = 40  # letters of a value that are shown back


@dataclass(frozen=True)
class Settings:
    """What a link can hold."""

    face: str | None = None  # keys of examples; None where it was the visitor's own
    voice: str | None = None
    steps: int = SampleOptions().steps
    seed: int = SampleOptions().seed


def preset_of(steps: int | None) -> str | None:
    """The preset that takes so many steps."""
    return next((name for name, value in PRESETS.items() if value == steps), None)


def query(settings: Settings) -> str:
    """'example=malik&preset=best&seed=7': only what is not the default, the same settings always alike."""
    pairs: dict[str, object] = {}
    if settings.face and settings.face == settings.voice:
        pairs["example"] = settings.face
    else:
        pairs |= {name: key for name in ("face", "voice") if (key := getattr(settings, name))}
    preset = preset_of(settings.steps)
    pairs |= {"preset": preset.lower()} if preset else {"steps": settings.steps}
    pairs["seed"] = settings.seed
    return urlencode(pairs)


def restored(asked: Mapping[str, str]) -> Settings | None:
    """The settings that an address asks for, None where it asks for none; what it does not name keeps its default.

    Raises InputError with one sentence for a value that cannot be.
    """
    asked = {name: asked[name] for name in NAMES if name in asked}  # others are somebody else's, such as __theme
    if not asked:
        return None
    found = {name: _example(asked[name]) for name in ("face", "voice") if name in asked}
    if "example" in asked:
        found = dict.fromkeys(("face", "voice"), _example(asked["example"])) | found
    if "preset" in asked:
        presets = {name.lower(): steps for name, steps in PRESETS.items()}
        if asked["preset"].lower() not in presets:
            raise InputError(f"The link asks for the preset {_shown(asked['preset'])}: there is {_either(presets)}.")
        found["steps"] = presets[asked["preset"].lower()]
    for name in ("steps", "seed"):
        if name in asked:
            found[name] = _number(name, asked[name])
    options = SampleOptions(**{name: found[name] for name in ("steps", "seed") if name in found})  # checks the ranges
    return Settings(found.get("face"), found.get("voice"), options.steps, options.seed)


def _example(key: str) -> str:
    if key not in examples():
        raise InputError(f"The link asks for the example {_shown(key)}: there is {_either(examples())}.")
    return key


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise InputError(f"The link asks for {name} {_shown(value)}: give a whole number.")
    return int(value)


def _shown(value: str) -> str:
    letters = "".join(letter if letter.isprintable() else "?" for letter in value)
    return f"'{letters if len(letters) <= LONGEST else letters[:LONGEST] + '...'}'"


def _either(names: Mapping[str, object]) -> str:
    return " or ".join(filter(None, (", ".join([*names][:-1]), [*names][-1]))) if names else "none here"
