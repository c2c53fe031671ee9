"""How the page's events run: which in the browser, which at once, which in whose line.

An answer may arrive after its question was changed. So every answer carries the key of what was asked (a file's path, a
ticket's number), and the browser drops those that answer something else: see `assets/page/answers.js`."""

from typing import Any

from syncdiff.web.components import PAGE

ANSWERS = (PAGE / "answers.js").read_text()
ARRIVED = (PAGE / "arrived.js").read_text()
RUNS = {"concurrency_id": "runs", "concurrency_limit": None}  # the lines are ours (see queue), not gradio's
PREVIEWS = {"concurrency_id": "looks", "concurrency_limit": None}
AGAIN = {"trigger_mode": "multiple"}  # gradio's "once" drops what is pressed before the last answer is all there
NEWEST = {"trigger_mode": "always_last"}
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
NOW: dict[str, Any] = {"queue": False, **HIDDEN}
BROWSER: dict[str, Any] = {"api_visibility": "private"}  # no server is asked


def answer(name: str) -> str:
    """A function of `answers.js`, as a browser step."""
    return f"(...values) => {{ {ANSWERS} return {name}(...values); }}"
