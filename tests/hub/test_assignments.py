"""Test assignments: creating them, handing in notebooks, and who may see submissions."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import csv
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import jinja2
import psutil
import pytest
import requests
from classroom import (
    NOTEBOOK,
    give_back,
    give_point,
    hand_in,
    later,
    new_class,
    opened,
    result_of,
    solved,
    submit,
    table,
    text,
    upload_grades,
    with_teacher,
)
from hubs import ROOT, ClassLearner, Learner, post, run_cell, wait_until
from jupyterhub import orm
from jupyterhub.utils import utcnow
from sqlalchemy import event

from tfcourse.exercises import SOLUTIONS
from tfcourse.hub.classroom import assignments, grades, submissions
from tfcourse.hub.tables import Assignment, Submission

# A learner's server imports the modules in this folder.
sys.path.append(str(ROOT / "tfcourse" / "prefix" / "share" / "tensorflow-course"))

import course_hand_in
import course_hub

# --- The rules


@pytest.fixture
def class_():
    with new_class() as found:
        yield found


def test_lessons_keep_the_order_of_the_course(class_):
    found = submissions.create(
        class_.db, "  Two\nlessons ", ["05_loss", "02_load_data"], later(hours=1)
    )
    assert (found.title, found.lessons) == ("Two lessons", "02_load_data 05_loss")


@pytest.mark.parametrize(
    ("title", "lessons", "due", "says"),
    [
        ("", ["05_loss"], "+1", "title"),
        ("a" * 101, ["05_loss"], "+1", "title"),
        ("a\x1b[2J", ["05_loss"], "+1", "title"),
        ("Week", [], "+1", "lesson"),
        ("Week", ["99_unknown"], "+1", "lesson"),
        ("Week", ["05_loss", "../../etc"], "+1", "lesson"),
        ("Week", ["05_loss"], "", "date"),
        ("Week", ["05_loss"], "tomorrow", "date"),
        ("Week", ["05_loss"], "0001-01-01T00:00:00+14:00", "date"),
        ("Week", ["05_loss"], "-1", "passed"),
        ("Week", ["05_loss"], "1999-12-31T23:59", "passed"),
    ],
)
def test_an_invalid_assignment_is_refused_with_a_message(class_, title, lessons, due, says):
    due = {"+1": later(days=1), "-1": later(seconds=-1)}.get(due, due)
    with pytest.raises(submissions.RefusedError, match=says):
        submissions.create(class_.db, title, lessons, due)
    assert class_.db.query(Assignment).count() == 1


def test_a_time_with_an_offset_is_converted():
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    there = due.astimezone(tz=datetime.fromisoformat("2026-01-01T00:00+05:30").tzinfo)
    assert submissions.future(there.isoformat()) == due.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("upload", "says"),
    [
        (b"", "not complete"),
        (b"no zlib", "damaged"),
        (zlib.compress(NOTEBOOK)[:-9], "not complete"),
        (zlib.compress(NOTEBOOK) + b"more", "not complete"),
        (zlib.compress(b" " * 2**28), "larger than 10 MB"),
        (zlib.compress(b" " * (10**7 + 1)), "larger than 10 MB"),
        (zlib.compress(b"text"), "not a notebook"),
        (zlib.compress(b"[]"), "not a notebook"),
        (zlib.compress(b"{}"), "not a notebook"),
        (zlib.compress(b'{"cells": 3}'), "not a notebook"),
        (zlib.compress(b"[" * 10**6), "too complex"),
        (zlib.compress(b"[" * 10**5), "not a notebook"),
        (zlib.compress(b'{"cells": "\xff"}'), "not a notebook"),
    ],
    ids=[
        "empty",
        "other",
        "cut",
        "longer",
        "bomb",
        "byte",
        "text",
        "list",
        "dict",
        "number",
        "complex",
        "deep",
        "bytes",
    ],
)
def test_an_upload_without_a_complete_notebook_is_refused(upload, says):
    with pytest.raises(submissions.RefusedError, match=says):
        submissions.checked(upload)


def test_a_notebook_is_stored_unchanged(class_):
    upload = submissions.checked(zlib.compress(NOTEBOOK))
    stored = submissions.store(class_.db, class_.assignment, class_.ada, "05_loss", upload)
    assert zlib.decompress(stored.content) == NOTEBOOK
    assert stored.size == len(NOTEBOOK)


def contents(class_) -> list[bytes]:
    rows = class_.db.query(Submission).order_by(Submission.id)
    return [zlib.decompress(each.content) for each in rows]


def test_the_last_submission_and_the_last_one_on_time_are_kept(class_):
    for number in range(3):
        hand_in(class_, b"on time %d" % number)
    assert contents(class_) == [b"on time 2"]
    class_.assignment.due = utcnow(with_tz=False) - timedelta(minutes=1)
    for each in class_.db.query(Submission):
        each.when -= timedelta(minutes=2)
    class_.db.commit()
    for number in range(3):
        hand_in(class_, b"late %d" % number)
    assert contents(class_) == [b"on time 2", b"late 2"]


def test_submissions_are_deleted_with_their_learner_or_assignment(class_):
    hand_in(class_, NOTEBOOK)
    class_.db.delete(class_.ada)
    class_.db.commit()
    assert contents(class_) == []
    class_.db.add(orm.User(name="ada"))
    class_.db.commit()
    class_.ada = orm.User.find(class_.db, "ada")
    hand_in(class_, NOTEBOOK)
    class_.db.delete(class_.assignment)
    class_.db.commit()
    assert contents(class_) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Week 3", "Week-3"),
        ("../../etc/passwd", "etc-passwd"),
        ("Übung: 1/2", "Übung-1-2"),
        ("..", "untitled"),
    ],
)
def test_paths_in_the_archive_cannot_lead_out_of_it(text, name):
    assert submissions.file_name(text) == name


def test_a_small_upload_does_not_become_a_large_structure():
    bomb = zlib.compress(b'{"cells":[' + b'{"":0},' * (10**7 // 7 - 10) + b"0]}")
    assert len(bomb) < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(submissions.RefusedError, match="too complex"):
            submissions.checked(bomb)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_our_own_notebooks_are_not_too_complex(path):
    content = path.read_bytes()
    values = sum(map(content.count, (b"[", b"{", b",", b":")))
    assert values < submissions.MOST_VALUES / 10
    submissions.checked(zlib.compress(content))


def test_all_of_a_learners_submissions_have_a_limit(class_, monkeypatch):
    hand_in(class_, NOTEBOOK)
    monkeypatch.setattr(submissions, "QUOTA", 3 * len(zlib.compress(NOTEBOOK)) // 2)
    with pytest.raises(submissions.RefusedError, match="together would take up more"):
        hand_in(class_, NOTEBOOK + b" ")
    assert contents(class_) == [NOTEBOOK], "the earlier submission is kept"


def test_similar_names_have_different_folders_even_on_windows():
    users = [
        orm.User(id=n, name=name) for n, name in enumerate(["anna", "anna.", "anna-", "anna_"])
    ]
    folders = {submissions.folder_of(user).rstrip(". ") for user in users}
    assert len(folders) == 4


# --- The command


GIVEN = [
    {
        "id": 1,
        "title": "Old",
        "due": "2026-01-01T00:00:00+00:00",
        "late": True,
        "lessons": {"05_loss": None},
    },
    {
        "id": 2,
        "title": "Week 3",
        "due": later(days=1),
        "late": False,
        "lessons": {"05_loss": None, "04_logits_and_softmax": None},
    },
    {"id": 3, "title": "Week 4", "due": later(days=8), "late": False, "lessons": {"05_loss": None}},
]
RECEIPT = {
    "when": "2026-12-01T12:00:00+00:00",
    "late": False,
    "size": 48_213,
    "digest": "ab12cd34ef",
}


@pytest.fixture
def asked(monkeypatch) -> list:
    """Record the requests to a stand-in for the hub, which responds with a receipt."""
    found = []

    def ask(path, body=None, method=None, seconds=0):
        found.append((method, path, body))
        return RECEIPT

    monkeypatch.setattr(course_hub, "ask", ask)
    return found


@pytest.fixture
def exercise(tmp_path) -> Path:
    """Return a copy of a notebook with exercises."""
    path = tmp_path / "05_loss-Copy1.ipynb"
    path.write_bytes(NOTEBOOK)
    return path


def test_a_notebook_goes_to_the_assignment_that_is_due_next(asked, exercise):
    said = course_hand_in.hand_in(exercise, GIVEN)
    ((method, path, body),) = asked
    assert (method, path, zlib.decompress(body)) == ("PUT", "assignments/2/05_loss", NOTEBOOK)
    assert said.startswith("05_loss-Copy1.ipynb was handed in for “Week 3” on 1 December at ")
    assert said.endswith("(48 kB, receipt ab12cd34).")


def test_if_all_deadlines_have_passed_it_goes_to_the_last_assignment(asked, exercise):
    course_hand_in.hand_in(exercise, [{**each, "late": True} for each in GIVEN])
    assert asked[0][1] == "assignments/3/05_loss"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("06_compile_and_fit.ipynb", NOTEBOOK, "No assignment includes"),
        ("my own.ipynb", NOTEBOOK, "No assignment includes"),
        ("05_loss.ipynb", None, "does not exist"),
        ("nothing.ipynb", None, "does not exist"),
        ("05_loss.ipynb", (ROOT / "notebooks" / "05_loss.ipynb").read_bytes(), "has no exercises"),
        ("05_loss.ipynb", b"text", "is not a notebook"),
        ("05_loss.ipynb", b" " * (10**7 + 1), "larger than 10 MB"),
    ],
)
def test_the_command_says_why_nothing_was_handed_in(asked, tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(course_hand_in.NotHandedInError, match=says):
        course_hand_in.hand_in(path, GIVEN)
    assert asked == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            HTTPError("", 429, "", {}, io.BytesIO(b'{"message": "Wait."}')),
            "05_loss-Copy1.ipynb was not handed in. Wait.",
        ),
        (HTTPError("", 503, "", {}, io.BytesIO(b"<html>")), "The hub sent error 503"),
        (OSError("refused"), "Your notebook may not have been handed in"),
        (TimeoutError(), "Your notebook may not have been handed in"),
        (ValueError("cut off"), "Your notebook may not have been handed in"),
    ],
)
def test_if_the_hub_fails_the_learner_reads_that_nothing_was_handed_in(
    monkeypatch, exercise, error, says
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(course_hub, "ask", fail)
    with pytest.raises(course_hand_in.NotHandedInError, match=says):
        course_hand_in.hand_in(exercise, GIVEN)


# --- On a hub


@pytest.fixture(scope="module")
def hub(make_hub):
    return with_teacher(make_hub())


@pytest.fixture(scope="module")
def assignment(hub) -> int:
    """Create an assignment for lesson 05; return its number."""
    return opened(hub, hub.teacher, "Week 3 <b>", "05_loss")


def archive(hub, session: requests.Session, number: int) -> dict[str, bytes]:
    """Return the files in an assignment's archive."""
    response = session.get(f"{hub.url}/hub/assignments/{number}/all.zip", timeout=60)
    response.raise_for_status()
    with zipfile.ZipFile(io.BytesIO(response.content)) as found:
        assert found.testzip() is None
        return {name: found.read(name) for name in found.namelist()}


