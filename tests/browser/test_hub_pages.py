"""Test the hub's pages in a real browser: texts, accessibility and keyboard navigation."""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
import zlib
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from hubs import PASSWORD, ROOT, ClassHub, ClassLearner, Hub, Learner, post, wait_until
from playwright.sync_api import Page, expect
from visitor import COURSE, Visitor


@pytest.fixture
def visitor(page: Page, hub: Hub) -> Visitor:
    """Return a visitor to a hub like the one that `make hub` starts."""
    return Visitor(page, hub)


@pytest.fixture(scope="module")
def class_hub(new_hub) -> ClassHub:
    """Start a hub with `make up`."""
    hub = new_hub()
    hub.up()
    return hub


@pytest.fixture
def student(page: Page, class_hub: ClassHub) -> Visitor:
    """Return a visitor to the hub that `class_hub` has started."""
    return Visitor(page, class_hub)


@pytest.fixture
def instructor(student: Visitor) -> Iterator[Visitor]:
    """Log in as the instructor and open the page for approving learners."""
    student.visit("/hub/login?next=/hub/authorize")
    student.log_in("instructor", student.hub.admin_password)
    expect(student.page).to_have_url(f"{student.hub.url}/hub/authorize")
    return student


# --- The hub that `make hub` starts


def test_from_the_log_in_to_a_lesson_and_back_by_keyboard(visitor):
    page = visitor.page
    visitor.visit("/")
    expect(page.get_by_role("main")).to_contain_text("make hub")
    visitor.look("Sign in")
    visitor.log_in("anita", visitor.hub.password)

    expect(page.get_by_role("radio", name="TensorFlow (CPU)")).to_be_focused()
    visitor.look("Start your server")
    page.reload()  # to reset the focus that axe has moved
    visitor.tab_to("button", "Start")
    visitor.press("Enter")

    bar = page.get_by_role("progressbar", name="Progress of the start")
    expect(bar).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("usually takes about 5 seconds")
    before = bar.evaluate("bar => bar.value")
    # Wait until the progress bar has advanced, or has disappeared because the server is ready.
    grown = "before => !(document.querySelector('progress')?.value <= before)"
    page.wait_for_function(grown, arg=before)
    page.wait_for_url("**/lab/tree/**", timeout=120_000)

    visitor.visit("/hub/home")
    visitor.look("Home")
    visitor.visit("/hub/home")
    page.wait_for_load_state("networkidle")  # the button needs the page's scripts
    visitor.tab_to("button", "Stop My Server")
    visitor.press("Enter")
    expect(page.get_by_role("status")).to_have_text("It has stopped. Your saved work is kept.")
    expect(page.get_by_role("button", name="Start My Server")).to_be_focused()

    visitor.visit("/user/anita/lab")
    expect(page.get_by_role("main")).to_contain_text("Your saved work is kept")
    visitor.look("Not running")
    visitor.visit("/user/anita/lab")
    expect(page.locator("#start")).to_be_focused()
    visitor.press("Enter")
    expect(page).to_have_title(f"Start your server | {COURSE}")


def test_the_page_of_a_start_can_be_read_and_sees_a_failure(visitor):
    """Simulate the hub's failure event, because the real time-out takes minutes."""
    page = visitor.page
    Learner(visitor.hub, "slow")
    config = visitor.hub.state / "homes" / "slow" / ".jupyter" / "jupyter_server_config.py"
    config.parent.mkdir(parents=True)
    config.write_text("import time; time.sleep(600)")
    visitor.visit("/hub/login")
    visitor.log_in("slow", visitor.hub.password)
    visitor.start()
    expect(page.get_by_role("status")).to_contain_text("usually takes")
    visitor.look("Starting")
    failed = {"data": '{"failed": true, "progress": 100, "message": "Spawn failed"}'}
    with page.expect_navigation():  # it reloads to show the hub's error
        page.evaluate("event => { setTimeout(() => events.onmessage(event)); }", failed)


