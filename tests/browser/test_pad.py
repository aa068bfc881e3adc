"""Test the drawing pad and the film in JupyterLab on a hub, using mouse, touch and keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import pytest
from drawing import NOTHING, SEVEN, Pad, too_faint, watch
from hubs import ROOT, Hub, Learner, run_cell, wait_until
from lab import enter, menu, wait_for_kernel
from playwright.sync_api import Browser, Page, expect

LESSON = "01_the_whole_game.ipynb"
CAPSTONE = "16_your_handwriting.ipynb"
CAPTIONS = ["first", "second", "third"]
FILM = f"Film(x_test[:12].reshape(3, 4, 28, 28), {CAPTIONS}, 'Digits')"
NOTEBOOKS = ROOT / "notebooks"


@dataclass
class Lab:
    """A learner's JupyterLab in which lesson 01 is open."""

    page: Page
    learner: Learner
    asked: list[str] = field(default_factory=list)  # the URLs of all requests

    def cell(self, code: str):
        return self.page.locator(".jp-CodeCell", has_text=code)

    def pad(self, code: str = "pad = DigitPad(model)") -> Pad:
        """Return the pad below a cell."""
        return Pad(self.cell(code).locator(".course-pad"))

    def python(self, expression: str):
        """Return the value of an expression in the lesson's kernel."""
        sessions = self.learner.api("GET", "/user/{name}/api/sessions").json()
        (kernel,) = (each["kernel"]["id"] for each in sessions if LESSON in each["path"])
        code = f"import json, numpy as np\nprint(json.dumps({expression}))"
        return json.loads(run_cell(self.learner, kernel, code))

    def same(self, pad: Pad, name: str = "pad") -> bool:
        """Return whether the drawing and the image on the screen match those in Python."""
        image = f"np.rint(255 * {name}.image).ravel().tolist()"
        return [pad.strokes(), pad.pixels()] == self.python(f"[{name}.strokes, {image}]")

    def dress(self, theme: str) -> None:
        """Choose JupyterLab's light or dark theme."""
        self.page.get_by_role("menuitem", name="Settings", exact=True).click()
        self.page.get_by_role("listitem").filter(has_text=re.compile("^Theme$")).hover()
        self.page.get_by_role("menuitem", name=f"JupyterLab {theme}", exact=True).click()
        light = json.dumps(theme == "Light")
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """Open a page for all the tests in this file."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def opened(page: Page, hub: Hub) -> Lab:
    """Open lesson 01 with a film and lesson 16's digit collector added, but run no cells."""
    learner = Learner(hub, "artist", hub.password)
    learner.start_server()
    lesson, last = (json.loads((NOTEBOOKS / name).read_bytes()) for name in (LESSON, CAPSTONE))
    (fit,) = (cell for cell in lesson["cells"] if cell["id"] == "fit")
    fit["source"] = ["history = model.fit(x_train[:10_000], y_train[:10_000], epochs=2)"]
    (collect,) = ("".join(cell["source"]) for cell in last["cells"] if cell["id"] == "collect")
    for code in ("from interactive import DigitCollector, Film", collect, FILM):
        new = {"cell_type": "code", "source": code, "outputs": [], "execution_count": None}
        lesson["cells"].append({**new, "metadata": {}, "id": f"new-{len(code)}"})
    path = f"/user/{{name}}/api/contents/tensorflow-course/{LESSON}"
    file = {"type": "file", "format": "text", "content": json.dumps(lesson)}
    learner.api("PUT", path, json=file).raise_for_status()
    lab = Lab(page, learner)
    page.on("request", lambda request: lab.asked.append(request.url))
    enter(page, learner, f"tensorflow-course/{LESSON}", "pads", heading="Now-you")
    return lab


@pytest.fixture(scope="module")
def lab(opened: Lab) -> Lab:
    """Run all cells of the lesson. The `opened` fixture has shortened the lesson's training."""
    wait_for_kernel(opened.page)
    menu(opened.page, "Run", "Run All Cells")
    expect(opened.page.locator(".course-film")).to_be_visible(timeout=180_000)
    return opened