def handed_in(hub, session: requests.Session, number: int) -> dict[str, bytes]:
    """Return what each learner has handed in."""
    return {name.split("/")[1]: file for name, file in archive(hub, session, number).items()}


def test_from_an_assignment_to_the_archive(hub, assignment):
    ada = Learner(hub, "ada")
    ada.start_server()
    kernel = ada.start_kernel()
    command = "import subprocess; print(subprocess.getoutput('cd tensorflow-course; hand-in {}'))"
    assert "05_loss: not handed in" in run_cell(ada, kernel, command.format(""))
    said = run_cell(
        ada, kernel, command.format("exercises/05_loss.ipynb exercises/06_compile_and_fit.ipynb")
    )
    assert "05_loss.ipynb was handed in for “Week 3 <b>”" in said
    assert "No assignment includes 06_compile_and_fit.ipynb" in said
    assert "05_loss: handed in on" in run_cell(ada, kernel, command.format(""))
    assert handed_in(hub, hub.teacher, assignment)["ada"] == NOTEBOOK
    page = ada.session.get(f"{hub.url}/hub/assignments").text
    assert "Week 3 &lt;b&gt;" in page
    mine = re.search(r"/hub/submissions/\d+", page)[0]
    download = ada.session.get(hub.url + mine)
    assert download.content == NOTEBOOK
    assert "attachment" in download.headers["Content-Disposition"]
    ada.stop_server()