def test_refusals_are_told_in_the_form(visitor):
    page = visitor.page
    visitor.visit("/hub/login")
    visitor.sign_in("anita", "wrong")
    expect(page.get_by_role("main")).to_contain_text("Invalid username or password")
    visitor.look("Error: Sign in")
    visitor.visit("/hub/login?next=/hub/spawn%3Fprofile=nope")
    visitor.log_in("curious", visitor.hub.password)
    expect(page.get_by_role("alert")).to_contain_text("There is no environment called 'nope'")
    visitor.look("Error: Start your server")


ERRORS = [
    ("/hub/accept-share", 400, "This did not work"),
    ("/hub/admin", 403, "You do not have access"),
    ("/hub/nothing", 404, "There is no such page"),
    # The proxy fetches its error pages from these URLs.
    ("/hub/error/429", 429, "Too many requests"),
    ("/hub/error/500", 500, "Something went wrong"),
    ("/hub/error/503", 503, "No answer at the moment"),
]


def test_an_error_page_says_what_to_do_and_leads_on(visitor):
    page = visitor.page
    visitor.visit("/hub/login?next=/hub/home")
    visitor.log_in("lost", visitor.hub.password)
    for path, status, heading in ERRORS:
        visitor.visit(path)
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        expect(page.get_by_role("link", name="Log out")).to_be_visible()
        visitor.look(f"Error {status}")
        page.get_by_role("main").get_by_role("link", name="Home").click()
        expect(page).to_have_title(f"Home | {COURSE}")


def test_the_theme_can_be_chosen(visitor):
    visitor.visit("/hub/login")
    html = visitor.page.locator("html")
    expect(html).to_have_attribute("data-bs-theme", "light")
    visitor.page.get_by_role("button", name="Toggle dark mode").click()
    expect(html).to_have_attribute("data-bs-theme", "dark")


# --- The hub that `make up` starts


def test_a_newcomer_signs_up_by_keyboard(student):
    page = student.page
    student.visit("/")
    expect(page.get_by_role("main")).to_contain_text("ask your instructor")
    student.look("Sign in")
    page.get_by_role("link", name="Sign up").press("Enter")
    expect(page.get_by_label("User name")).to_be_focused()
    student.look("Sign up")
    for password, title in [("short", "Error: Sign up"), (PASSWORD, "Sign up")]:
        student.visit("/hub/signup")  # to reset the focus that axe has moved
        student.type("mona", password, password)
        student.tab_to("button", "Sign up")
        student.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        student.look(title)
    expect(page.get_by_role("main")).to_contain_text("once your instructor lets you in")
    page.get_by_role("link", name="Sign in").press("Enter")
    expect(page).to_have_title(f"Sign in | {COURSE}")


def test_five_people_are_let_in_by_five_times_enter(instructor):
    page = instructor.page
    names = [f"learner-{number}" for number in range(7)]
    for name in names:
        instructor.hub.sign_up(name)
    page.reload()
    instructor.look("Who may come in")
    page.reload()
    instructor.tab_to("button", "Let in learner-0")
    for name, following in itertools.pairwise(names[:6]):
        instructor.press("Enter")
        expect(page.get_by_role("status")).to_have_text(f"{name} may come in now.")
        expect(page.get_by_role("button", name=f"Let in {following}")).to_be_focused()
    instructor.press("Tab")
    instructor.press("Enter")  # on the button Discard
    expect(page.get_by_text("learner-5", exact=True)).to_have_count(0)
    expect(page.get_by_role("button", name="Let in learner-6")).to_be_focused()
    # Approve every learner who is still waiting. The heading then shows a count of 0.
    for name in page.locator("#Waiting > li > span").all_text_contents():
        page.get_by_role("button", name=f"Let in {name}", exact=True).press("Enter")
        expect(page.get_by_role("status")).to_have_text(f"{name} may come in now.")
    expect(page.get_by_role("heading", name="Waiting for you (0)")).to_be_focused()