def test_a_lesson_that_was_only_opened_has_a_pad_that_answers(opened):
    pad = opened.pad()
    expect(pad.root.locator(".note")).to_contain_text("stored with the notebook")
    expect(pad.answer).to_have_text("3")
    pad.draw(SEVEN)
    expect(pad.answer).to_have_text("7")


def test_the_model_answers_while_the_mouse_draws(lab, screenshot):
    pad, mouse = lab.pad(), lab.page.mouse
    expect(pad.root.locator(".note")).to_be_empty()  # now the kernel predicts
    start, corner, *_, end = pad.places(SEVEN)
    before = pad.pixels(), pad.numbers("logit"), pad.bars()
    mouse.move(*start)
    mouse.down()
    for place in (corner, end):  # with the mouse button held down
        mouse.move(*place, steps=8)
        wait_until(lambda: lab.same(pad), "Python has the drawing")
        now = pad.pixels(), pad.numbers("logit"), pad.bars()
        assert all(old != new for old, new in zip(before, now, strict=True))
        before = now
    mouse.up()
    pixels, shown, bars = now
    image = f"np.array({pixels}).reshape(1, 28, 28) / 255"
    logits = lab.python(f"model.predict({image}, verbose=0)[0].tolist()")
    scores = softmax(logits)
    assert shown == pytest.approx(logits, abs=0.051)
    assert pad.numbers("score") == pytest.approx(scores, abs=0.00051)
    assert bars == pytest.approx(scores, abs=0.0001)
    expect(pad.answer).to_have_text("7")
    assert pad.ink_in_the_middle()
    assert lab.python("pad.answer") == 7
    screenshot("pad", middle=pad.root)


def test_the_temperature_changes_the_scores_and_no_logit(lab):
    pad = lab.pad()
    slider = pad.root.get_by_role("slider", name="Temperature")
    logits, scores = pad.numbers("logit"), pad.numbers("score")
    slider.press("End")
    expect(pad.root.locator(".now")).to_have_text("10.00")
    wait_until(lambda: lab.python("pad.temperature") == 10, "Python has the temperature")
    assert pad.numbers("logit") == logits
    assert max(pad.numbers("score")) < max(scores)
    assert pad.numbers("score") == pytest.approx(lab.python("pad.scores.tolist()"), abs=0.00051)
    slider.press("ArrowLeft")  # JupyterLab also uses this key as a shortcut
    expect(pad.root.locator(".now")).to_have_text("9.55")
    slider.press("Home")
    expect(pad.root.locator(".now")).to_have_text("0.10")
    assert max(pad.numbers("score")) >= max(scores)
    slider.fill("0")


def test_the_mark_for_the_ink_leaves_the_middle_only_without_centring(lab):
    pad = lab.pad()
    pad.root.get_by_role("button", name="Clear").click()
    expect(pad.answer).to_have_text(NOTHING)
    assert (pad.strokes(), pad.numbers("logit"), pad.numbers("score")) == ([], None, None)
    wait_until(lambda: lab.same(pad), "Python's drawing is empty, too")
    assert not any(pad.pixels())
    pad.draw([(0.1, 0.1), (0.1, 0.3)])
    wait_until(lambda: lab.same(pad), "Python has the drawing")
    assert pad.ink_in_the_middle()
    pad.root.get_by_text("Centre my digit").click()
    wait_until(lambda: not lab.python("pad.centred") and lab.same(pad), "it is no longer centred")
    assert not pad.ink_in_the_middle()
    assert not np.reshape(pad.pixels(), (28, 28))[:, 10:].any()
    expect(pad.root.locator(".why")).to_contain_text("never seen one there")
    pad.root.get_by_text("Centre my digit").click()
    wait_until(pad.ink_in_the_middle, "the drawing is in the middle again")


