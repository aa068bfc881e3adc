"""Create assignments, hand in notebooks, and give grades back, as the tests of the hub need it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import nbformat
import requests
from hubs import Hub, Learner, post
from jupyterhub import orm

from tfcourse.exercises import SOLUTIONS
from tfcourse.grading import grader
from tfcourse.hub.classroom import course, grades, submissions
from tfcourse.hub.tables import Submission

NOTEBOOK = (course.EXERCISES / "05_loss.ipynb").read_bytes()


@contextlib.contextmanager
def new_class() -> Iterator[SimpleNamespace]:
    """Return a database session with a learner and an assignment."""
    db = orm.new_session_factory("sqlite:///:memory:")()
    db.add(orm.User(name="ada"))
    db.commit()
    assignment = submissions.create(db, "Week 3", ["05_loss"], later(days=7))
    yield SimpleNamespace(db=db, ada=orm.User.find(db, "ada"), assignment=assignment)
    db.close()


def with_teacher(hub: Hub) -> Hub:
    """Start a hub like the one that `make hub` starts, with a teacher as its administrator."""
    said = hub.start(COURSE_ADMIN="teacher")
    password = re.search(r"Admin +teacher, password (\S+)", said)[1]
    hub.teacher = hub.login("teacher", password).session
    return hub


def later(**delta: float) -> str:
    """Return a time in the future, as the form sends it."""
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def result_of(class_) -> grades.Result:
    """Return what ada has handed in for the assignment, with its grades."""
    this = Submission.assignment_id == class_.assignment.id
    return grades.results(class_.db, this)[class_.assignment.id, class_.ada.id]


def packed(content: bytes) -> submissions.Upload:
    digest = hashlib.sha256(content).hexdigest()
    return submissions.Upload(zlib.compress(content), len(content), digest)


def hand_in(class_, content: bytes, lesson: str = "05_loss") -> Submission:
    return submissions.store(class_.db, class_.assignment, class_.ada, lesson, packed(content))


def table(*rows: str) -> bytes:
    """Return a table like those that the grader writes."""
    return "\n".join([",".join(grader.COLUMNS), *rows]).encode()


def give_point(class_, submission: Submission) -> None:
    """Store a grade in which one answer is right."""
    path = grades.path_in_archive(class_.ada, submission.lesson, submission.digest)
    rows = table(f"{path},{submission.lesson},guess,1,")
    assert grades.take(class_.db, class_.assignment, rows) == (1, 0)


def opened(hub, session: requests.Session, title: str, *lessons: str) -> int:
    form = {"title": title, "lesson": lessons, "due_utc": later(days=7)}
    page = post(session, f"{hub.url}/hub/assignments", data=form)
    assert page.ok, page.text
    return int(re.findall(r'/hub/assignments/(\d+)"', page.text)[0])


def submit(learner: Learner, number: int, content: bytes = NOTEBOOK, to: str = "", **options):
    path = f"/hub/api/users/{to or learner.name}/assignments/{number}/05_loss"
    return learner.api("PUT", path, data=zlib.compress(content), **options)


def solved(*exercises: str) -> bytes:
    """Return the notebook of lesson 05 with some exercises solved."""
    notebook = nbformat.reads(NOTEBOOK.decode(), 4)
    solutions = nbformat.read(SOLUTIONS / "05_loss.ipynb", 4)
    answers = {cell.id: cell.source for cell in solutions.cells}
    for cell in notebook.cells:
        if cell.id.removesuffix("-answer") in exercises:
            cell.source = answers[cell.id]
    return nbformat.writes(notebook).encode()


def upload_grades(
    hub, number: int, content: bytes, session: requests.Session | None = None
) -> requests.Response:
    session = session or hub.teacher
    xsrf = {"_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    files = {"table": ("grades.csv", content)}
    return session.post(
        f"{hub.url}/hub/assignments/{number}/grades", params=xsrf, files=files, timeout=60
    )


def give_back(hub, number: int, **form: str) -> None:
    assert post(hub.teacher, f"{hub.url}/hub/assignments/{number}/return", data=form).ok


def text(page: str) -> str:
    """Return a page's text in one line."""
    return " ".join(re.sub("<.*?>", " ", page).split())