def test_only_instructors_can_see_the_submissions_of_others(hub, assignment):
    bob, cy = Learner(hub, "bob"), Learner(hub, "cy")
    assert submit(bob, assignment).status_code == 201
    page = bob.session.get(f"{hub.url}/hub/assignments").text
    mine = hub.url + re.search(r"/hub/submissions/\d+", page)[0]
    assert bob.session.get(mine).ok
    assert cy.session.get(mine).status_code == 404
    assert 'filename="05_loss.ipynb"' in bob.session.get(mine).headers["Content-Disposition"]
    theirs = hub.teacher.get(mine)
    assert theirs.content == NOTEBOOK
    assert 'filename="bob-05_loss.ipynb"' in theirs.headers["Content-Disposition"]
    for path in (f"assignments/{assignment}", f"assignments/{assignment}/all.zip"):
        assert cy.session.get(f"{hub.url}/hub/{path}").status_code == 403
    form = {"title": "Mine", "lesson": "05_loss", "due_utc": later(days=1)}
    assert post(cy.session, f"{hub.url}/hub/assignments", data=form).status_code == 403
    form = {"delete": "yes", "title": "Week 3 <b>"}
    url = f"{hub.url}/hub/assignments/{assignment}"
    assert post(cy.session, url, data=form).status_code == 403