def test_a_class_gets_accounts_by_keyboard(instructor, tmp_path):
    page = instructor.page
    instructor.tab_to("link", "Roster")
    instructor.press("Enter")
    expect(page.get_by_label("One name on each line")).to_be_focused()
    instructor.look("Roster")
    long = "karl_theodor_maria_nikolaus_joha"  # the longest possible user name
    good = f"Änne Müller,Group A\n{long},{'x' * 40}"
    for names, title in [(f"{good}\n{long}nn", "Error: Roster"), (good, "Roster")]:
        instructor.visit("/hub/roster")  # to reset the focus that axe has moved
        expect(page.get_by_label("One name on each line")).to_be_focused()
        page.keyboard.type(names)
        instructor.tab_to("button", "Preview")
        instructor.press("Enter")
        expected = "1 of 3 lines has a problem" if "Error" in title else "2 of 2 people will get"
        expect(page.get_by_role("alert")).to_contain_text(expected)
        expect(page.get_by_role("row", name="1 Änne Müller")).to_contain_text("will be created")
        instructor.look(title)
    instructor.tab_to("button", "Create the accounts")
    instructor.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Print or save this page now.")
    instructor.look("First passwords")
    slip = page.get_by_role("heading", name="Änne Müller").locator("..")
    password = slip.locator("code").last.text_content()
    with page.expect_download() as download:
        instructor.tab_to("link", "Download as CSV")
        instructor.press("Enter")
    download.value.save_as(tmp_path / "first-passwords.csv")
    assert f"anne.muller,{password}" in (tmp_path / "first-passwords.csv").read_text("utf-8")

    page.emulate_media(media="print", color_scheme="dark")
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.get_by_role("button", name="Print")).to_be_hidden()
    expect(slip).to_have_css("color", "rgb(0, 0, 0)")
    page.emulate_media(media="screen", color_scheme="light")
    page.evaluate("() => { window.print = () => { document.title = 'printed'; }; }")
    instructor.tab_to("button", "Print")
    instructor.press("Enter")
    expect(page).to_have_title("printed")

    instructor.tab_to("link", "Back to the roster")
    instructor.press("Enter")
    expect(page.get_by_role("checkbox", name="anne.muller")).not_to_be_checked()
    instructor.look("Roster")
    instructor.tab_to("checkbox", "anne.muller")
    instructor.press("Space")
    instructor.tab_to("button", "Create first passwords")
    instructor.press("Enter")
    expect(page.locator(".slip code").first).to_have_text("anne.muller")
    expect(page.locator(".slip code").last).not_to_have_text(password)


def test_a_roster_can_be_a_file_from_a_spreadsheet(instructor):
    page = instructor.page
    instructor.visit("/hub/roster")
    field = page.get_by_label("Or a CSV file with the same columns")
    field.set_input_files({"name": "x.csv", "mimeType": "text/csv", "buffer": b"a" * 200_001})
    message = field.evaluate("field => field.validationMessage")
    assert message == "This file is too large for a list of names."
    text = "Name;Group\r\nÄnne Müller;Gruppe 1\r\n"
    content = {"name": "x.csv", "mimeType": "text/csv", "buffer": text.encode("utf-16")}
    field.set_input_files(content)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("row", name="2 Änne Müller")).to_contain_text("Group: Gruppe 1")
    expect(page.get_by_label("One name on each line")).to_have_value(text.replace("\r\n", "\n"))


def test_the_administrators_other_pages(instructor):
    page = instructor.page
    instructor.hub.sign_up("forgetful")
    instructor.visit("/hub/change-password")
    instructor.look("Change password")
    instructor.visit("/hub/authorize")
    instructor.tab_to("link", "New password for forgetful")
    instructor.press("Enter")
    instructor.look("Password of forgetful")
    page.reload()
    instructor.type(PASSWORD, PASSWORD)
    instructor.press("Tab")
    instructor.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("has been changed")
    # NativeAuthenticator's handlers, not JupyterHub's, render the errors for URLs below this page.
    instructor.visit("/hub/change-password/nobody")
    instructor.look("Error 404")
    expect(page.get_by_role("link", name="Log out")).to_be_visible()


