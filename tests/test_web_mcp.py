"""The page as an MCP server, asked by MCP's own client."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from syncdiff.options import SampleOptions
from tests.browsing import files, serve  # noqa: F401 -- fixtures
from tests.fakes import FakePipeline

mcp = pytest.importorskip("mcp", reason="no gradio[mcp]: the MCP server was NOT tested")


def as_text(path: Path) -> str:
    """What a client without an upload tool may send."""
    return f"data:application/octet-stream;base64,{base64.b64encode(path.read_bytes()).decode()}"


async def asked(url: str, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list, list]:
    """The server's tools, and its answers."""
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _),
        mcp.ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = (await session.list_tools()).tools
        return tools, [await session.call_tool(name, given) for name, given in calls]


def test_the_tools_say_what_they_do_and_do_it(serve, files) -> None:
    import anyio

    pipe = FakePipeline()
    given = {"face": as_text(files.face), "voice": as_text(files.voice), "steps": 2, "seed": 7}
    calls = [(name, given | {"consent": consent}) for name, consent in (("sync", True), ("sync", False))]
    tools, (made, refused) = anyio.run(asked, serve(pipe), calls)

    told = {tool.name: tool for tool in tools}
    assert sorted(told) == ["sync", "verify"]
    assert told["sync"].description.startswith("Lip synchronisation: redraw the mouth")
    fields = told["sync"].inputSchema["properties"]
    turned = {"steps", "seed", "tail", "correct", "label", "which"}
    assert set(fields) == {"face", "voice", "consent", *turned}
    assert "promises to say that AI was used" in fields["label"]["description"]
    assert all(field["description"].endswith(".") for field in fields.values())  # none is cut off
    assert "required" in fields["consent"]["description"]
    assert told["verify"].description.startswith("Tell whether a video's lips were redrawn by AI")

    assert not made.isError
    assert pipe.calls[0][3] == SampleOptions(steps=2, seed=7)
    answer = " ".join(part.text for part in made.content if part.type == "text")
    assert "syncdiff.mp4" in answer
    assert json.dumps("syncdiff-judge") in answer.replace("'", '"')
    assert refused.isError
    assert "Has everyone seen or heard agreed?" in refused.content[0].text
    assert len(pipe.calls) == 1
