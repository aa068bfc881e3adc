"""Test attempts: how the hub stores them, who can see them, and that none are lost."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
import time
from datetime import timedelta
from http.client import IncompleteRead
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import nbformat
import pytest
import requests
from hubs import ROOT, ClassLearner, Learner, post, run_cell, wait_until
from jupyterhub import orm
from jupyterhub.utils import utcnow

from tfcourse.hub.classroom import attempts, course, progress

# A learner's server imports the modules in this folder.
sys.path.append(str(ROOT / "tfcourse" / "prefix" / "share" / "tensorflow-course"))

import course_attempts
import course_hub

KEYS = itertools.count(1)  # not random, because they are also in the names of tests


def attempt(exercise: str = "count", mistake: str | None = None, **other) -> dict:
    """Return an attempt at an exercise of lesson 03, as a server sends it."""
    sent = {"key": f"{next(KEYS):x}", "lesson": "03_build_a_model", "exercise": exercise}
    return {**sent, "mistake": mistake, "ago": 0.5, **other}


# --- The exercises


def test_the_names_of_checks_are_the_names_of_exercises():
    for path in sorted(course.EXERCISES.glob("*.ipynb")):
        cells = {cell.id: cell.source for cell in nbformat.read(path, 4).cells}
        for exercise in course.lessons()[path.stem]:
            assert f"check_{exercise}(" in cells[f"{exercise}-check"]


def test_exercises_have_titles():
    assert course.lessons()["03_build_a_model"]["count"] == "2. Count the parameters"
    titles = [title for lesson in course.lessons().values() for title in lesson.values()]
    assert all(title and "\n" not in title and "#" not in title for title in titles)


def test_lessons_have_the_names_that_are_at_their_top():
    lessons = {path.stem: path for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert course.names().keys() == lessons.keys()
    for lesson, name in course.names().items():
        title = nbformat.read(lessons[lesson], 4).cells[0].source.partition("\n")[0]
        assert name == f"{lesson[:2]} {title.lstrip('# ')}"


@pytest.mark.parametrize(
    ("notebook", "lesson"),
    [
        ("05_loss", "05_loss"),
        ("05_loss-Copy1", "05_loss"),
        ("05_loss (2)", "05_loss"),
        ("my own", None),
        ("", None),
    ],
)
def test_a_renamed_copy_belongs_to_its_lesson(notebook, lesson):
    assert course.lesson_of(notebook) == lesson


# --- Storing


@pytest.fixture
def class_():
    """Return a database session with two learners."""
    db = orm.new_session_factory("sqlite:///:memory:")()
    ada, bob = orm.User(name="ada"), orm.User(name="bob")
    db.add_all([ada, bob])
    db.commit()
    yield SimpleNamespace(db=db, ada=ada, bob=bob)
    db.close()


def status(class_, user, exercise="count") -> attempts.Status:
    return attempts.statuses(class_.db)[user.id]["03_build_a_model", exercise]


def test_attempts_are_counted_until_one_is_right(class_):
    sent = [attempt(mistake=f"You count {n}.") for n in range(4)]
    assert attempts.store(class_.db, class_.ada, sent) == 4
    assert (
        attempts.store(class_.db, class_.ada, [attempt(), attempt(), attempt(mistake="No.")]) == 1
    )
    found = status(class_, class_.ada)
    assert (found.right, found.tries, found.is_stuck) == (True, 4, False)
    assert class_.bob.id not in attempts.statuses(class_.db)


def test_five_mistakes_in_a_row_mean_that_a_learner_is_stuck(class_):
    for number in range(1, 6):
        attempts.store(class_.db, class_.ada, [attempt(mistake="No.")])
        assert status(class_, class_.ada).is_stuck == (number == 5)
    attempts.store(class_.db, class_.ada, [attempt()])
    assert not status(class_, class_.ada).is_stuck


def test_an_attempt_that_is_sent_twice_is_stored_once(class_):
    sent = [attempt(mistake="No."), attempt("budget", mistake="Wider.")]
    assert attempts.store(class_.db, class_.ada, [*sent, sent[0]]) == 2
    assert attempts.store(class_.db, class_.ada, sent) == 0
    assert attempts.store(class_.db, class_.bob, sent) == 2, "another learner's keys do not matter"


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {},
        "text",
        [1],
        [[]],
        [{}],
        [attempt(key="")],
        [attempt(key="../../etc")],
        [attempt(key="a" * 33)],
        [attempt(key=7)],
        [attempt(exercise=["count"])],
        [attempt(lesson=None)],
        [attempt(mistake={"a": 1})],
        [attempt(ago=-1)],
        [attempt(ago=float("nan"))],
        [attempt(ago=float("inf"))],
        [attempt(ago="1")],
        [attempt(ago=True)],
        [attempt(mistake="No."), {}],
    ],
    ids=repr,
)
def test_malformed_attempts_are_refused(class_, sent):
    with pytest.raises(ValueError, match="must"):
        attempts.store(class_.db, class_.ada, sent)
    assert attempts.statuses(class_.db) == {}


def test_too_many_attempts_in_one_request_are_refused(class_):
    sent = [attempt(mistake="No.") for _ in range(attempts.TOGETHER + 1)]
    with pytest.raises(ValueError, match="at most 200"):
        attempts.store(class_.db, class_.ada, sent)
    assert attempts.store(class_.db, class_.ada, sent[1:]) == attempts.TOGETHER
    assert course_attempts.TOGETHER <= attempts.TOGETHER


@pytest.mark.parametrize(
    "other", [{"lesson": "99_unknown"}, {"lesson": "my own"}, {"exercise": "unknown"}], ids=str
)
def test_attempts_at_unknown_exercises_are_ignored(class_, other):
    assert attempts.store(class_.db, class_.ada, [attempt() | other, attempt("budget")]) == 1


def test_a_message_is_stored_as_short_printable_text(class_):
    mistake = "Your code raised\x00\ud800Error:\n\x1b[31m" + "a" * 10_000
    attempts.store(class_.db, class_.ada, [attempt(mistake=mistake)])
    ((_, stored),) = attempts.last_mistakes(class_.db, [class_.ada.id]).items()
    assert stored.startswith("Your code raised  Error:\n [31maaa")
    assert stored.endswith("a…")
    assert len(stored) == attempts.LONGEST
    assert stored.replace("\n", "").isprintable()


def test_only_the_last_mistakes_are_kept(class_, monkeypatch):
    monkeypatch.setattr(attempts, "KEPT", 10)
    attempts.store(class_.db, class_.ada, [attempt("budget")])
    attempts.store(class_.db, class_.ada, [attempt(mistake=f"No {n}.") for n in range(30)])
    assert status(class_, class_.ada).tries == 10
    assert status(class_, class_.ada, "budget").right
    last = attempts.last_mistakes(class_.db, [class_.ada.id])
    assert list(last.values()) == ["No 29."]


@pytest.mark.parametrize(("ago", "stored"), [(0, 0), (3600, 3600), (10**300, 7 * 24 * 3600)])
def test_a_late_attempt_keeps_its_time_for_up_to_a_week(class_, ago, stored):
    attempts.store(class_.db, class_.ada, [attempt(ago=ago)])
    age = utcnow(with_tz=False) - status(class_, class_.ada).last
    assert abs(age.total_seconds() - stored) < 30


def test_frequent_mistakes_are_ranked_by_number_of_learners(class_):
    a_week_ago = utcnow(with_tz=False) - timedelta(days=7)
    no_bias = [attempt(mistake=f"For [4, 3] you count {n}.") for n in (12, 13, 14)]
    attempts.store(class_.db, class_.ada, [*no_bias, attempt("budget", mistake="Wider.")])
    attempts.store(class_.db, class_.bob, [attempt(mistake="For [5, 3] you count 15.")])
    both = [class_.ada.id, class_.bob.id]
    found = attempts.frequent_mistakes(class_.db, both, a_week_ago)
    assert [(n, exercise) for n, _, exercise, _ in found] == [(2, "count"), (1, "budget")]
    assert found[0][3] == "For [5, 3] you count 15."
    (only,) = attempts.frequent_mistakes(class_.db, [class_.bob.id], a_week_ago)
    assert only[0] == 1
    later = utcnow(with_tz=False) + timedelta(minutes=1)
    assert attempts.frequent_mistakes(class_.db, both, later) == []


def test_a_learner_can_stop_sharing(class_):
    for learner in (class_.ada, class_.bob):
        attempts.store(class_.db, learner, [attempt(mistake="No.")])
    attempts.set_private(class_.db, class_.ada, True)
    assert attempts.store(class_.db, class_.ada, [attempt()]) == 0
    assert list(attempts.statuses(class_.db)) == [class_.bob.id]
    attempts.set_private(class_.db, class_.ada, False)
    assert attempts.store(class_.db, class_.ada, [attempt()]) == 1


def test_open_pages_learn_of_each_change(class_):
    versions = [attempts.version]
    for change in (
        lambda: attempts.store(class_.db, class_.ada, [attempt()]),
        lambda: attempts.set_private(class_.db, class_.ada, True),
        lambda: attempts.set_private(class_.db, class_.ada, False),
    ):
        change()
        versions.append(attempts.version)
    assert len(set(versions)) == 4
    attempts.store(class_.db, class_.bob, [])
    assert attempts.version == versions[-1]


def test_attempts_are_deleted_with_their_learner(class_):
    attempts.store(class_.db, class_.ada, [attempt()])
    attempts.set_private(class_.db, class_.bob, True)
    for user in (class_.ada, class_.bob):
        class_.db.delete(user)
    class_.db.commit()
    assert attempts.statuses(class_.db) == {}
    assert class_.db.query(attempts.Private).all() == []


def test_instructors_are_not_listed_as_learners(class_):
    class_.bob.groups.append(orm.Group(name="instructors"))
    class_.db.add(orm.User(name="root", admin=True))
    class_.ada.groups.append(orm.Group(name="monday"))
    class_.db.commit()
    everyone = progress.overview(class_.db)
    assert [learner.name for learner in everyone["learners"]] == ["ada"]
    assert everyone["groups"] == ["monday"]
    assert [each.name for each in progress.overview(class_.db, "monday")["learners"]] == ["ada"]
    assert progress.overview(class_.db, "tuesday")["learners"] == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "now"),
        (59, "now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7200, "2 hours ago"),
        (86400, "1 day ago"),
        (10 * 86400, "10 days ago"),
    ],
)
def test_times_are_given_in_words(seconds, text):
    now = utcnow(with_tz=False)
    assert progress.ago(now, now - timedelta(seconds=seconds)) == text


# --- Sending


class Answers:
    """A stand-in for the hub. It replaces the opener of URLs, and gives prepared responses."""

    def __init__(self, *codes: int | str):
        self.codes = list(codes)
        self.received: list[list[dict]] = []
        self.largest = 0  # bytes

    def open(self, request, timeout):
        code = self.codes.pop(0) if self.codes else 200
        if code == "away":
            raise OSError("no route")
        if code == "cut off":
            raise IncompleteRead(b"{")
        if code != 200:
            headers = {"Retry-After": "17"} if code == 429 else {}
            raise HTTPError(request.full_url, code, "", headers, io.BytesIO())
        self.received.append(json.loads(request.data))
        self.largest = max(self.largest, len(request.data))
        return io.BytesIO(b"{}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "attempts.jsonl"


def record(file: Path, *exercises: str, end: str = "\n") -> None:
    """Append attempts as a check does."""
    with file.open("a") as attempts:
        for exercise in exercises:
            line = {"exercise": exercise, "when": time.time() - 60, "mistake": None}
            attempts.write(json.dumps(line) + end)


def sending(monkeypatch, file: Path, *codes: int | str):
    answers = Answers(*codes)
    monkeypatch.setattr(course_hub, "DIRECT", answers)
    monkeypatch.setenv("JUPYTERHUB_ACTIVITY_URL", "http://hub/api/users/ada/activity")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    return course_attempts.Attempts(file), answers


def names(answers: Answers) -> list[list[str]]:
    return [[each["exercise"] for each in request] for request in answers.received]


def test_new_attempts_are_sent_once(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file)
    assert attempts.send() == course_attempts.LOOK
    record(file, "a", "b")
    attempts.send()
    attempts.send()
    record(file, "c")
    attempts.send()
    assert names(answers) == [["a", "b"], ["c"]]
    assert all(60 <= each["ago"] < 90 and "when" not in each for each in answers.received[0])


def test_attempts_are_sent_when_the_hub_is_back(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file, "away", 502, 403, 429)
    record(file, "a")
    assert [attempts.send() for _ in range(4)] == [5, 5, 5, 17]
    record(file, "b")
    attempts.send()
    assert names(answers) == [["a", "b"]]


def test_attempts_are_sent_after_a_restart_of_the_server(monkeypatch, file):
    attempts, _ = sending(monkeypatch, file, 200, "away")
    record(file, "a")
    attempts.send()
    record(file, "b")
    attempts.send()
    attempts, answers = sending(monkeypatch, file)
    attempts.send()
    assert names(answers) == [["b"]]
    attempts, answers = sending(monkeypatch, file)
    assert not file.exists(), "the file does not grow for ever"
    record(file, "c")
    attempts.send()
    assert names(answers) == [["c"]]


def test_many_attempts_are_sent_in_parts(monkeypatch, file):
    record(file, *(str(number) for number in range(250)))
    attempts, answers = sending(monkeypatch, file)
    for _ in range(4):
        attempts.send()
    assert [len(request) for request in answers.received] == [100, 100, 50]
    sent = itertools.chain.from_iterable(names(answers))
    assert list(sent) == [str(number) for number in range(250)]


def test_a_line_is_sent_once_it_is_complete(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file)
    record(file, "a", end="")
    attempts.send()
    assert answers.received == []
    with file.open("a") as half:
        half.write("\n")
    attempts.send()
    assert names(answers) == [["a"]]


DAMAGED = ["no JSON", "[]", "{}", '{"when": "yesterday"}', "\x00" * 50_000, "5", "null", "[" * 9000]
DAMAGED.append('{"mistake": "", "when": 1' + "0" * 400 + "}")


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_is_skipped(monkeypatch, file, line):
    attempts, answers = sending(monkeypatch, file)
    file.write_text(line + "\n")
    record(file, "a")
    attempts.send()
    assert names(answers) == [["a"]]


def test_attempts_that_the_hub_rejects_as_malformed_are_skipped(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file, 400)
    record(file, "a")
    attempts.send()
    record(file, "b")
    attempts.send()
    assert names(answers) == [["b"]]


def test_a_hub_that_does_not_want_attempts_is_rarely_asked(monkeypatch, file):
    attempts, _ = sending(monkeypatch, file, 404)
    record(file, "a")
    assert attempts.send() == course_attempts.RARELY


def test_after_a_file_was_deleted_the_new_one_is_read_from_its_start(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file)
    record(file, "a" * 200)
    attempts.send()
    file.unlink()
    attempts.send()
    record(file, "b")
    attempts.send()
    assert names(answers)[1:] == [["b"]]


def test_long_messages_fit_into_a_request(monkeypatch, file):
    lines = [
        json.dumps({"exercise": "a", "when": time.time(), "mistake": "\U0001f600" * 1000})
        for _ in range(100)
    ]
    file.write_text("\n".join(lines) + "\n")
    attempts, answers = sending(monkeypatch, file)
    attempts.send()
    (request,) = answers.received
    assert len(request) == 100
    assert answers.largest < 256 * 1024


def test_a_response_that_is_cut_off_does_not_end_the_sender(monkeypatch, file):
    attempts, answers = sending(monkeypatch, file, "cut off")
    record(file, "a")
    assert attempts.send() == course_attempts.RETRY
    attempts.send()
    assert names(answers) == [["a"]]


def test_exercises_of_an_earlier_version_are_left_out(class_):
    attempts.store(class_.db, class_.ada, [attempt(mistake="No.") for _ in range(5)])
    for each in class_.db.query(attempts.Attempt).limit(2):
        each.lesson = "99_gone"
    for each in class_.db.query(attempts.Attempt).offset(2).limit(2):
        each.exercise = "gone"
    class_.db.commit()
    view = progress.overview(class_.db)
    assert [each.done for each in view["learners"]] == [{"03_build_a_model": 0}, {}]
    assert [row[1:3] for row in view["frequent"]] == [("03_build_a_model", "count")]


# --- On a hub


@pytest.fixture(scope="module")
def hub(make_hub):
    """Start a hub like the one that `make hub` starts, with a teacher as its administrator."""
    hub = make_hub()
    said = hub.start(COURSE_ADMIN="teacher")
    hub.teacher = hub.login(
        "teacher", re.search(r"Admin +teacher, password (\S+)", said)[1]
    ).session
    return hub


def table(hub, session: requests.Session) -> list[dict[str, str]]:
    """Return the rows of the class's CSV file, without learners who have not started."""
    return [row for row in whole_table(hub, session) if row["lesson"]]


