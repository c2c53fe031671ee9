"""Can everybody use the page? axe-core's rules, the keyboard, small and dark screens; faces to choose, links."""

from importlib.resources import files as resources

import pytest

from tests.browsing import SHOWN, browser, files, fill, press, serve, sideways, visit, wait_for  # noqa: F401 -- fixtures
from tests.fakes import FakePipeline, FakePreview

AXE = resources("axe_playwright_python") / "axe.min.js"
# Gradio's own parts, which cannot be mended from here; everything else on the page is looked at.
NOT_OURS = ["footer", "#face .controls"]
FOCUSED = "((e) => e.innerText || e.ariaLabel || e.parentElement.innerText)(document.activeElement)"


def troubles(tab) -> list[str]:
    """What axe finds serious or critical, each with where it is."""
    tab.evaluate(AXE.read_text())
    found = tab.evaluate("(away) => axe.run({exclude: away.map((x) => [x])}, {resultTypes: ['violations']})", NOT_OURS)
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_in_any_state(serve, visit, files, width, scheme) -> None:
    tab = visit(serve(FakePipeline(), FakePreview(people=2)) + f"?__theme={scheme}", width=width, scheme=scheme)
    assert troubles(tab) == []
    fill(tab, files)
    tab.wait_for_selector("[aria-pressed]:has-text('Face 2')")
    tab.click("#advanced button")
    press(tab, "#test", "trial")
    assert troubles(tab) == []
    press(tab, "#run")
    tab.click(".view summary")
    tab.click("[data-part=over]")
    assert troubles(tab) == []
    assert sideways(tab) == 0
    tab.get_by_role("tab", name="Check a video").click()
    tab.wait_for_selector("#suspect")
    assert troubles(tab) == []


@pytest.mark.browser
def test_the_keyboard_alone_leads_to_a_video_and_the_end_is_announced(serve, visit) -> None:
    pipe = FakePipeline(steps=20, pause=0.02)
    tab = visit(serve(pipe))
    tab.evaluate("""() => {
        window.rewritten = 0;
        const live = document.querySelectorAll(".view [aria-live], .view [role=status]");
        const watcher = new MutationObserver(() => window.rewritten++);
        for (const place of live) watcher.observe(place, { childList: true, subtree: true });
    }""")
    seen: list[str] = []

    def forward_to(words: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            seen.append(tab.evaluate(FOCUSED))
            if words in seen[-1]:
                return
        raise AssertionError(f"{words} cannot be reached: {seen}")

    for words, there in (
        ("Speaker 1", "#face video"),
        ("By the river", "#voice .timestamps, #voice #waveform"),
    ):
        forward_to(words)
        tab.keyboard.press("Enter")
        tab.wait_for_selector(there)
    forward_to("Make it speak")
    tab.keyboard.press("Enter")
    focused = "document.activeElement.id || document.activeElement.dataset.part"
    assert wait_for(lambda: tab.evaluate(focused) == "cancel")  # the pressed button is gone, and the focus is not lost
    tab.wait_for_selector(SHOWN.format("done"))
    assert wait_for(lambda: tab.evaluate(focused) == "verdict")
    assert "ready" in tab.inner_text("[data-part=said]")
    assert tab.evaluate("window.rewritten") < 10
    assert tab.locator("[role=tablist]:not([aria-label])").count() == 0
    assert [path.name for path in pipe.calls[0][:2]] == ["speaker-1.mp4", "voice-river.wav"]

    pipe.pause = 0.2
    tab.focus("#run")
    tab.keyboard.press("Enter")
    assert wait_for(lambda: tab.evaluate(focused) == "cancel")
    tab.keyboard.press("Enter")
    assert wait_for(lambda: tab.evaluate(focused) == "run")


@pytest.mark.browser
def test_several_faces_are_offered_and_the_chosen_one_is_redrawn(serve, visit, files) -> None:
    pipe, look = FakePipeline(), FakePreview(people=3)
    tab = visit(serve(pipe, look))
    fill(tab, files)
    tab.wait_for_selector("[aria-pressed=true]:has-text('Face 1')")
    tab.get_by_text("Face 3").click()
    tab.wait_for_selector("[aria-pressed=true]:has-text('Face 3')")
    tab.evaluate("document.querySelector('#face video').currentTime = 1.2")  # where somebody stopped it
    press(tab, "#test", "trial")
    spot = look.tried[0][2].face
    assert look.tried[0][3] == pytest.approx(1.2)
    assert spot.x == pytest.approx(5 / 6)
    assert tab.locator("[data-part=where] polygon[points]").count() == 2
    tab.click("[data-part=outlines]")
    assert not tab.is_visible("[data-part=where]")
    press(tab, "#run")
    assert pipe.calls[0][3].face == spot

    # another file, one face: nothing to choose, and the choice is forgotten
    tab.locator(".pick-row >> text=Speaker 2").click()
    assert wait_for(lambda: not tab.get_by_text("Face 3").is_visible())
    press(tab, "#run")
    assert pipe.calls[1][3].face is None


@pytest.mark.browser
def test_a_link_fills_the_form_and_a_copied_link_does_it_again(serve, visit) -> None:
    pipe = FakePipeline()
    url = serve(pipe)
    tab = visit(f"{url}?example=speaker-2&preset=slow&seed=7")
    tab.wait_for_selector(SHOWN.format("ready"))
    assert "Speaker 2, set white · Slow · seed 7" in tab.inner_text("[data-part=settings]")
    tab.wait_for_selector("#face video")
    press(tab, "#run")
    face, voice, _, options = pipe.calls[0]
    assert (face.name, voice.name, options.steps, options.seed) == ("speaker-2.mp4", "voice-white.wav", 4, 7)
    tab.click("[data-part=copy]")
    tab.wait_for_selector("[data-part=copy]:has-text('Copied')")
    assert tab.evaluate("navigator.clipboard.readText()") == f"{url}?example=speaker-2&preset=slow&seed=7"
    tab.goto(f"{url}?example=speaker-2&seed=7&tail=trim&label=no")
    tab.wait_for_selector("[data-part=settings]:has-text('no label')")
    tab.wait_for_selector("#face video")
    press(tab, "#run", "error")  # nobody has promised anything yet
    assert len(pipe.calls) == 1
    tab.check("#unlabelled input")
    press(tab, "#run")
    assert (pipe.calls[1][3].tail, pipe.calls[1][3].label) == ("trim", False)
    assert tab.input_value("[data-part=link]") == f"{url}?example=speaker-2&preset=standard&seed=7&tail=trim&label=no"
    tab.goto(f"{url}?example=nobody&seed=7")
    tab.wait_for_selector("[data-part=message]:has-text('nobody')")
    assert tab.is_visible("#run")

    # What was chosen before the answer came is newer than the link, and a press waits for it.
    held, holding = [], [True]

    def hold(route) -> None:
        (held.append if holding else lambda other: other.continue_())(route)

    tab.route("**/gradio_api/run/**", hold)
    tab.goto(f"{url}?example=speaker-2&preset=slow&seed=7")
    tab.locator(".pick-row >> text=Speaker 3").click()
    assert wait_for(lambda: bool(held))
    tab.fill("#steps input[type=number]", "3")
    tab.keyboard.press("Tab")
    press(tab, "#run", "waiting")
    holding.clear()
    for answer in held:
        answer.continue_()
    tab.wait_for_selector(SHOWN.format("done"))
    face, voice, _, options = pipe.calls[2]
    assert (face.name, voice.name, options.steps, options.seed) == ("speaker-3.mp4", "voice-white.wav", 3, 7)
    assert "ready" not in tab.evaluate("seen")