def test_a_form_that_is_too_old_leads_to_a_new_one(student):
    student.visit("/hub/login")
    student.page.locator("input[name=_xsrf]").evaluate("field => { field.value = 'of last week'; }")
    student.sign_in("somebody", PASSWORD)
    expect(student.page.get_by_role("main")).to_contain_text("form has expired")
    student.look("Error 403")
    student.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    expect(student.page).to_have_title(f"Sign in | {COURSE}")


def test_who_comes_back_to_a_stopped_server_reads_why(student):
    student.hub.admit("absent")
    student.visit("/hub/login?next=/user/absent/lab")
    student.log_in("absent", PASSWORD)
    expect(student.page.get_by_role("main")).to_contain_text("idle for 60 minutes is stopped")
    student.look("Not running")


def test_a_start_that_fails_says_so_and_leads_back(student):
    hub, page = student.hub, student.page
    hub.admit("unlucky")
    # Prevent the server from starting by creating a file in place of the home directory.
    (hub.homes / "homes" / "unlucky").touch()
    student.visit("/hub/login")
    student.log_in("unlucky", PASSWORD)
    student.start()
    # Depending on timing, the alert appears in the environment picker or replaces the progress bar.
    expect(page.get_by_role("alert")).to_contain_text("Your home cannot be used.")
    student.visit("/user/unlucky/lab")
    expect(page.get_by_role("alert")).to_contain_text("Your home cannot be used.")
    student.look("Error: not started")
    student.tab_to("button", "Try again")
    student.press("Enter")
    expect(page).to_have_title(f"Start your server | {COURSE}")


def test_while_the_hub_is_down_a_page_waits_for_it(student):
    container = student.hub.container("hub")
    container.stop()
    try:
        student.visit("/hub/signup")
        expect(student.page.get_by_role("main")).to_contain_text("Your saved work is kept.")
        student.look("One moment")
    finally:
        container.start()
    expect(student.page).to_have_title(f"Sign up | {COURSE}", timeout=60_000)


# --- Both hubs


def test_the_logo_is_ours_and_has_a_text(visitor):
    visitor.visit("/hub/login")
    logo = visitor.page.get_by_role("img", name="Home:")
    address = urljoin(visitor.page.url, logo.get_attribute("src"))
    answer = visitor.page.request.get(address)
    assert answer.headers["content-type"] == "image/svg+xml"
    assert re.search(f"<title>{COURSE}</title>", answer.text())
    expect(visitor.page.get_by_role("link", name=f"Home: {COURSE}")).to_be_visible()


# --- Progress


def attempt(exercise: str, mistake: str = "", lesson: str = "03_build_a_model") -> dict[str, str]:
    """Return an attempt at an exercise, as a learner's server sends it."""
    key = secrets.token_hex(8)
    return {"key": key, "lesson": lesson, "exercise": exercise, "mistake": mistake}


def send(learner: Learner, *attempts: dict[str, str]) -> None:
    learner.api("POST", "/hub/api/users/{name}/attempts", json=attempts).raise_for_status()


@pytest.fixture(scope="module")
def learners(class_hub: ClassHub) -> dict[str, Learner]:
    """Return learners of whom one has solved exercises, one is stuck, and one has not started."""
    found = {name: ClassLearner(class_hub, name) for name in ("olga", "paul", "quinn")}
    send(found["olga"], *(attempt(name) for name in ("flatten", "count", "budget")))
    send(found["olga"], attempt("guess", "2.3 is the loss of ten classes.", "05_loss"))
    for _ in range(5):
        send(found["paul"], attempt("count", "From 4 inputs to 3 outputs there are 12 weights."))
    return found