def whole_table(hub, session: requests.Session) -> list[dict[str, str]]:
    response = session.get(f"{hub.url}/hub/class/table.csv", timeout=30)
    response.raise_for_status()
    return list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))


def send(learner: Learner, *sent: dict, to: str = "") -> requests.Response:
    """Send attempts as a learner's server does, although the token is the learner's own."""
    path = f"/hub/api/users/{to or learner.name}/attempts"
    return learner.api("POST", path, json=list(sent))


def exercise_kernel(learner: Learner, lesson: str) -> str:
    """Open a lesson's exercises as JupyterLab does; return the kernel's ID."""
    name = f"{lesson}.ipynb"
    form = {"path": f"tensorflow-course/exercises/{name}", "name": name, "type": "notebook"}
    form["kernel"] = {"name": "python3"}
    session = learner.api("POST", "/user/{name}/api/sessions", json=form)
    return session.json()["kernel"]["id"]


def checks(lesson: str, exercise: str) -> str:
    """Return the code that defines an exercise's check."""
    cells = nbformat.read(course.EXERCISES / f"{lesson}.ipynb", 4).cells
    return "\n".join(
        cell.source
        for cell in cells
        if cell.get("id") in ("setup", "checks-common", f"{exercise}-find")
    )


def test_what_a_check_says_reaches_the_instructor_and_the_learner(hub):
    ada = Learner(hub, "ada")
    ada.start_server()
    kernel = exercise_kernel(ada, "03_build_a_model")
    untouched = '\ndef count_parameters(sizes):\n    """Count."""\n    ...'
    untouched += "\ncheck_count(count_parameters); check_count(...)"  # those are no attempts
    said = run_cell(ada, kernel, checks("03_build_a_model", "count") + untouched)
    assert said.count("Not yet.") == 2
    assert "Not yet." in run_cell(ada, kernel, "check_count(lambda sizes: 12)")
    wait_until(lambda: table(hub, hub.teacher), "the attempt has arrived")
    (row,) = table(hub, hub.teacher)
    assert row["learner"] == "ada"
    assert (row["lesson"], row["exercise"]) == ("03_build_a_model", "count")
    assert (row["right"], row["mistakes"]) == ("0", "1")
    assert "there are 12 weights" in row["said"]
    page = ada.session.get(f"{hub.url}/hub/progress").text
    assert "not solved yet, 1 attempt" in page
    assert "there are 12 weights" in page
    right = "check_count(lambda s: sum((n + 1) * m for n, m in zip(s, s[1:])))"
    assert "Right." in run_cell(ada, kernel, right)
    wait_until(lambda: table(hub, hub.teacher)[0]["right"] == "1", "the right answer has arrived")
    assert "solved after 1 failed" in ada.session.get(f"{hub.url}/hub/progress").text
    ada.stop_server()


