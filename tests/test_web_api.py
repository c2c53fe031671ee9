"""What programs may ask of the page, how it is served, and that app.py opens it: without a browser."""

import gc
import inspect
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file

from syncdiff import web
from syncdiff.errors import InputError
from syncdiff.media import LIMITS
from syncdiff.options import SampleOptions
from syncdiff.web import components
from tests.browsing import files, serve, wait_for  # noqa: F401 -- fixtures
from tests.fakes import FakePipeline, FakePreview

ROOT = Path(__file__).resolve().parent.parent


def test_a_program_can_cancel_in_the_first_step_too(serve, files) -> None:
    pipe = FakePipeline(steps=200, pause=0.5)
    client = Client(serve(pipe), verbose=False)
    gc.disable()  # it would close, some time, what nobody else does
    try:
        job = client.submit(handle_file(files.face), handle_file(files.voice), 2, 7, True, api_name="/sync")
        assert wait_for(lambda: len(pipe.folders) == 1)
        job.cancel()
        assert wait_for(lambda: not pipe.folders[0].exists())
    finally:
        gc.enable()


def test_whatever_yields_to_gradio_does_so_before_it_holds_anything(private_temp) -> None:
    """Else gradio cannot close it when it is cancelled in its first step (see `api.add_endpoints`)."""
    pipe = FakePipeline()
    handlers = [handler.fn for handler in web.build_page(pipe, FakePreview()).fns.values()]
    steps = [handler for handler in handlers if inspect.isgeneratorfunction(handler)]
    assert len(steps) >= 3
    for handler in steps:
        next(handler(*[None] * len(inspect.signature(handler).parameters)))
    assert pipe.calls == []
    assert not list(private_temp.rglob("result-*"))


def test_the_endpoint_answers_a_program(serve, files, tmp_path) -> None:
    pipe = FakePipeline()
    client = Client(serve(pipe), verbose=False, download_files=tmp_path / "downloads")
    video, report = client.predict(handle_file(files.face), handle_file(files.voice), 2, 7, True, api_name="/sync")
    assert Path(video).read_bytes() == pipe.calls[0][2].read_bytes()
    assert report["frames"] == 50
    assert "gradio" not in json.dumps(report)  # the server's folders are nobody's business
    assert pipe.calls[0][3] == SampleOptions(steps=2, seed=7)
    both = {"face": handle_file(files.face), "voice": handle_file(files.voice), "consent": True, "api_name": "/sync"}
    client.predict(**both)
    assert pipe.calls[1][3] == SampleOptions()
    client.predict(**both, steps=None, seed=None, tail=None, correct=None, label=None)
    assert pipe.calls[2][3] == SampleOptions()
    client.predict(**both, tail="trim", correct=True, label=False, which=1)
    assert pipe.calls[3][3] == SampleOptions(tail="trim", correct_offset=True, label=False, face=1)
    for wrong, sentence in (
        ({"tail": "half"}, "The tail option is 'half': choose keep or trim"),
        ({"label": "false"}, "The value of label is neither true nor false"),
    ):
        with pytest.raises(Exception, match=sentence):
            client.predict(**both, **wrong)
    assert len(pipe.calls) == 4

    pipe.error = InputError("The voice lasts 0.1 s; it needs 0.3 s.")
    with pytest.raises(Exception, match=r"The voice lasts 0\.1 s; it needs 0\.3 s\."):
        client.predict(handle_file(files.face), handle_file(files.voice), 2, 7, True, api_name="/sync")


def test_a_program_must_say_that_everybody_agreed_and_can_have_a_video_checked(serve, files) -> None:
    pipe = FakePipeline()
    client = Client(serve(pipe), verbose=False)
    with pytest.raises(Exception, match="Has everyone seen or heard agreed"):
        client.predict(handle_file(files.face), handle_file(files.voice), 2, 7, api_name="/sync")
    assert pipe.calls == []
    found = client.predict(handle_file(files.face), api_name="/verify")
    assert found["ours"] is False
    assert len(found["sentences"]) == 3
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert sorted(named) == ["/sync", "/verify"]
    assert "Lip synchronisation" in json.dumps(named["/sync"])


def test_no_foreign_file_gets_in_or_out(serve, tmp_path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    pipe = FakePipeline()
    url = serve(pipe)
    assert httpx.get(f"{url}gradio_api/file={secret}").status_code == 403
    named = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{url}gradio_api/call/sync", json={"data": [named, named, 4, 0, True]}).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/sync/{event}").text
    assert "event: error" in answer
    assert pipe.calls == []


