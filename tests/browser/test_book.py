"""Test the book that `make book` builds: its links, its figures, and its pages in a browser."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe
from drawing import NOTHING, SEVEN, Pad, too_faint, watch
from playwright.sync_api import Browser, Page, expect

from tfcourse.hub.spawners import lessons

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
FRONT = "docs/index.html"
PAD = "application/vnd.tensorflow-course.pad+json"
LESSON = "notebooks/07_evaluate_and_predict"
# These pages contain examples of Keras' coloured tables, figures, formulas and definitions.
LOOKED_AT = [
    FRONT,
    "notebooks/03_build_a_model.html",
    "notebooks/04_logits_and_softmax.html",
    f"{LESSON}.html",
    "notebooks/glossary.html",
]


class Reader(HTMLParser):
    """Collect a page's links, anchors and images, and the URLs of the files that the page loads."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.images: list[dict] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "meta" and attributes.get("http-equiv") == "refresh":
            self.links.append(attributes["content"].partition("url=")[2])
        if tag == "img":
            self.images.append(attributes)
        if tag in ("img", "script", "iframe", "source") and "src" in attributes:
            self.loads.append(attributes["src"])
        if tag == "link":
            self.loads.append(attributes["href"])


@dataclass
class Book:
    """A built book: its folder, the build's output, and the URL that serves the book."""

    folder: Path
    said: str
    url: str = ""

    @functools.cached_property
    def pages(self) -> dict[str, Reader]:
        found = sorted(self.folder.rglob("*.html"))
        names = {path: path.relative_to(self.folder).as_posix() for path in found}
        return {name: Reader(path) for path, name in names.items() if "_static" not in name}


def build(folder: Path, **settings: str) -> Book:
    """Run `make book`, ignoring this process's COURSE_ environment variables."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COURSE_", "MAKE", "MFLAGS"))
    }
    made = subprocess.run(
        ["make", "book", f"BOOK={folder}"],
        cwd=ROOT,
        env={**inherited, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout
    return Book(folder / "html", made.stdout)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """Build the book and serve it on the loopback interface only."""
    book = build(tmp_path_factory.mktemp("book"))
    handler = functools.partial(Quiet, directory=book.folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    book.url = f"http://127.0.0.1:{server.server_port}/"
    yield book
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without logging requests."""

    def log_message(self, *arguments):
        pass


def outputs(lesson: Path) -> Iterator[dict]:
    for cell in json.loads(lesson.read_text(encoding="utf-8"))["cells"]:
        yield from cell.get("outputs", [])


def test_every_link_leads_somewhere_and_every_page_is_linked(book):
    broken, linked = [], set()
    for name, page in book.pages.items():
        for link in page.links:
            target, anchor = urldefrag(urljoin(name, link))
            if re.match("[a-z]+:", target):
                continue
            target = unquote(target)
            linked |= {target} - {name}
            if target in book.pages:
                if unquote(anchor) not in book.pages[target].anchors:
                    broken.append(f"{name}: {link}")
            elif not (book.folder / target).is_file():
                broken.append(f"{name}: {link}")
    assert not broken
    assert set(book.pages) - linked <= {"index.html", "search.html"}


def test_the_front_page_lists_every_lesson(book):
    text = (book.folder / FRONT).read_text(encoding="utf-8")
    table = text[text.index("<table") : text.index("</table>")]
    assert re.findall(r'href="\.\./notebooks/([^"]*)\.html"', table) == [p.stem for p in LESSONS]


def test_nothing_comes_from_another_host(book):
    for name, page in book.pages.items():
        assert not [load for load in page.loads if re.match("([a-z]+:)?//", load)], name


def test_every_image_has_a_text(book):
    for name, page in book.pages.items():
        assert not [image for image in page.images if not image.get("alt", "").strip()], name


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_figure_has_the_text_that_its_lesson_stores(book, lesson):
    figures = [o for o in outputs(lesson) if "image/png" in o.get("data", {})]
    stored = [figure["metadata"]["image/png"]["alt"] for figure in figures]
    shown = [image["alt"] for image in book.pages[f"notebooks/{lesson.stem}.html"].images]
    # `shown` also includes pictures in lesson 00's text, which are not outputs.
    assert [text for text in shown if text in stored] == stored


