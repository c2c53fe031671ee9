"""Limits of requests before gradio sees them: allowed routes, size and speed of bodies, no URLs in place of files.

Gradio offers more than this page needs, and some of it is dangerous in public: `process_recording` passes a raw upload
to ffmpeg, `file=https://...` fetches any URL, an interrupted upload stays on the disk, and a body has no limit of size
or time. A refused request gets one sentence.
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

# The gradio routes that the page, its API and gradio's clients use. All others give 404.
ROUTES = re.compile(
    r"/gradio_api/((call|run|upload|upload_progress|queue/(join|data|status)|cancel|reset|heartbeat|info|openapi\.json"
    r"|mcp|theme\.css|startup-events|app_id|user|login_check|token)(/.*)?|file=(?![\w+.-]+:/).*)",
    re.DOTALL,
)
FILE_ROUTES = ("/gradio_api/upload", "/gradio_api/mcp")  # their bodies hold files; MCP clients send them as base64
MAX_BODY_BYTES = 8 * 2**20  # any other body: the largest holds the two small pictures of a trial
MAX_UPLOAD_BYTES = LIMITS.bytes + 2**20  # an upload: one file and its multipart header
IDLE_SECONDS = 30.0  # seconds without a byte, after which an upload ends
MIN_BYTES_PER_SECOND = 8 * 2**10  # on average, after the first IDLE_SECONDS
MAX_OPEN_UPLOADS = 8  # at a time, from one address
MAX_HOURLY_BYTES = 20 * LIMITS.bytes  # from one address within KEPT_SECONDS; a class of 30 sends a tenth of it
MIN_FREE_BYTES = 10 * LIMITS.bytes  # free disk space, below which no upload is accepted
SWEEP_SECONDS = 600.0  # between two removals of old files

NOT_UNDERSTOOD = "This request cannot be understood: see the API page for what may be asked, and how."
NOT_USABLE = "A value in this request cannot be used: upload files here first, and give each value as its own kind."
NO_LINKS = "Links are not followed here: upload the file itself."

log = logging.getLogger(__name__)


class RequestLimits:
    """ASGI middleware that enforces the limits of this module."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._open: Counter[str] = Counter()  # address -> uploads in progress
        self._sent: dict[str, deque[tuple[float, int]]] = {}  # address -> when each upload ended, and its bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        responding = False

        async def send_response(message: Message) -> None:
            nonlocal responding
            responding = True
            await send(message)

        try:
            await self._forward(scope, receive, send_response)
        except Exception as error:  # any error of a route becomes a sentence
            if responding:
                raise
            if not isinstance(error, HTTPException):
                log.warning("%s at %s", type(error).__name__, scope["path"].split("=")[0][:60])
                error = HTTPException(400, NOT_UNDERSTOOD)
            with suppress(ClientDisconnect, OSError):
                await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/gradio_api") and not ROUTES.fullmatch(scope["path"]):
            raise HTTPException(404, "There is nothing at this address.")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        has_file = scope["path"].startswith(FILE_ROUTES)
        limit, error_type = (MAX_UPLOAD_BYTES, MultiPartException) if has_file else (MAX_BODY_BYTES, HTTPException)
        body = Body(receive, limit, error_type)
        body.check_size(_content_length(scope))
        if not has_file:
            await self.app(scope, body.read, send)
            return
        address = network(scope["client"][0]) if scope.get("client") else ""
        self._check_room(address, _content_length(scope))
        self._open[address] += 1
        try:
            await self.app(scope, body.read, send)
        finally:
            self._open[address] -= 1
            self._open += Counter()  # drops addresses that have none
            self._sent.setdefault(address, deque()).append((time.monotonic(), body.received))

    def _check_room(self, address: str, size: int) -> None:
        """Raise HTTPException where an upload of so many bytes is one too many."""
        old = time.monotonic() - KEPT_SECONDS
        for sender, sent in [*self._sent.items()]:
            while sent and sent[0][0] < old:
                sent.popleft()
            if not sent:
                del self._sent[sender]
        if self._open[address] >= MAX_OPEN_UPLOADS:
            sentence = f"{MAX_OPEN_UPLOADS} uploads are on their way from you, the most at a time: wait for one."
            raise HTTPException(429, sentence)
        if sum(sent for _, sent in self._sent.get(address, ())) + size > MAX_HOURLY_BYTES:
            limit = f"{MAX_HOURLY_BYTES / 2**30:.1f} GiB"
            raise HTTPException(429, f"You have sent {limit} within an hour, the most: try later.")
        if shutil.disk_usage(cache_folder()).free < MIN_FREE_BYTES:
            raise HTTPException(507, "There is no room for files at the moment: try again in an hour.")


