"""How the page's events run: in the browser, queued, or at once.

An answer may arrive after its question was changed. So every answer carries the key of what was asked (a file's path, a
ticket's number), and the browser drops those that answer something else: see `assets/page/answers.js`."""

from typing import Any

from syncdiff.web.components import PAGE

ANSWERS = (PAGE / "answers.js").read_text()
WAIT_FOR_FILES = (PAGE / "arrived.js").read_text()
# Gradio's own queue has no limits here: `web.queue` decides whose turn it is.
RUNS = {"concurrency_id": "runs", "concurrency_limit": None}
PREVIEWS = {"concurrency_id": "looks", "concurrency_limit": None}
EVERY = {"trigger_mode": "multiple"}  # gradio's default "once" drops events until the last answer has arrived
NEWEST = {"trigger_mode": "always_last"}
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
UNQUEUED: dict[str, Any] = {"queue": False, **PRIVATE}
BROWSER: dict[str, Any] = {"api_visibility": "private"}  # for events without a Python function


def answer(name: str) -> str:
    """JavaScript that calls a function of `answers.js`."""
    return f"(...values) => {{ {ANSWERS} return {name}(...values); }}"