def test_nobody_can_hand_in_for_another_learner(hub, assignment):
    dora = Learner(hub, "dora")
    for victim in ("ada", "teacher", "nobody"):
        assert submit(dora, assignment, to=victim).status_code in (403, 404)
    assert dora.api("GET", "/hub/api/users/ada/assignments").status_code in (403, 404)
    url = f"{hub.url}/hub/api/users/dora/assignments/{assignment}/05_loss"
    assert requests.put(url, data=zlib.compress(NOTEBOOK), timeout=30).status_code == 403


@pytest.mark.parametrize("where", ["999/05_loss", "{}/06_compile_and_fit", "{}/..%2f..%2fetc"])
def test_handing_in_for_an_unknown_assignment_or_lesson_is_refused(hub, assignment, where):
    eve = Learner(hub, "eve")
    path = f"/hub/api/users/eve/assignments/{where.format(assignment)}"
    assert eve.api("PUT", path, data=zlib.compress(NOTEBOOK)).status_code == 404
    assert submit(eve, assignment).status_code == 201, "the next upload can begin"


def test_a_notebook_that_is_too_large_is_refused(hub, assignment):
    fred = Learner(hub, "fred")
    bomb = submit(fred, assignment, b" " * 2**28)
    assert (bomb.status_code, "larger than 10 MB" in bomb.json()["message"]) == (400, True)
    noise = {"data": os.urandom(9 * 2**20)}
    path = f"/hub/api/users/fred/assignments/{assignment}/05_loss"
    assert fred.api("PUT", path, **noise).status_code in (400, 413, 503)
    assert submit(fred, assignment).status_code == 201, "the next upload can begin"