def test_the_instructor_sees_at_once_who_is_stuck(instructor, learners):
    page = instructor.page
    instructor.tab_to("link", "Class")
    instructor.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("2 started the exercises, 1 stuck")
    expect(page.get_by_role("row", name=re.compile("^olga"))).to_contain_text("3/3")
    expect(page.get_by_role("row", name=re.compile("^quinn"))).to_contain_text("not started")
    instructor.look("Class")
    send(learners["quinn"], *(attempt("budget", "It has 30,000 parameters.") for _ in range(5)))
    expect(page.get_by_role("status")).to_contain_text("3 started the exercises, 2 stuck")
    expect(page.get_by_text("It has 30,000 parameters.").first).to_be_visible()
    instructor.look("Class")
    page.get_by_role("link", name="paul").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Progress of paul")
    instructor.look("Progress")


def test_an_update_of_the_class_page_keeps_the_readers_place(instructor, learners):
    page = instructor.page
    instructor.visit("/hub/class")
    page.set_viewport_size({"width": 360, "height": 740})
    table = page.get_by_role("region", name="Learners and lessons")
    table.evaluate("table => table.scroll(100, 0)")
    link = page.get_by_role("rowheader").get_by_role("link", name="quinn")
    link.focus()
    send(learners["quinn"], attempt("guess", lesson="05_loss"))
    expect(page.get_by_role("row", name=re.compile("^quinn"))).to_contain_text("1/3")
    expect(link).to_be_focused()
    assert table.evaluate("table => table.scrollLeft") == 100


def test_the_class_page_shows_changes_after_the_hub_has_restarted(instructor, learners):
    page = instructor.page
    instructor.visit("/hub/class")
    instructor.hub.container("hub").restart()
    wait_until(instructor.hub.answers, "the hub answers again")
    send(learners["paul"], attempt("count"))
    row = page.get_by_role("row", name=re.compile("^paul"))
    expect(row).to_contain_text("1/3")


def test_learners_see_and_delete_what_is_stored(student, learners):
    page = student.page
    student.visit("/hub/login?next=/hub/progress")
    student.log_in("olga", PASSWORD)
    expect(page.get_by_role("heading", name="Lesson 03 · 3 of 3")).to_be_visible()
    expect(page.get_by_text("2.3 is the loss of ten classes.")).to_be_visible()
    expect(page.get_by_role("link", name="Class")).to_have_count(0)
    student.look("Progress")
    student.tab_to("button", "Stop sharing and delete my attempts")
    student.press("Enter")
    expect(page.get_by_text("You do not share attempts, so none are stored.")).to_be_visible()
    student.look("Progress")
    student.tab_to("button", "Share my attempts")
    student.press("Enter")
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()


# --- Assignments