def test_what_is_printed_is_what_is_stored(page: Page, book):
    page.goto(f"{book.url}{LESSON}.html")
    shown = page.locator(".cell_output .stream pre").all_text_contents()
    stored = ["".join(o["text"]) for o in outputs(ROOT / f"{LESSON}.ipynb") if "text" in o]
    stored = [re.sub(r"\x1b\[[0-9;]*m", "", text) for text in stored]  # a progress bar's colours
    assert [text.strip() for text in shown] == [text.strip() for text in stored]


def test_every_page_fits_a_phone_and_asks_nobody_else(page: Page, book):
    asked, failed, wide = [], [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda reply: failed.append(reply.url) if reply.status >= 400 else None)
    page.set_viewport_size({"width": 375, "height": 812})
    for name in set(book.pages) - {"index.html"}:  # index.html only redirects to the front page
        page.goto(book.url + name, wait_until="networkidle")
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(name)
    assert not wide
    assert not [url for url in asked if not url.startswith((book.url, "data:", "blob:"))]
    assert not failed


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_axe_finds_nothing_serious(page: Page, book, name, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(book.url + name)
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    # Disable transitions; otherwise, axe would measure colours that are still changing.
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    found = Axe().run(page).response
    assert found["passes"]
    assert not [
        (violation["id"], violation["help"], [node["html"] for node in violation["nodes"]])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def test_the_front_page_begins_with_a_pad_for_mouse_and_keyboard(page: Page, book):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(book.url + FRONT)
    first = page.locator(".bd-article > *").first
    pad = Pad(first.locator(".course-pad"))
    expect(first).to_have_class(re.compile("course-live"))
    expect(pad.root).to_be_in_viewport(ratio=1)
    expect(first.locator("img")).not_to_be_visible()
    expect(pad.answer).to_have_text("3")
    pad.draw(SEVEN)
    expect(pad.answer).to_have_text("7")
    assert pad.ink_in_the_middle()
    assert max(pad.bars()) == pytest.approx(max(pad.numbers("score")), abs=0.001)

    page.reload()
    for key in ("Tab", "Enter"):  # skip to the main content
        page.keyboard.press(key)
    for _ in range(5):
        page.keyboard.press("Tab")
        if pad.has_focus():
            break
    assert pad.shows_focus()
    pad.press("c")
    expect(pad.answer).to_have_text(NOTHING)
    pad.type_seven()
    expect(pad.answer).to_have_text("7")
    assert not [url for url in asked if not url.startswith((book.url, "data:"))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_answer_stands_below_the_finger(browser: Browser, book, scheme):
    size = {"width": 375, "height": 667}
    page = browser.new_page(viewport=size, color_scheme=scheme, is_mobile=True, has_touch=True)
    page.goto(book.url + FRONT)
    pad = Pad(page.locator(".course-pad"))
    pad.touch(SEVEN)
    expect(pad.answer).to_have_text("7")
    expect(pad.paper).to_be_in_viewport(ratio=1)
    expect(pad.answer).to_be_in_viewport(ratio=1)
    assert not too_faint(pad.root)
    page.close()


def test_without_scripts_the_pad_is_a_picture_with_a_text(browser: Browser, book):
    page = browser.new_page(java_script_enabled=False)
    page.goto(book.url + FRONT)
    expect(page.locator(".course-pad")).to_have_count(0)
    picture = page.locator(".bd-article > *").first.get_by_role("img")
    expect(picture).to_be_in_viewport(ratio=1)
    pads = [o for o in outputs(LESSONS[1]) if PAD in o.get("data", {})]
    expect(picture).to_have_attribute("alt", pads[0]["metadata"]["image/png"]["alt"])
    page.close()


def test_a_film_plays_and_steps(page: Page, book):
    page.goto(f"{book.url}notebooks/03_build_a_model.html")
    film = page.locator(".course-film")
    watch(film, [f"label {digit}" for digit in range(10)])
    assert not too_faint(film)


def test_figures_stay_on_white_in_the_dark(page: Page, book):
    page.emulate_media(color_scheme="dark")
    page.goto(f"{book.url}{LESSON}.html")
    figure = page.locator(".cell_output img").first
    expect(figure).to_have_css("background-color", "rgb(255, 255, 255)")
    expect(figure).to_have_css("filter", "none")


def test_a_summary_has_no_card_in_the_dark(page: Page, book):
    page.emulate_media(color_scheme="dark")
    page.goto(f"{book.url}/notebooks/03_build_a_model.html")
    summary = page.locator(".text_html:has(> pre)").first
    expect(summary).to_have_css("background-color", "rgba(0, 0, 0, 0)")


def test_paper_gets_dark_ink_and_no_side_columns(page: Page, book):
    page.emulate_media(color_scheme="dark", media="print")
    page.goto(f"{book.url}{LESSON}.html")
    expect(page.locator(".bd-article p").first).to_have_css("color", "rgb(0, 0, 0)")
    expect(page.locator(".cell_input pre").first).to_have_css("color", "rgb(0, 0, 0)")
    for column in [".bd-sidebar-primary", ".bd-sidebar-secondary"]:
        expect(page.locator(column)).not_to_be_visible()


def test_paper_gets_light_tables_and_the_folded_answers(page: Page, book):
    page.emulate_media(color_scheme="dark", media="print")
    page.goto(f"{book.url}notebooks/05_loss.html")
    for row in page.locator(".bd-article tbody tr").all():
        red, *_ = row.evaluate("row => getComputedStyle(row).backgroundColor.match(/\\d+/g)")
        assert int(red) > 200
    for answer in page.locator(".bd-article details").all():
        height = answer.evaluate("answer => answer.getBoundingClientRect().height")
        assert height > answer.locator("summary").bounding_box()["height"] + 20


def test_there_is_room_after_the_name_of_a_function(page: Page, book):
    page.goto(f"{book.url}notebooks/05_loss.html")
    room = "math => math.querySelector('mspace').getBoundingClientRect().width"
    assert page.locator("math", has_text="ln").first.evaluate(room) > 1


def test_nothing_is_complained_of_in_the_console(page: Page, book):
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{book.url}{FRONT}")
    assert [text for text in said if "theme mode" in text] == []


def test_the_search_finds_softmax(page: Page, book):
    page.goto(book.url + FRONT)
    page.get_by_role("button", name="Search").filter(visible=True).click()
    field = page.get_by_role("dialog").get_by_role("searchbox")
    expect(field).to_be_focused()
    field.fill("softmax")
    field.press("Enter")
    page.locator("#search-results a[href*='notebooks/04_logits_and_softmax.html']").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Logits and softmax")


def test_a_cell_can_be_copied_and_a_lesson_downloaded(page: Page, book):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{book.url}{LESSON}.html")
    lesson = (ROOT / f"{LESSON}.ipynb").read_bytes()
    code = [cell for cell in json.loads(lesson)["cells"] if cell["cell_type"] == "code"]
    expect(page.locator(".cell_input button.copybtn")).to_have_count(len(code))
    first = page.locator(".cell_input").first
    first.hover()
    first.get_by_role("button", name="Copy").click()
    expect(first.locator("button.copybtn.success")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == "".join(code[0]["source"]).strip()

    page.get_by_role("button", name="Download this page").click()
    download = page.get_by_role("link", name=".ipynb")
    expect(download).to_be_visible()
    assert download.get_attribute("href").endswith(f"{LESSON}.ipynb")
    reply = page.request.get(urljoin(page.url, download.get_attribute("href")))
    assert reply.body() == lesson


def test_without_a_public_address_there_is_no_launch_button(book):
    assert len(re.findall("COURSE_REPOSITORY is not set", book.said)) == 1
    assert not any(
        re.search("mybinder|colab|git-pull", link)
        for page in book.pages.values()
        for link in page.links
    )


def test_with_a_public_address_every_lesson_has_launch_buttons(tmp_path):
    book = build(
        tmp_path,
        COURSE_REPOSITORY="https://github.com/owner/name",
        COURSE_HUB_URL="https://hub.example.org",
    )
    assert "COURSE_REPOSITORY" not in book.said
    for lesson in LESSONS:
        file = f"notebooks/{lesson.name}"
        links = book.pages[f"notebooks/{lesson.stem}.html"].links
        assert f"https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/{file}" in links
        assert f"https://colab.research.google.com/github/owner/name/blob/main/{file}" in links
        copy = f"lab/tree/{lessons.FOLDER}/{lesson.name}"
        assert f"https://hub.example.org/hub/user-redirect/{copy}" in links
        assert not any("git-pull" in link for link in links)