def test_a_request_without_a_client_may_leave_out_what_keeps_its_default(serve, files) -> None:
    pipe = FakePipeline()
    with httpx.Client(base_url=serve(pipe), timeout=60) as http:
        uploads = [("files", (path.name, path.read_bytes())) for path in (files.face, files.voice)]
        paths = http.post("/gradio_api/upload", files=uploads).json()
        face, voice = ({"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths)
        for route, body in (
            ("sync", {"data": [face, voice, 4, 9, True]}),
            ("v2/sync", {"face": face, "voice": voice, "seed": 9, "consent": True, "tail": "trim"}),
        ):
            event = http.post(f"/gradio_api/call/{route}", json=body).json()["event_id"]
            assert "event: complete" in http.get(f"/gradio_api/call/sync/{event}").text
    assert [call[3] for call in pipe.calls] == [SampleOptions(steps=4, seed=9), SampleOptions(seed=9, tail="trim")]


def test_recordings_from_a_webcam_only_where_gradio_can_treat_them(monkeypatch) -> None:
    for tools, sources in ((("ffmpeg", "ffprobe"), ["upload", "webcam"]), (("ffmpeg",), ["upload"]), ((), ["upload"])):
        monkeypatch.setattr(components.shutil, "which", lambda name, tools=tools: name if name in tools else None)
        blocks = web.build_page(FakePipeline(), FakePreview()).blocks.values()
        videos = [block for block in blocks if isinstance(block, gr.Video)]
        assert [video.sources for video in videos] == [sources, ["upload"], ["upload"]]
        assert [video.format for video in videos] == [None] * 3  # else gradio's ffmpeg reads the raw upload first


def test_limits_stand_on_the_page_and_at_the_door() -> None:
    assert f"{LIMITS.bytes / 2**20:.0f} MB" in components.limits()
    assert f"{LIMITS.seconds / 60:.0f} minutes" in components.limits()
    assert f"{LIMITS.pixels / 1e6:.0f} MP" in components.limits()
    options = web.launch_options()
    assert options["max_file_size"] == LIMITS.bytes
    assert not options["share"]
    assert not options["show_error"]


def test_the_page_is_built_without_torch() -> None:
    script = "import sys, app; print([m for m in ('torch', 'diffusers', 'mediapipe') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr


def test_whoever_comes_before_the_job_is_loaded_waits_and_a_broken_one_is_told_to_all(monkeypatch, tmp_path) -> None:
    asked = (tmp_path / "face.mp4", tmp_path / "voice.wav", tmp_path / "out.mp4", SampleOptions())
    loaded, pipe = FakePipeline(), web.LoadedJob()
    loaded.syncnet = "a network"
    monkeypatch.setattr("syncdiff.job.Job.ready", lambda: loaded)
    with ThreadPoolExecutor() as visitors:
        early = visitors.submit(lambda: [*pipe(*asked)][-1].video)
        pipe.load()
        assert early.result(60) == asked[2]
    broken = web.LoadedJob()
    monkeypatch.setattr("syncdiff.job.Job.ready", lambda: 1 / 0)
    for use in (broken.load, lambda: next(broken(*asked)), lambda: broken.pipe):
        with pytest.raises(ZeroDivisionError):
            use()


def test_gradio_is_loaded_without_pandas_and_writes_no_stub_files() -> None:
    script = """
import inspect, sys
from syncdiff.late_imports import load_gradio
stubs, getfile = [], inspect.getfile
sys.addaudithook(lambda event, given: event == "open" and str(given[0]).endswith(".pyi") and stubs.append(given[0]))
load_gradio()
assert "pandas" not in sys.modules
assert not stubs, stubs
assert inspect.getfile is getfile
import gradio
assert gradio.Number(3).value == 3
assert gradio.caching.pd.DataFrame({"a": [1]}).shape == (1, 1)  # whoever uses it gets it
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ("127.0.0.1", 7860)),
        ({"GRADIO_SERVER_PORT": "9000"}, ("127.0.0.1", 9000)),
        ({"SPACE_ID": "somebody/syncdiff"}, ("0.0.0.0", 7860)),
        ({"SPACE_ID": "somebody/syncdiff", "GRADIO_SERVER_NAME": "10.0.0.1"}, ("10.0.0.1", 7860)),
    ],
)
def test_only_this_machine_is_served_except_on_a_space(monkeypatch, environment, address) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = web.launch_options()
    assert (options["server_name"], options["server_port"]) == address