def test_the_table_names_learners_who_have_not_started(hub):
    Learner(hub, "zoe")
    rows = whole_table(hub, hub.teacher)
    assert [row["right"] for row in rows if row["learner"] == "zoe"] == [None]
    assert "teacher" not in [row["learner"] for row in rows]


@pytest.mark.parametrize("page", ["class", "class/live", "class/table.csv", "class/of/bob"])
def test_only_instructors_see_the_class(hub, page):
    url = f"{hub.url}/hub/{page}"
    bob = Learner(hub, "bob")
    assert bob.session.get(url).status_code == 403
    assert requests.get(url, allow_redirects=False, timeout=30).status_code in (302, 403)
    assert hub.teacher.get(url, stream=True).status_code == 200


def test_nobody_can_send_attempts_for_another_learner(hub):
    cy, dora = Learner(hub, "cy"), Learner(hub, "dora")
    assert send(cy, attempt(), to="dora").status_code in (403, 404)
    assert send(cy, attempt(), to="nobody").status_code in (403, 404)
    url = f"{hub.url}/hub/api/users/dora/attempts"
    assert requests.post(url, json=[attempt()], timeout=30).status_code == 403
    assert send(cy, attempt() | {"name": "dora", "user": "dora", "user_id": 1}).ok
    assert [
        row["learner"] for row in table(hub, hub.teacher) if row["learner"] in ("cy", "dora")
    ] == ["cy"]
    forged = dora.session.post(url.replace("dora", "cy"), json=[attempt()])
    assert forged.status_code in (403, 404)


