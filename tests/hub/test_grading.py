"""Test grading on the hub, with the course's grader."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from classroom import (
    NOTEBOOK,
    give_back,
    give_point,
    hand_in,
    new_class,
    opened,
    packed,
    result_of,
    solved,
    submit,
    table,
    text,
    with_teacher,
)
from hubs import IMAGE, ClassLearner, Learner, post, wait_until
from jupyterhub import orm

from tfcourse.hub.classroom import grades, grading, submissions
from tfcourse.hub.tables import Grade, Submission


@pytest.fixture
def class_():
    with new_class() as found:
        yield found


@pytest.fixture(autouse=True)
def no_runs(monkeypatch):
    monkeypatch.setattr(grading, "runs", {})
    monkeypatch.setattr(grading, "TOGETHER", asyncio.Semaphore(2))


def ungraded(class_) -> int:
    """Return the number of notebooks without a grade."""
    this = Submission.assignment_id == class_.assignment.id
    found = grades.results(class_.db, this).values()
    return sum(len(result.submissions.keys() - result.grades.keys()) for result in found)


def graded(class_, notebook: bytes = NOTEBOOK) -> grading.Run:
    """Grade a notebook with the real grader, as the hub does."""
    hand_in(class_, notebook)

    async def run() -> grading.Run:
        grading.start(class_.db, class_.assignment)
        run = grading.runs[class_.assignment.id]
        await run.task
        return run

    return asyncio.run(run())


# --- One assignment


def test_a_notebook_gets_the_graders_verdicts(class_, monkeypatch):
    monkeypatch.setattr(grading, "options", ["--no-docker"])
    run = graded(class_, solved("guess"))
    assert (run.total, run.done, run.problem, run.is_active) == (1, 1, "", False)
    assert result_of(class_).score("05_loss") == "1 of 3 right"
    assert ungraded(class_) == 0


def test_a_grader_that_cannot_run_says_why(class_, monkeypatch):
    monkeypatch.setattr(grading, "options", ["--docker", "--image=no-such-image:none"])
    run = graded(class_)
    assert run.problem.startswith("--docker: ")
    assert (run.total, run.done, run.is_active) == (1, 0, False)
    assert result_of(class_).grades == {}


def test_stopping_ends_the_graders_processes(class_, monkeypatch):
    monkeypatch.setattr(grading, "options", ["--no-docker"])
    hand_in(class_, NOTEBOOK.replace(b"...", b"while True: pass"))

    async def run() -> None:
        before = set(psutil.Process().children(recursive=True))
        grading.start(class_.db, class_.assignment)
        task = grading.runs[class_.assignment.id].task
        started: set[psutil.Process] = set()
        while len(started) < 3 and not task.done():  # the grader, its worker, and a kernel
            await asyncio.sleep(0.1)
            started = set(psutil.Process().children(recursive=True)) - before
        grading.stop(class_.assignment)
        # The notebook itself would run for ten minutes.
        await asyncio.wait({task}, timeout=60)
        assert len(started) >= 3
        assert psutil.wait_procs(started, timeout=30)[1] == []

    asyncio.run(run())


def test_a_notebook_of_another_lesson_is_not_graded_again_and_again(class_):
    submission = hand_in(class_, NOTEBOOK)
    path = grades.path_in_archive(class_.ada, "05_loss", submission.digest)
    grades.take(class_.db, class_.assignment, table(f"{path},04_logits_and_softmax,ratio,1,"))
    assert ungraded(class_) == 0
    (verdict,) = result_of(class_).verdicts("05_loss")
    assert verdict == ("The notebook could not be graded", grades.OTHER_LESSON)


@pytest.mark.parametrize("name", ["grades.csv", "progress.json"])
def test_any_user_name_can_be_graded(class_, monkeypatch, name):
    """The grader gives these names to files of its own."""
    monkeypatch.setattr(grading, "options", ["--no-docker"])
    class_.ada.name = name
    class_.db.commit()
    run = graded(class_, b'{"cells": []}')
    assert (run.done, run.problem) == (1, "")
    (verdict,) = result_of(class_).verdicts("05_loss")
    assert "has no answer to any of our exercises" in verdict[1]


def test_a_notebook_that_takes_too_long_does_not_stop_the_others(class_, monkeypatch):
    monkeypatch.setattr(grading, "options", ["--no-docker"])
    monkeypatch.setattr(grading, "TOTAL_SECONDS", 0)
    run = graded(class_)
    assert (run.done, run.problem) == (1, "")
    assert "grading took more than" in result_of(class_).verdicts("05_loss")[0][1]


def test_a_grader_that_crashes_does_not_stop_the_others(class_, monkeypatch):
    monkeypatch.setattr(grading, "options", ["--no-such-option"])
    run = graded(class_)
    assert (run.done, run.problem) == (1, "")
    assert result_of(class_).verdicts("05_loss")[0][1] == "the grader failed"


def test_grades_remain_if_the_grader_cannot_run_again(class_, monkeypatch):
    give_point(class_, hand_in(class_, NOTEBOOK))
    monkeypatch.setattr(grading, "options", ["--docker", "--image=no-such-image:none"])

    async def again() -> None:
        grading.start(class_.db, class_.assignment, again=True)
        await grading.runs[class_.assignment.id].task

    asyncio.run(again())
    assert grading.runs[class_.assignment.id].problem
    assert result_of(class_).total == 1


# --- Several, with a stand-in for the grader that waits until the test lets it go on


@pytest.fixture
def slow(class_, monkeypatch):
    """Return a class of five whose grader waits for an event, and notes what happened."""
    for name in ("ben", "cy", "dee", "eve"):
        class_.db.add(orm.User(name=name))
    class_.db.commit()
    for user in class_.db.query(orm.User):
        notebook = packed(NOTEBOOK + b" " * user.id)
        submissions.store(class_.db, class_.assignment, user, "05_loss", notebook)
    found = SimpleNamespace(class_=class_, running=0, most=0, began=[], ended=0)

    async def run_grader(path: str, packed: bytes) -> bytes:
        found.began.append(path.partition("/")[0])
        found.running += 1
        found.most = max(found.most, found.running)
        try:
            await found.go.wait()
        finally:
            found.running -= 1
        found.ended += 1
        return table(f"{path},05_loss,guess,1,")

    monkeypatch.setattr(grading, "run_grader", run_grader)
    return found


def with_run(slow, do) -> grading.Run:
    """Start grading, call `do` while the first notebooks are graded, and wait for the end."""
    db, assignment = slow.class_.db, slow.class_.assignment

    async def run() -> grading.Run:
        slow.go = asyncio.Event()
        grading.start(db, assignment)
        run = grading.runs[assignment.id]
        while len(slow.began) < 2:
            await asyncio.sleep(0)
        do(db, assignment)
        slow.go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await run.task
        return run

    return asyncio.run(run())


def test_only_a_few_notebooks_are_graded_at_a_time(slow):
    run = with_run(slow, lambda *_: None)
    assert (run.done, run.total, slow.most) == (5, 5, 2)
    assert slow.class_.db.query(Grade).count() == 5


def test_grading_starts_only_once(slow):
    def again(db, assignment) -> None:
        run = grading.runs[assignment.id]
        grading.start(db, assignment, again=True)
        assert grading.runs[assignment.id] is run

    with_run(slow, again)
    assert sorted(slow.began) == ["ada", "ben", "cy", "dee", "eve"]


def test_stopping_ends_the_grader_and_keeps_the_grades(slow):
    run = with_run(slow, lambda db, assignment: grading.stop(assignment))
    assert (slow.running, slow.ended, run.is_active, run.problem) == (0, 0, False, "")
    assert ungraded(slow.class_) == 5


def test_a_notebook_that_is_handed_in_meanwhile_waits(slow):
    def hand_in_again(db, assignment) -> None:
        for name in ("ada", "eve"):  # ada's old notebook is being graded, eve's is next
            user = orm.User.find(db, name)
            submissions.store(db, assignment, user, "05_loss", packed(NOTEBOOK + b"\n"))

    run = with_run(slow, hand_in_again)
    assert run.done == 5
    assert "eve" not in slow.began
    assert ungraded(slow.class_) == 2


def test_an_assignment_that_is_deleted_meanwhile_leaves_nothing(slow):
    def delete(db, assignment) -> None:
        grading.stop(assignment)
        db.delete(assignment)
        db.commit()

    run = with_run(slow, delete)
    assert (run.problem, run.is_active, grading.runs) == ("", False, {})
    assert slow.class_.db.query(Grade).count() == 0


def test_all_notebooks_can_be_graded_again(slow):
    with_run(slow, lambda *_: None)
    slow.began.clear()

    async def again() -> None:
        grading.start(slow.class_.db, slow.class_.assignment, again=True)
        await grading.runs[slow.class_.assignment.id].task

    asyncio.run(again())
    assert len(slow.began) == 5
    assert slow.class_.db.query(Grade).count() == 5


# --- A real hub


@pytest.fixture(scope="module")
def hub(make_hub):
    return with_teacher(make_hub())


def test_an_instructor_grades_and_gives_back_with_two_clicks(hub):
    number = opened(hub, hub.teacher, "On the hub", "05_loss")
    jo, kim = Learner(hub, "jo2"), Learner(hub, "kim2")
    submit(jo, number, solved("guess", "entropy"))
    submit(kim, number, NOTEBOOK.replace(b"...", b"1 / 0"))
    url = f"{hub.url}/hub/assignments/{number}"
    assert "2 notebooks have no grade." in text(hub.teacher.get(url).text)
    page = text(post(hub.teacher, f"{url}/grade").text)
    assert "of 2 notebooks." in page
    wait_until(lambda: not hub.teacher.get(f"{url}/grade").json()["active"], "all are graded", 300)
    page = text(hub.teacher.get(url).text)
    assert "2 of 3 right" in page
    assert "0 of 3 right" in page
    assert "All notebooks are graded." in page
    assert "of 3 right" not in text(jo.session.get(f"{hub.url}/hub/assignments").text)
    give_back(hub, number)
    assert "2 of 3 right" in text(jo.session.get(f"{hub.url}/hub/assignments").text)
    # A notebook that is handed in later has no grade until the next click.
    submit(jo, number, solved("guess"))
    assert "1 notebook has no grade." in text(hub.teacher.get(url).text)


@pytest.mark.parametrize("page", ["grade", "return", "late"])
def test_learners_can_neither_grade_nor_give_back(hub, page):
    number = opened(hub, hub.teacher, "Not yours", "05_loss")
    max_ = Learner(hub, "max")
    submit(max_, number)
    url = f"{hub.url}/hub/assignments/{number}/{page}"
    assert post(max_.session, url, allow_redirects=False).status_code == 403
    assert max_.session.get(url).status_code == 403
    assert hub.teacher.post(url).status_code == 403  # without the XSRF token
    seen = text(hub.teacher.get(f"{hub.url}/hub/assignments/{number}").text)
    assert "1 notebook has no grade." in seen
    assert "cannot see their grades or your comments yet" in seen


# --- A hub in containers


def test_a_class_hub_grades_in_containers(new_hub):
    """The answer is right only in a container without a network and the hub's files."""
    hub = new_hub()
    mine = f"{IMAGE}-grading"  # the image's name shows which containers are this hub's
    for kind in ("cpu", "hub"):
        hub.engine.images.get(f"{IMAGE}:{kind}").tag(mine, kind)
    hub.up(COURSE_IMAGE=mine)
    hub.teacher = hub.login("instructor", hub.admin_password).session
    ada = ClassLearner(hub, "ada")
    notebook = nbformat.reads(solved("guess").decode(), 4)
    cell = next(cell for cell in notebook.cells if cell.id == "guess-answer")
    cell.source = f"""
import os, pathlib, socket
assert os.getuid() == 65534
assert not pathlib.Path("/srv/state").exists() and not pathlib.Path("/var/run/docker.sock").exists()
assert [name for _, name in socket.if_nameindex()] == ["lo"]
{cell.source}
"""
    number = opened(hub, hub.teacher, "In containers", "05_loss")
    submit(ada, number, nbformat.writes(notebook).encode())
    url = f"{hub.url}/hub/assignments/{number}"
    post(hub.teacher, f"{url}/grade").raise_for_status()
    wait_until(lambda: not hub.teacher.get(f"{url}/grade").json()["active"], "it is graded", 300)
    assert "1 of 3 right" in text(hub.teacher.get(url).text)

    # Stopping also ends the container of a notebook that runs for ever.
    submit(ada, number, NOTEBOOK.replace(b"...", b"while True: pass"))

    def graders() -> list[str]:
        found = hub.containers("grading-")
        return [each.name for each in found if each.attrs["Config"]["Image"] == f"{mine}:cpu"]

    post(hub.teacher, f"{url}/grade").raise_for_status()
    wait_until(graders, "the notebook runs")
    page = post(hub.teacher, f"{url}/grade", data={"stop": "yes"})
    assert "1 notebook has no grade." in text(page.text)
    wait_until(lambda: not graders(), "its container is gone")