def test_an_assignment_from_its_creation_to_the_submissions(instructor, learners):
    page, hub = instructor.page, instructor.hub
    instructor.tab_to("link", "Assignments")
    instructor.press("Enter")
    expect(page.get_by_text("There are no assignments yet.")).to_be_visible()
    instructor.look("Assignments")
    page.get_by_label("Title").fill("Week 3")
    page.get_by_label("05 Loss").press("Space")
    page.get_by_label("03 Build a model").check()
    page.get_by_label("Due").fill("2001-01-01T12:00")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("That time has passed")
    expect(page.get_by_label("Title")).to_have_value("Week 3")
    expect(page.get_by_label("05 Loss")).to_be_checked()
    instructor.look("Assignments")
    page.get_by_label("Due").fill("2101-01-01T12:00")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("main")).to_contain_text("due 1 Jan 2101, 12:00")
    page.get_by_role("link", name="Week 3").click()
    expect(page.get_by_label("Due")).to_have_value("2101-01-01T12:00")
    number = page.url.rpartition("/")[2]

    content = zlib.compress((ROOT / "notebooks" / "exercises" / "05_loss.ipynb").read_bytes())
    path = f"/hub/api/users/paul/assignments/{number}/05_loss"
    learners["paul"].api("PUT", path, data=content).raise_for_status()
    page.reload()
    row = page.get_by_role("row", name=re.compile("^paul"))
    expect(row.get_by_role("cell").get_by_role("link")).to_have_count(1)
    instructor.look("Week 3")
    page.get_by_text("Grade on your own computer").click()
    instructor.look("Week 3")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the submissions").click()
    assert download.value.suggested_filename == "Week-3.zip"

    digest = hashlib.sha256(zlib.decompress(content)).hexdigest()[:8]
    notebook = f"Week-3/paul/05_loss.{digest}.ipynb"
    table = f"submission,lesson,exercise,right,says\n{notebook},05_loss,guess,1,\n"
    table += f"{notebook},05_loss,object,0,Which loss fits a model that returns logits?\n"
    file = {"name": "grades.csv", "mimeType": "text/csv", "buffer": table.encode()}
    page.get_by_label("Upload the file grades.csv").set_input_files(file)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Notebooks with new grades: 1.")
    expect(page.get_by_role("row", name=re.compile("^paul"))).to_contain_text("1 of 3 right")
    instructor.look("Week 3")
    page.get_by_role("link", name="paul").click()
    expect(page.get_by_text("Which loss fits a model that returns logits?")).to_be_visible()
    instructor.look("paul, Week 3")
    page.get_by_label("Your comment on lesson 05").fill("Try it on one image.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Week 3")
    page.get_by_role("link", name="paul").click()
    expect(page.get_by_label("Your comment on lesson 05")).to_have_value("Try it on one image.")
    page.go_back()

    instructor.tab_to("button", "Grade all again")
    instructor.press("Enter")
    expect(page.get_by_role("progressbar")).to_be_visible()
    instructor.look("Week 3")
    # The page shows the grades when they are there. The untouched notebook has no right answer.
    row = page.get_by_role("row", name=re.compile("^paul"))
    expect(row).to_contain_text("0 of 3 right", timeout=120_000)
    instructor.tab_to("button", "Give back")
    instructor.press("Enter")
    expect(page.get_by_text("Learners can see their grades")).to_be_visible()
    instructor.look("Week 3")

    form = {"due_utc": "2999-01-01T00:00Z", "_xsrf": xsrf(page)}
    page.request.post(f"{hub.url}/hub/assignments/{number}", form=form)
    page.reload()
    expect(page.get_by_role("main")).to_contain_text("Due 1 Jan 2999")
    page.get_by_label("enter its title").fill("Week 3")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There are no assignments yet.")).to_be_visible()


def xsrf(page: Page) -> str:
    """Return the token in the page's forms."""
    return page.locator("input[name=_xsrf]").first.get_attribute("value")


def test_a_learner_sees_what_was_taken(student, learners, class_hub):
    page = student.page
    session = class_hub.login("instructor", class_hub.admin_password).session
    form = {"title": "Week 4", "lesson": ["05_loss", "06_compile_and_fit"]}
    form["due_utc"] = "2101-01-01T12:00Z"
    post(session, f"{class_hub.url}/hub/assignments", data=form).raise_for_status()
    (given,) = learners["olga"].api("GET", "/hub/api/users/olga/assignments").json()
    number = given["id"]
    content = zlib.compress((ROOT / "notebooks" / "exercises" / "05_loss.ipynb").read_bytes())
    path = f"/hub/api/users/olga/assignments/{number}/05_loss"
    learners["olga"].api("PUT", path, data=content).raise_for_status()
    student.visit("/hub/login?next=/hub/assignments")
    student.log_in("olga", PASSWORD)
    expect(page.get_by_text("Lesson 06: not handed in")).to_be_visible()
    expect(page.get_by_role("button", name="Create")).to_have_count(0)
    student.look("Assignments")
    with page.expect_download() as download:
        page.get_by_role("link", name="handed in").click()
    assert download.value.suggested_filename == "05_loss.ipynb"