def test_a_server_can_send_only_its_owners_attempts(hub):
    """Use a server's own token, which any code on that server can read."""
    eve = Learner(hub, "eve")
    eve.start_server()
    token = run_cell(
        eve, eve.start_kernel(), "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])"
    )
    headers = {"Authorization": f"token {token.strip()}"}
    codes = {
        name: requests.post(
            f"{hub.url}/hub/api/users/{name}/attempts", json=[], headers=headers, timeout=30
        ).status_code
        for name in ("eve", "ada", "teacher")
    }
    eve.stop_server()
    assert codes.pop("eve") == 200
    assert set(codes.values()) <= {403, 404}
    assert requests.get(f"{hub.url}/hub/class", headers=headers, timeout=30).status_code == 403


def test_a_flood_of_attempts_is_refused_and_affects_nobody_else(hub):
    fred, gina = Learner(hub, "fred"), Learner(hub, "gina")
    flood = [send(fred, *(attempt(mistake="No.") for _ in range(100))) for _ in range(12)]
    assert [response.status_code for response in flood].count(429) >= 4
    refused = next(response for response in flood if response.status_code == 429)
    assert int(refused.headers["Retry-After"]) > 0
    assert send(gina, attempt()).ok


def test_a_malformed_request_is_refused_with_a_message(hub):
    hal = Learner(hub, "hal")
    for content in ({"json": {"a": 1}}, {"data": b"\xff"}, {"data": b"[" * 100_000}, {"data": b""}):
        response = hal.api("POST", "/hub/api/users/hal/attempts", **content)
        assert (response.status_code, "were not stored" in response.text) == (400, True)
    huge = hal.api("POST", "/hub/api/users/hal/attempts", data=b" " * 10**6)
    assert huge.status_code in (400, 413, 503)  # 503: the proxy's response if the hub disconnects