def test_an_upload_that_is_cut_off_does_not_block_the_next_one(hub, assignment):
    gina = Learner(hub, "gina")
    assert submit(gina, assignment).status_code == 201
    content = zlib.compress(NOTEBOOK.replace(b"loss", b"loss and more"))
    for _ in range(12):  # more than may upload at the same time
        with socket.create_connection(("127.0.0.1", hub.port)) as connection:
            head = (
                f"PUT /hub/api/users/gina/assignments/{assignment}/05_loss HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{hub.port}\r\nAuthorization: token {gina.token}\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            connection.sendall(head.encode() + content[: len(content) // 2])
    wait_until(lambda: submit(gina, assignment, NOTEBOOK + b"\n").status_code == 201, "again", 30)
    assert handed_in(hub, hub.teacher, assignment)["gina"] == NOTEBOOK + b"\n"


def test_handing_in_too_often_is_refused(hub, assignment):
    hal = Learner(hub, "hal")
    codes = [submit(hal, assignment).status_code for _ in range(32)]
    assert codes[0] == 201
    assert codes[-1] == 429


def test_who_waits_for_a_turn_is_not_late(hub):
    """The deadline passes while the notebook is on its way."""
    nora, content = Learner(hub, "nora"), zlib.compress(NOTEBOOK)
    due = datetime.now(UTC) + timedelta(seconds=10)
    form = {"title": "Now", "lesson": "05_loss", "due_utc": due.isoformat()}
    page = post(hub.teacher, f"{hub.url}/hub/assignments", data=form)
    number = int(re.findall(r'/hub/assignments/(\d+)"[^>]*>Now', page.text)[0])

    def slowly():
        yield content[:10]
        wait_until(lambda: datetime.now(UTC) > due, "the deadline has passed")
        yield content[10:]

    path = f"/hub/api/users/nora/assignments/{number}/05_loss"
    assert nora.api("PUT", path, data=slowly()).json()["late"] is False
    late = NOTEBOOK + b"\n"
    assert submit(nora, number, late).json()["late"] is True

    # By default, the late notebook counts.
    assert handed_in(hub, hub.teacher, number) == {"nora": late}
    url = f"{hub.url}/hub/assignments/{number}"
    post(hub.teacher, f"{url}/of/nora", data={"comment-05_loss": "See me."}).raise_for_status()
    page = post(hub.teacher, f"{url}/late", data={"counts": "on time"})
    assert "late, does not count" in text(page.text)
    assert handed_in(hub, hub.teacher, number) == {"nora": NOTEBOOK}
    assert "See me." in hub.teacher.get(f"{url}/of/nora").text
    mine = nora.session.get(f"{hub.url}/hub/assignments").text
    assert re.search("another notebook , handed in [^.]* late, does not count", text(mine))
    (given,) = [
        each
        for each in nora.api("GET", "/hub/api/users/nora/assignments").json()
        if each["id"] == number
    ]
    said = list(course_hand_in.status([given]))
    assert said[1].startswith("  05_loss: handed in on ")
    assert ", late" not in said[1]
    assert re.fullmatch("    another notebook, handed in on .*, late .*, does not count", said[2])
    page = post(hub.teacher, f"{url}/late", data={"counts": "late"})
    assert "on time, does not count" in text(page.text)
    assert handed_in(hub, hub.teacher, number) == {"nora": late}

    # After a later deadline, both are on time, so there is nothing to choose.
    assert "Count the notebooks that were on time" in page.text
    page = post(hub.teacher, url, data={"due_utc": later(days=1)})
    assert "Count the" not in page.text


def test_downloads_that_nobody_reads_use_no_memory(hub, assignment):
    olaf = Learner(hub, "olaf")
    assert submit(olaf, assignment, NOTEBOOK + b" " * (9 * 2**20)).status_code == 201
    page = olaf.session.get(f"{hub.url}/hub/assignments").text
    # Ask the hub directly, because the proxy would keep a part of each download.
    path = re.search(r"/hub/submissions/\d+", page)[0]
    url = f"http://127.0.0.1:{hub.port + 1}{path}"
    before = psutil.Process(hub.process.pid).memory_info().rss
    with contextlib.ExitStack() as open_ones:
        found = [
            open_ones.enter_context(olaf.session.get(url, stream=True, timeout=30)).status_code
            for _ in range(8)
        ]
        assert found == [200] * 4 + [429] * 4
        assert psutil.Process(hub.process.pid).memory_info().rss < before + 40 * 2**20
    wait_until(lambda: olaf.session.get(url).ok, "the next download can begin", 30)
    assert len(olaf.session.get(url).content) == len(NOTEBOOK) + 9 * 2**20


def test_an_archive_is_whole_although_learners_hand_in_meanwhile(hub):
    number = opened(hub, hub.teacher, "Busy", "05_loss")
    learners = [Learner(hub, name) for name in ("pia", "pia-", "rob")]
    for each in learners:
        submit(each, number)
    url = f"{hub.url}/hub/assignments/{number}/all.zip"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        again = [pool.submit(submit, each, number, NOTEBOOK + b"\n") for each in learners]
        archives = [pool.submit(hub.teacher.get, url, timeout=60) for _ in range(5)]
    assert all(each.result().status_code == 201 for each in again)
    for each in archives:
        with zipfile.ZipFile(io.BytesIO(each.result().content)) as found:
            assert found.testzip() is None
            assert len(set(found.namelist())) == 3


def noisy(size: int) -> bytes:
    """Return a notebook that contains this many random bytes, which cannot be compressed."""
    noise = base64.b64encode(os.urandom(size))
    return NOTEBOOK.rstrip().removesuffix(b"}") + b',"noise":"' + noise + b'"}'


def test_a_notebook_that_is_replaced_during_the_download_is_in_the_archive(hub):
    number = opened(hub, hub.teacher, "Slow", "05_loss")
    for name in ("xa", "xb", "xc"):  # together, they are larger than what waits on a connection
        assert submit(Learner(hub, name), number, noisy(7 * 10**6)).status_code == 201
    last = Learner(hub, "xd")
    submit(last, number)
    # Ask the hub directly, because the proxy would keep a part of the archive.
    url = f"http://127.0.0.1:{hub.port + 1}/hub/assignments/{number}/all.zip"
    with hub.teacher.get(url, stream=True, timeout=60) as response:
        assert submit(last, number, NOTEBOOK + b"\n").status_code == 201
        with zipfile.ZipFile(io.BytesIO(response.content)) as found:
            (path,) = [name for name in found.namelist() if name.startswith("Slow/xd/")]
            assert found.read(path) == NOTEBOOK + b"\n"


def test_a_refused_form_keeps_the_entered_values(hub):
    form = {"title": "Week 9", "lesson": ["05_loss"], "due_utc": later(hours=-1)}
    form["due"] = "2001-01-01T12:00"
    page = post(hub.teacher, f"{hub.url}/hub/assignments", data=form)
    assert page.status_code == 400
    assert "That time has passed" in page.text
    assert 'value="Week 9"' in page.text
    assert 'value="2001-01-01T12:00"' in page.text
    assert re.search(r'value="05_loss"\s+checked', page.text)


def test_an_instructor_changes_the_deadline_and_deletes_the_assignment(hub):
    number = opened(hub, hub.teacher, "Short", "05_loss")
    ida = Learner(hub, "ida")
    submit(ida, number)
    url = f"{hub.url}/hub/assignments/{number}"
    assert "time has passed" in post(hub.teacher, url, data={"due_utc": later(days=-1)}).text
    assert post(hub.teacher, url, data={"due_utc": later(days=1)}).ok
    assert post(hub.teacher, url, data={"delete": "yes", "title": "Shirt"}).status_code == 400
    assert "Short" not in post(hub.teacher, url, data={"delete": "yes", "title": "Short"}).text
    assert hub.teacher.get(url).status_code == 404
    assert submit(ida, number).status_code == 404


def grade(folder: Path) -> bytes:
    """Grade a folder as `make grade` does; return the table."""
    command = [sys.executable, "-m", "tfcourse.grading", "--no-docker", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return (folder / "grades.csv").read_bytes()


def test_grades_and_comments_come_back_to_the_learner(hub, tmp_path):
    number = opened(hub, hub.teacher, "Graded", "05_loss")
    jo, kim = Learner(hub, "jo"), Learner(hub, "kim")
    assert submit(jo, number, solved("guess", "entropy")).status_code == 201
    assert submit(kim, number, NOTEBOOK.replace(b"...", b"1 / 0")).status_code == 201
    response = hub.teacher.get(f"{hub.url}/hub/assignments/{number}/all.zip")
    zipfile.ZipFile(io.BytesIO(response.content)).extractall(tmp_path)
    table = grade(tmp_path)
    assert "Notebooks with new grades: 2." in upload_grades(hub, number, table).text
    overview = text(hub.teacher.get(f"{hub.url}/hub/assignments/{number}").text)
    assert "2 of 3 right" in overview
    page = f"{hub.url}/hub/assignments/{number}/of/jo"
    assert "2 of 3 right" in text(hub.teacher.get(page).text)
    comment = "Well done. <i>Why</i> does the mean matter?"
    assert post(hub.teacher, page, data={"comment-05_loss": comment}).ok
    before = jo.session.get(f"{hub.url}/hub/assignments").text
    assert "of 3 right" not in before
    assert "Well done" not in before
    assert "Well done" not in jo.api("GET", "/hub/api/users/jo/assignments").text
    give_back(hub, number)
    mine = jo.session.get(f"{hub.url}/hub/assignments").text
    assert "2 of 3 right" in text(mine)
    assert "Change one thing: a loss that fits the model: " in text(mine)
    (given,) = [
        each
        for each in jo.api("GET", "/hub/api/users/jo/assignments").json()
        if each["id"] == number
    ]
    said = "\n".join(course_hand_in.status([given]))
    assert "    2 of 3 right\n    1. Predict a loss: right\n" in said
    assert said.endswith(f"    {comment}")
    assert "Well done. &lt;i&gt;Why&lt;/i&gt;" in mine
    theirs = kim.session.get(f"{hub.url}/hub/assignments").text
    assert "0 of 3 right" in text(theirs)
    assert "ZeroDivisionError" in theirs
    assert "Well done" not in theirs
    grades = hub.teacher.get(f"{hub.url}/hub/assignments/{number}/grades.csv")
    rows = list(csv.DictReader(io.StringIO(grades.content.decode("utf-8-sig"))))
    assert [(row["username"], row["05_loss"], row["total"]) for row in rows] == [
        ("jo", "2", "2"),
        ("kim", "0", "0"),
    ]
    assert rows[0]["comment"] == comment

    # A grade belongs to a notebook. After the learner has handed in another one, it does not count.
    assert submit(jo, number, solved("guess")).status_code == 201
    assert "2 of 3 right" not in text(jo.session.get(f"{hub.url}/hub/assignments").text)
    again = text(upload_grades(hub, number, table).text)
    assert "Notebooks with new grades: 1." in again
    assert "Notebooks in the table that were ignored: 1." in again
    give_back(hub, number, hide="yes")
    assert "of 3 right" not in kim.session.get(f"{hub.url}/hub/assignments").text


def test_an_assignment_of_several_lessons_has_totals(hub):
    number = opened(hub, hub.teacher, "Two", "04_logits_and_softmax", "05_loss")
    tom = Learner(hub, "tom")
    submit(tom, number)
    url = f"{hub.url}/hub/assignments/{number}"
    assert "of 6 right" not in text(hub.teacher.get(url).text), "not graded yet"
    path = grades.path_in_archive(
        orm.User(name="tom"), "05_loss", hashlib.sha256(NOTEBOOK).hexdigest()
    )
    page = text(upload_grades(hub, number, table(f"{path},05_loss,guess,1,")).text)
    assert "1 of 3 right" in page
    assert "1 of 6 right" in page


def test_a_large_notebook_and_a_large_table_arrive(hub, assignment):
    """Both are larger than the hub's other requests may be."""
    sue = Learner(hub, "sue")
    large = noisy(10**6)
    assert len(zlib.compress(large)) > 10**6
    assert submit(sue, assignment, large).status_code == 201
    digest = hashlib.sha256(large).hexdigest()
    row = f"{grades.path_in_archive(orm.User(name='sue'), '05_loss', digest)},05_loss,guess,1,"
    others = ["W/nobody/05_loss.00000000.ipynb,05_loss,guess,0,no"] * 20_000
    content = table(*others, row)
    assert len(content) > 10**6
    assert "Notebooks with new grades: 1." in upload_grades(hub, assignment, content).text
    refused = (400, 413, 503)  # 503: the proxy, because the hub does not read the rest
    assert upload_grades(hub, assignment, b" " * (grades.LARGEST + 1)).status_code in refused
    # From others, the hub does not even read it.
    assert upload_grades(hub, assignment, content, sue.session).status_code in refused


def test_the_button_hands_in_only_notebooks_in_the_learners_home(hub, assignment):
    una = Learner(hub, "una")
    una.start_server()
    outside = hub.state / "homes" / "05_loss.ipynb"
    outside.write_bytes(NOTEBOOK)
    (hub.state / "homes" / "una" / "05_loss.ipynb").symlink_to("/etc/passwd")
    url = "/user/{name}/course/hand-in"
    for path in ("../05_loss.ipynb", str(outside), "a/../../05_loss.ipynb", "..\0", 3, None):
        refused = una.api("POST", url, json={"path": path})
        assert refused.status_code in (400, 404) or "problem" in refused.json(), path
    link = una.api("POST", url, json={"path": "05_loss.ipynb"}).json()
    assert "has no exercises" in link["problem"]
    given = una.api("GET", "/hub/api/users/una/assignments").json()
    assert not any(any(each["lessons"].values()) for each in given)
    una.stop_server()
    outside.unlink()


@pytest.mark.parametrize("page", ["{}/grades.csv", "{}/of/ada"])
def test_only_instructors_see_grades_of_others(hub, assignment, page):
    lea = Learner(hub, "lea")
    url = f"{hub.url}/hub/assignments/{page.format(assignment)}"
    assert lea.session.get(url).status_code == 403
    assert hub.teacher.get(url).ok
    form = {"comment-05_loss": "Very good"}
    own = f"{hub.url}/hub/assignments/{assignment}/of/lea"
    assert post(lea.session, own, data=form).status_code == 403
    table = f"{hub.url}/hub/assignments/{assignment}/grades"
    assert post(lea.session, table, data={}).status_code == 403
    assert hub.teacher.post(table, files={"table": ("grades.csv", b"")}).status_code == 403, (
        "the XSRF token is missing"
    )


@pytest.mark.parametrize(
    "content", [b"", b"text", b"a,b\n1,2\n", b"\xff\xfe\x00", b"PK\x03\x04\x00"]
)
def test_another_file_than_the_graders_table_is_refused(hub, assignment, content):
    response = upload_grades(hub, assignment, content)
    assert response.status_code == 400
    assert "This is not a table of `make grade`" in response.text


def test_equal_notebooks_for_two_lessons_are_told_apart(class_):
    class_.assignment.lessons = "04_logits_and_softmax 05_loss"
    hand_in(class_, NOTEBOOK)
    other = hand_in(class_, NOTEBOOK, "04_logits_and_softmax")
    path = grades.path_in_archive(class_.ada, other.lesson, other.digest)
    rows = table(f"{path},{other.lesson},ratio,1,")
    assert grades.take(class_.db, class_.assignment, rows) == (1, 0)
    result = result_of(class_)
    assert list(result.grades) == ["04_logits_and_softmax"]


def test_the_instructor_decides_whether_a_late_notebook_counts(class_):
    on_time = hand_in(class_, NOTEBOOK)
    give_point(class_, on_time)
    class_.assignment.due = on_time.when
    late = hand_in(class_, NOTEBOOK + b"\n")
    assert class_.db.query(Submission).count() == 2
    for preferred in (None, True, False):
        if preferred is not None:
            grades.prefer_on_time(class_.db, class_.assignment, preferred=preferred)
        counts, other = (on_time, late) if preferred else (late, on_time)
        result = result_of(class_)
        assert (result.submissions, result.others) == ({"05_loss": counts}, {"05_loss": other})
        assert result.total == (1 if preferred else None), "a grade belongs to a notebook"
        row = "ada,1,1,0," if preferred else "ada,,,1,"
        assert row in grades.as_csv(class_.db, class_.assignment)


def test_a_learner_who_was_only_late_has_a_late_notebook_that_counts(class_):
    class_.assignment.due = utcnow(with_tz=False) - timedelta(minutes=1)
    late = hand_in(class_, NOTEBOOK)
    grades.prefer_on_time(class_.db, class_.assignment, preferred=True)
    assert result_of(class_).submissions == {"05_loss": late}
    other = submissions.create(class_.db, "Other", ["05_loss"], later(days=1))
    assert not grades.prefers_on_time(class_.db, other)


def test_a_comment_stays_if_the_learner_hands_in_again(class_):
    hand_in(class_, NOTEBOOK).comment = "Very good."
    assert hand_in(class_, NOTEBOOK + b"\n").comment == "Very good."


def test_an_ungraded_notebook_is_no_zero(class_):
    class_.assignment.lessons = "04_logits_and_softmax 05_loss"
    hand_in(class_, NOTEBOOK, "04_logits_and_softmax")
    graded = hand_in(class_, NOTEBOOK)
    give_point(class_, graded)
    assert "ada,,1,,0," in grades.as_csv(class_.db, class_.assignment)


def test_a_lesson_that_an_upgrade_has_removed_breaks_nothing(class_):
    class_.assignment.lessons = "05_loss 99_gone"
    gone = hand_in(class_, NOTEBOOK, "99_gone")
    path = grades.path_in_archive(class_.ada, gone.lesson, gone.digest)
    rows = table(f"{path},99_gone,,0,no such lesson")
    assert grades.take(class_.db, class_.assignment, rows) == (1, 0)
    grades.give_back(class_.db, class_.assignment, visible=True)
    told = assignments.handed_in(result_of(class_), "99_gone", class_.assignment)
    assert told["feedback"] == [
        "0 of 0 right",
        "The notebook could not be graded: no such lesson",
    ]
    assert "ada,,0,0,0," in grades.as_csv(class_.db, class_.assignment)


@pytest.mark.parametrize(
    ("message", "html"),
    [
        ("Replace the `...`.", "Replace the <code>...</code>."),
        ("`a` and `b`", "<code>a</code> and <code>b</code>"),
        ("`<b>` & ` <i>", "<code>&lt;b&gt;</code> &amp; ` &lt;i&gt;"),
        ("", ""),
    ],
)
def test_a_message_shows_code_and_no_markup(message, html):
    folder = ROOT / "tfcourse" / "hub" / "front" / "templates"
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    assert templates.get_template("code.html").module.with_code(message) == html


def test_the_number_of_queries_does_not_depend_on_the_number_of_assignments(class_):
    statements = []
    engine = class_.db.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    counts = set()
    for number in range(1, 5):
        class_.assignment = submissions.create(class_.db, f"{number}", ["05_loss"], later(days=1))
        hand_in(class_, NOTEBOOK)
        statements.clear()
        mine = grades.results(class_.db, Submission.user_id == class_.ada.id)
        assert len(mine) == number
        counts.add(len(statements))
    assert len(counts) == 1


def test_rows_that_do_not_fit_are_left_out(class_):
    handed = hand_in(class_, NOTEBOOK)
    path = grades.path_in_archive(class_.ada, handed.lesson, handed.digest)
    rows = table(
        f"folder/{path},05_loss,guess,1,",
        f"folder/{path},05_loss,entropy,0,'=1+1",
        f"folder/{path},05_loss,unknown,1,",
        f"folder/{path},06_compile_and_fit,steps,1,",
        f"folder/{path},06_compile_and_fit,,0,not graded",
        f"{path.replace('ada', 'bob')},05_loss,guess,1,",
        "../../etc/passwd,05_loss,guess,1,",
        "cut off",
    )
    assert grades.take(class_.db, class_.assignment, rows) == (1, 3)
    assert grades.take(class_.db, class_.assignment, rows) == (1, 3), (
        "a second time changes nothing"
    )
    result = result_of(class_)
    found = [(each.exercise, each.right) for each in result.grades["05_loss"]]
    assert (found, result.total) == ([("guess", True), ("entropy", False)], 1)


def test_submissions_survive_a_crash_of_the_hub(new_hub):
    """Kill the hub just after the receipt, and delete the notebook; the hub has its copy."""
    hub = new_hub()
    hub.up(COURSE_SIGNUP="open")
    hub.admit = hub.sign_up
    instructor = hub.login("instructor", hub.admin_password).session
    number = opened(hub, instructor, "Week 3", "05_loss")
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    said = ada.run("sh", "-c", "cd tensorflow-course && hand-in exercises/05_loss.ipynb")
    assert "was handed in for “Week 3”" in said
    hub.container("hub").kill()
    ada.run("rm", "-r", "tensorflow-course/exercises")
    away = ada.run("sh", "-c", "hand-in 2>&1; true")
    assert "nothing was handed in" in away
    hub.container("hub").start()
    wait_until(hub.answers, "the hub answers again")
    assert handed_in(hub, instructor, number)["ada"] == NOTEBOOK