def test_the_keyboard_alone_draws_clears_and_saves_the_notebook(lab):
    pad = lab.pad()
    lab.cell("pad = DigitPad(model)").focus()
    for _ in range(5):  # tab past the cell's buttons
        lab.page.keyboard.press("Tab")
        if pad.has_focus():
            break
    assert pad.shows_focus()
    expect(pad.root.locator(".pen")).to_be_visible()
    how = pad.root.locator(".how").inner_text()
    assert all(word in how for word in ("arrow keys", "Space", "C clears"))
    pad.press("c")
    assert pad.strokes() == []
    pad.type_seven()
    wait_until(lambda: lab.same(pad), "Python has the drawing")
    expect(pad.answer).to_have_text("7")
    expect(pad.root.get_by_role("status")).to_contain_text("The model says 7")  # for screen readers
    # Keys that the pad does not use still reach JupyterLab.
    with lab.page.expect_response(
        lambda reply: reply.request.method == "PUT" and LESSON in reply.url
    ):
        lab.page.keyboard.press("Control+s")


def test_a_finger_draws_and_scrolls_nothing(lab):
    pad = lab.pad()
    (top,) = pad.places([(0, 0)])
    pad.touch(SEVEN)
    wait_until(lambda: lab.same(pad) and len(pad.strokes()) == 2, "Python has the drawing")
    assert pad.strokes()[1][0] == pytest.approx(SEVEN[0], abs=0.005)
    assert pad.strokes()[1][-1] == pytest.approx(SEVEN[-1], abs=0.005)
    assert pad.paper.bounding_box()["y"] == top[1]


def test_the_collector_saves_what_is_drawn_with_its_label(lab):
    pad = lab.pad("DigitCollector(labels")
    ask, saved = pad.root.locator(".ask"), pad.root.locator(".progress")
    expect(ask).to_have_text("Draw a 0")
    images = []
    for number, save in enumerate(["click", "Enter"]):
        pad.draw([(0.5, 0.2), (0.3 + number / 5, 0.5), (0.5, 0.8)])
        wait_until(
            lambda: lab.python("mine._shared.get('strokes')") == pad.strokes(),
            "Python has the strokes",
        )
        wait_until(lambda: any(pad.pixels()), "the image is shown")
        images.append(pad.pixels())
        if save == "click":
            pad.root.get_by_role("button", name="Save this digit").click()
        else:
            pad.press(save)
        expect(saved).to_have_text(f"{number + 1} of 20 saved")
        expect(ask).to_have_text(f"Draw a {number + 1}")
        assert pad.strokes() == []
        wait_until(lambda: not any(pad.pixels()), "the paper is empty")
    assert lab.python("mine.labels.tolist()") == [0, 1]
    assert lab.python("np.rint(255 * mine.digits).reshape(2, -1).tolist()") == images
    path = "/user/{name}/api/contents/tensorflow-course/my_digits.json"
    digits = json.loads(lab.learner.api("GET", path).json()["content"])["digits"]
    assert [digit["label"] for digit in digits] == [0, 1]
    pad.root.get_by_role("button", name="Undo the last 1").click()
    expect(saved).to_have_text("1 of 20 saved")


def test_a_film_plays_and_steps(lab):
    film = lab.page.locator(".course-film")
    film.scroll_into_view_if_needed()
    watch(film, CAPTIONS)


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_pad_and_film_can_be_read_in_the_light_and_in_the_dark(lab, theme):
    lab.dress(theme)
    assert not too_faint(lab.pad().root)
    assert not too_faint(lab.pad("DigitCollector(labels").root)
    assert not too_faint(lab.page.locator(".course-film"))


def test_nobody_else_was_asked(lab):
    hosts = {urlsplit(url).hostname for url in lab.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def softmax(logits: list[float]) -> list[float]:
    powers = np.exp(np.array(logits) - max(logits))
    return (powers / powers.sum()).tolist()