def test_markup_in_a_message_is_shown_as_text(hub):
    ida = Learner(hub, "ida")
    markup = "<img src=x onerror=alert(1)> =HYPERLINK('http://example.org')"
    send(ida, *(attempt("budget", mistake=markup) for _ in range(5)))
    live = hub.teacher.get(f"{hub.url}/hub/class/live", stream=True)
    event = json.loads(next(live.iter_lines()).removeprefix(b"data: "))
    for page in (
        hub.teacher.get(f"{hub.url}/hub/class").text,
        hub.teacher.get(f"{hub.url}/hub/class/of/ida").text,
        ida.session.get(f"{hub.url}/hub/progress").text,
        event,
    ):
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page


def test_a_spreadsheet_does_not_evaluate_a_formula_in_a_message(hub):
    jo = Learner(hub, "jo")
    send(jo, attempt(mistake="=cmd|'/c calc'!A0"))
    (row,) = [row for row in table(hub, hub.teacher) if row["learner"] == "jo"]
    assert row["said"].startswith("'=cmd")


def test_an_open_page_shows_new_attempts(hub):
    kim = Learner(hub, "kim")
    with hub.teacher.get(f"{hub.url}/hub/class/live", stream=True, timeout=30) as live:
        events = (line.decode() for line in live.iter_lines() if line)
        # Another test may have opened the page before kim logged in. It is updated after 20 s.
        assert any("kim" in event for event in itertools.islice(events, 3))
        send(kim, *(attempt("flatten", mistake="Still one row too many.") for _ in range(5)))
        # On a busy machine, an update may come before the attempts.
        told = next(event for event in events if "Still one row too many." in event)
    assert "Stuck" in told


