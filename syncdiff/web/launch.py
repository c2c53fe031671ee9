"""Settings of the server, the theme, link previews, and the wrapper for ZeroGPU."""

import os
import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.routes
import jinja2
from starlette.middleware import Middleware

from syncdiff.errors import InputError
from syncdiff.media import LIMITS, open_speech
from syncdiff.options import TEST_PASS_SECONDS, SampleOptions
from syncdiff.results import Progress, Result
from syncdiff.web.components import TAGLINE
from syncdiff.web.examples import ASSETS, DOCUMENTS, EXAMPLES
from syncdiff.web.jobs import Runner
from syncdiff.web.middleware import RequestLimits, sweeping

TITLE = "syncdiff: give a face a new voice"
PICTURE = EXAMPLES / "preview.jpg"
# Proxies of a Space, in private networks, whose X-Forwarded-For is trusted. Of the addresses there, uvicorn takes the
# rightmost that is not one of these; what visitors write there themselves stands further left. Elsewhere a host names
# its proxies in FORWARDED_ALLOW_IPS; without that, uvicorn trusts only a proxy on this machine.
TRUSTED_PROXIES = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,::1,fc00::/7"


def theme() -> gr.themes.Base:
    """Colours with enough contrast, and fonts that need no other machine."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def wrap_zero_gpu(job: Runner, gpu: Callable[..., Any]) -> Runner:
    """The job runner; on a ZeroGPU Space it gets a GPU for the time of a run.

    gpu: the decorator `spaces.GPU`. On ZeroGPU the run is in a process of its own, from which yielded values arrive
    whole, but of an exception only its name. So an InputError is yielded there, and raised here."""

    @gpu(duration=gpu_seconds)
    def run(
        face: Path, voice: Path, out: Path, options: SampleOptions
    ) -> Generator[Progress | Result | InputError, None, None]:
        if os.environ.get("SPACES_ZERO_GPU"):
            job.pipe.to("cuda")
        try:
            yield from job(face, voice, out, options)
        except InputError as error:
            yield error

    def run_and_raise(
        face: Path, voice: Path, out: Path, options: SampleOptions
    ) -> Generator[Progress | Result, None, None]:
        with closing(run(face, voice, out, options)) as items:
            for item in items:
                if isinstance(item, InputError):
                    raise item
                yield item

    return run_and_raise


def gpu_seconds(face: Path, voice: Path, out: Path, options: SampleOptions) -> int:  # noqa: ARG001 -- the pipeline's own
    """Seconds for which a run asks a ZeroGPU Space for its GPU. A generous guess: never measured on one.

    All of the video is read and searched for faces, however short the voice. A video without sound counts as long as
    the voice, since its duration is unknown before it is read."""
    voiced = sound_seconds(voice)
    if voiced is None:  # the run will end at once with a sentence
        return 10
    reading = max(voiced, sound_seconds(face) or 0.0)
    tested = min(voiced, TEST_PASS_SECONDS) if options.correct_offset else 0.0
    drawing = voiced * 0.05 * options.steps + tested * 0.3  # the test pass takes one step, is not pasted, and is scored
    return round(15 + reading + drawing)


def sound_seconds(file: Path) -> float | None:
    """Duration of a file's sound, s; None where it has none that can be used."""
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        try:
            return open_speech(file, Path(folder)).seconds
        except InputError:
            return None


def set_link_preview() -> None:
    """Replace gradio's Open Graph tags: title, sentence and picture that other sites show for a link to the page."""
    env: Any
    env, name = gradio.routes.templates.env, "frontend/index.html"
    source = env.loader.get_source(env, name)[0]
    source = re.sub(r'<meta\s+(property="og:|name="twitter:)[^>]*/>', "", source)
    image = f"{{{{ config['root'] }}}}/gradio_api/file={PICTURE}"
    tags = {"og:type": "website", "og:title": TITLE, "og:description": TAGLINE, "og:image": image}
    tags |= {"twitter:card": "summary_large_image"}
    html = "".join(f'<meta property="{key}" content="{value}" />' for key, value in tags.items())
    changed = jinja2.DictLoader({name: source.replace("<head>", f"<head>{html}", 1)})
    env.loader = jinja2.ChoiceLoader([changed, env.loader])
    env.cache.clear()


def launch_options() -> dict[str, Any]:
    """Arguments of `launch`: port GRADIO_SERVER_PORT or 7860, on this machine only; on a Space, on all interfaces."""
    set_link_preview()
    everyone = "0.0.0.0"  # noqa: S104 -- inside a Space's container
    if "SPACE_ID" in os.environ:
        os.environ.setdefault("FORWARDED_ALLOW_IPS", TRUSTED_PROXIES)
    return {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", everyone if "SPACE_ID" in os.environ else "127.0.0.1"),
        "server_port": int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        "theme": theme(),
        "css_paths": ASSETS / "page" / "style.css",
        "allowed_paths": [str(EXAMPLES), *(str(ASSETS.parent / file) for file in DOCUMENTS.values())],
        "max_file_size": LIMITS.bytes,
        "app_kwargs": {"middleware": [Middleware(RequestLimits)], "lifespan": sweeping},
        "max_threads": 64,  # every visitor in the queue holds one
        "state_session_capacity": 500,  # gradio keeps a copy of the page's settings for each session
        "share": False,
        "strict_cors": True,
        "show_error": False,
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "footer_links": [],  # the samples on gradio's API page fail here; foot.html has working ones
        "mcp_server": find_spec("mcp") is not None,  # gradio[mcp] in requirements.txt
    }