class Body:
    """The body of one request, read with limits of size and time.

    limit: bytes. error_type: what is raised while it is read."""

    def __init__(self, receive: Receive, limit: int, error_type: type[HTTPException | MultiPartException]) -> None:
        self._receive, self._limit, self._error_type = receive, limit, error_type
        self._began, self._ended, self.received = time.monotonic(), False, 0  # received: bytes

    def check_size(self, size: int) -> None:
        """Raise HTTPException for a body that is too large."""
        if size > self._limit:
            most = f"{self._limit >> 20} MiB, the most that may be sent at a time"
            raise HTTPException(413, f"This is larger than {most}: make it smaller.")

    async def read(self) -> Message:
        """As ASGI's receive. The errors that it raises make gradio's parser remove the unfinished file."""
        if self._ended:  # the caller waits for the client to disconnect
            return await self._receive()
        due = self._began + self.received / MIN_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(max(0.0, min(IDLE_SECONDS, IDLE_SECONDS + due - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            raise self._error(408, "The upload was too slow and was given up: try again.") from None
        if message["type"] == "http.disconnect":
            raise self._error(400, "The upload broke off.")
        self.received += len(message.get("body", b""))
        try:
            self.check_size(self.received)
        except HTTPException as error:
            raise self._error(error.status_code, error.detail) from None
        self._ended = not message.get("more_body", False)
        return message

    def _error(self, status: int, sentence: str) -> HTTPException | MultiPartException:
        self._ended = True
        if self._error_type is MultiPartException:
            return MultiPartException(sentence)
        return HTTPException(status, sentence)


def _content_length(scope: Scope) -> int:
    """Bytes of the body by its header; 0 where it states none."""
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(value) if value.isdigit() and len(value) < 19 else 0


class Page(gr.Blocks):
    """Blocks that answer every error with a sentence, and fetch nothing from a network."""

    async def process_api(self, *args: Any, **options: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*args, **options)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- a private event called with wrong values, or a fault of this program
            place = extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)  # noqa: TRY400 -- one line
            raise gr.Error(OUR_FAULT, print_exception=False) from None

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> list[Any]:
        if block_fn.api_visibility == "public":  # arguments that a program leaves out at the end get their defaults
            inputs = [*inputs, *(part.value for part in block_fn.inputs[len(inputs) :])]
        try:
            traverse(inputs, _refuse_link, is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *args, **options)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- every component raises its own kinds
            log.info("a value was not usable: %s", type(error).__name__)
            raise gr.Error(NOT_USABLE, print_exception=False) from None


def _refuse_link(file: dict[str, Any]) -> dict[str, Any]:
    if is_http_url_like(file["path"]):
        raise gr.Error(NO_LINKS, print_exception=False)
    return file


@asynccontextmanager
async def sweeping(_app: FastAPI) -> AsyncIterator[None]:
    """ASGI lifespan: while the page is served, removes files older than KEPT_SECONDS, also without any request."""

    async def sweep_repeatedly() -> None:
        while True:
            await asyncio.to_thread(sweep, cache_folder())
            await asyncio.sleep(SWEEP_SECONDS)

    task = asyncio.create_task(sweep_repeatedly())
    try:
        yield
    finally:
        task.cancel()