def test_a_learner_stops_and_resumes_sharing(hub):
    lea = Learner(hub, "lea")
    send(lea, attempt(mistake="No."))
    page = f"{hub.url}/hub/progress"
    assert "the hub deletes your attempts" in lea.session.get(page).text
    assert lea.session.post(page, data={"share": "no"}).status_code == 403, "no XSRF token"
    assert "do not share" in post(lea.session, page, data={"share": "no"}).text
    assert send(lea, attempt()).json() == {"stored": 0}
    assert "lea" not in {row["learner"] for row in table(hub, hub.teacher)}
    assert "does not share attempts" in hub.teacher.get(f"{hub.url}/hub/class").text
    assert "Nothing is stored yet" in post(lea.session, page, data={"share": "yes"}).text
    assert post(lea.session, page, data={"share": "maybe"}).status_code == 400


def test_without_progress_nothing_is_recorded(make_hub):
    hub = make_hub()
    hub.start(COURSE_PROGRESS="off")
    mia = Learner(hub, "mia")
    assert send(mia, attempt()).status_code == 404
    assert mia.session.get(f"{hub.url}/hub/progress").status_code == 404
    assert "hub/progress" not in mia.session.get(f"{hub.url}/hub/home").text
    mia.start_server()
    asks = run_cell(mia, mia.start_kernel(), "import os; print('COURSE_ATTEMPTS' in os.environ)")
    assert asks.strip() == "False"
    hub.stop()


def test_nothing_is_lost_while_the_hub_restarts(new_hub):
    hub = new_hub()
    hub.up(COURSE_SIGNUP="open")
    hub.admit = hub.sign_up
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    kernel = exercise_kernel(ada, "03_build_a_model")
    run_cell(ada, kernel, checks("03_build_a_model", "count"))
    instructor = hub.login("instructor", hub.admin_password).session
    hub.container("hub").stop()
    for number in (10, 11, 12):
        said = run_cell(ada, kernel, f"check_count(lambda sizes: {number})")
        assert "Not yet." in said
    hub.container("hub").start()
    wait_until(hub.answers, "the hub answers again")
    wait_until(lambda: table(hub, instructor), "the attempts have arrived")
    (row,) = table(hub, instructor)
    assert (row["mistakes"], row["right"]) == ("3", "0")
    page = instructor.get(f"{hub.url}/hub/class")
    assert "1 learner: 1 started the" in " ".join(page.text.split())
