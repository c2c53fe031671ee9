"""What stands before gradio: which addresses there are, how large and how slow a request may be, what it may name.

Gradio brings more than this page needs, and some of it is not for strangers: `process_recording` hands a raw upload to
ffmpeg, `file=https://...` fetches whatever address it is given, an upload that breaks off stays on the disk, and a body
has no limit of size or time. Whoever is turned away gets one sentence.
"""

import asyncio
import logging
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from traceback import extract_tb
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncdiff.media import LIMITS
from syncdiff.web.jobs import KEPT_SECONDS, OUR_FAULT, cache_folder, sweep
from syncdiff.web.queue import network

# What the page, its API and gradio's clients use of gradio's own routes. The others do not exist here.
ROUTES = re.compile(
    r"/gradio_api/((call|run|upload|upload_progress|queue/(join|data|status)|cancel|reset|heartbeat|info|openapi\.json"
    r"|mcp|theme\.css|startup-events|app_id|user|login_check|token)(/.*)?|file=(?![\w+.-]+:/).*)",
    re.DOTALL,
)
LARGE = ("/gradio_api/upload", "/gradio_api/mcp")  # bodies that hold files; an MCP client may send them as base64
MAX_BODY_BYTES = 8 * 2**20  # bytes of any other body: the largest holds the two small pictures of a trial
MAX_UPLOAD_BYTES = LIMITS.bytes + 2**20  # bytes of an upload: one file, and a little around it
IDLE_SECONDS = 30.0  # seconds without a byte
MIN_BYTES_PER_SECOND = 8 * 2**10  # bytes a second on average, from IDLE_SECONDS on
MAX_OPEN_UPLOADS = 8  # uploads from one address
MAX_HOURLY_BYTES = 20 * LIMITS.bytes  # of one address while files are kept: a class of 30 sends a tenth of it
MIN_FREE_BYTES = 10 * LIMITS.bytes  # bytes that stay free on the disk
SWEEP_SECONDS = 600.0  # seconds between two looks at what is old

NOT_UNDERSTOOD = "This request cannot be understood: see the API page for what may be asked, and how."
NOT_USABLE = "A value in this request cannot be used: upload files here first, and give each value as its own kind."
NO_LINKS = "Links are not followed here: upload the file itself."

log = logging.getLogger(__name__)


class RequestLimits:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._open: Counter[str] = Counter()  # address -> uploads on their way
        self._sent: dict[str, deque[tuple[float, int]]] = {}  # address -> when an upload ended, and its bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._pass(scope, receive, answer)
        except Exception as error:  # whatever a request provokes in a route ends here, in a sentence
            if begun:
                raise
            if not isinstance(error, HTTPException):
                log.warning("%s at %s", type(error).__name__, scope["path"].split("=")[0][:60])
                error = HTTPException(400, NOT_UNDERSTOOD)
            with suppress(ClientDisconnect, OSError):
                await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/gradio_api") and not ROUTES.fullmatch(scope["path"]):
            raise HTTPException(404, "There is nothing at this address.")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        large = scope["path"].startswith(LARGE)
        limit, broken = (MAX_UPLOAD_BYTES, MultiPartException) if large else (MAX_BODY_BYTES, HTTPException)
        body = Body(receive, limit, broken)
        body.check(_announced(scope))
        if not large:
            await self.app(scope, body.read, send)
            return
        address = network(scope["client"][0]) if scope.get("client") else ""
        self._check_room(address, _announced(scope))
        self._open[address] += 1
        try:
            await self.app(scope, body.read, send)
        finally:
            self._open[address] -= 1
            self._open += Counter()  # forgets whoever has none
            self._sent.setdefault(address, deque()).append((time.monotonic(), body.came))

    def _check_room(self, address: str, coming: int) -> None:
        old = time.monotonic() - KEPT_SECONDS
        for one, sent in [*self._sent.items()]:
            while sent and sent[0][0] < old:
                sent.popleft()
            if not sent:
                del self._sent[one]
        if self._open[address] >= MAX_OPEN_UPLOADS:
            sentence = f"{MAX_OPEN_UPLOADS} uploads are on their way from you, the most at a time: wait for one."
            raise HTTPException(429, sentence)
        if sum(size for _, size in self._sent.get(address, ())) + coming > MAX_HOURLY_BYTES:
            limit = f"{MAX_HOURLY_BYTES / 2**30:.1f} GiB"
            raise HTTPException(429, f"You have sent {limit} within an hour, the most: try later.")
        if shutil.disk_usage(cache_folder()).free < MIN_FREE_BYTES:
            raise HTTPException(507, "There is no room for files at the moment: try again in an hour.")


class Body:
    """The body of one request, read with a limit of size and of patience."""

    def __init__(self, receive: Receive, most: int, broken: type[HTTPException | MultiPartException]) -> None:
        self._receive, self._most, self._broken = receive, most, broken
        self._began, self._ended, self.came = time.monotonic(), False, 0

    def check(self, size: int) -> None:
        """Raise HTTPException for a body that is too large."""
        if size > self._most:
            raise HTTPException(
                413,
                f"This is larger than {self._most >> 20} MiB, the most that may be sent at a time: make it smaller.",
            )

    async def read(self) -> Message:
        """As ASGI's receive. What it raises makes gradio's parser remove the file it was writing."""
        if self._ended:  # whoever asks now waits for the client to leave
            return await self._receive()
        due = self._began + self.came / MIN_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(max(0.0, min(IDLE_SECONDS, IDLE_SECONDS + due - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            raise self._trouble(408, "The upload was too slow and was given up: try again.") from None
        if message["type"] == "http.disconnect":
            raise self._trouble(400, "The upload broke off.")
        self.came += len(message.get("body", b""))
        try:
            self.check(self.came)
        except HTTPException as error:
            raise self._trouble(error.status_code, error.detail) from None
        self._ended = not message.get("more_body", False)
        return message

    def _trouble(self, status: int, sentence: str) -> HTTPException | MultiPartException:
        self._ended = True
        return MultiPartException(sentence) if self._broken is MultiPartException else HTTPException(status, sentence)


def _announced(scope: Scope) -> int:
    """Bytes that the header says will come; 0 where it does not say."""
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(said) if said.isdigit() and len(said) < 19 else 0


class Page(gr.Blocks):
    """Blocks that tell in a sentence what they cannot use, and fetch nothing from a network."""

    async def process_api(self, *asked: Any, **named: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*asked, **named)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- a private part of the page called with anything at all, or our fault
            place = extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)  # noqa: TRY400 -- a line each
            raise gr.Error(OUR_FAULT, print_exception=False) from None

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> list[Any]:
        if block_fn.api_visibility == "public":  # what a program leaves out at the end keeps its default
            inputs = [*inputs, *(part.value for part in block_fn.inputs[len(inputs) :])]
        try:
            traverse(inputs, _refuse_link, is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- as many kinds as there are components
            log.info("a value was not usable: %s", type(error).__name__)
            raise gr.Error(NOT_USABLE, print_exception=False) from None


def _refuse_link(file: dict[str, Any]) -> dict[str, Any]:
    if is_http_url_like(file["path"]):
        raise gr.Error(NO_LINKS, print_exception=False)
    return file


@asynccontextmanager
async def sweeping(_app: FastAPI) -> AsyncIterator[None]:
    """While the page is served, what is older than KEPT_SECONDS is removed, whether or not anybody comes."""

    async def go_on() -> None:
        while True:
            await asyncio.to_thread(sweep, cache_folder())
            await asyncio.sleep(SWEEP_SECONDS)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
