"""Test sending grades to a learning platform.

The platform is a stand-in (tests/learning_platform.py). It fetches the hub's keys from the running
hub, and checks each of the hub's requests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import html
import re
import sqlite3
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jwt
import pytest
import requests
from hubs import Hub, Site, post, run_in, wait_until
from jupyterhub import orm
from learning_platform import (
    CLIENT,
    GRADES,
    TEACHER,
    Platform,
    RefusedError,
    environment,
    start,
)

from tfcourse.hub.classroom import course, grades, platform
from tfcourse.hub.tables import PlatformAccount

LESSON = "05_loss"
EXERCISES = list(course.titles(LESSON))
NOTEBOOK = (course.EXERCISES / f"{LESSON}.ipynb").read_bytes()


@pytest.fixture(scope="module")
def service() -> Iterator[Platform]:
    """Start the stand-in for a learning platform."""
    service = Platform()
    yield service
    service.stop()


@pytest.fixture
def lms(service) -> Platform:
    """Return the stand-in, without grades and faults."""
    service.reset()
    return service


class Class:
    """A hub with a teacher, whose learners come from the platform."""

    def __init__(self, hub: Site, lms: Platform):
        self.hub, self.lms = hub, lms
        lms.keys_url = f"{hub.url}/hub/lti13/keys"
        self.teacher = lms.launch(hub, sub=TEACHER).session
        self.learners = 0

    def assign(self, title: str = "Week 3") -> int:
        """Create an assignment; return its number."""
        due = (datetime.now(UTC) + timedelta(days=7)).isoformat()
        form = {"title": title, "lesson": LESSON, "due_utc": due}
        page = post(self.teacher, f"{self.hub.url}/hub/assignments", data=form)
        assert page.ok, page.text
        return max(map(int, re.findall(r'/hub/assignments/(\d+)"', page.text)))

    def learner(self, number: int, course: str | None = "1", sub: str = "") -> str:
        """Let a new learner open the course and hand in a notebook; return the user name."""
        self.learners += 1
        sub = sub or f"learner-{self.learners}"
        session = self.lms.launch(
            self.hub, sub=sub, **(self.lms.claim(course) if course else {})
        ).session
        tokens = f"{self.hub.url}/hub/api/users/{sub}/tokens"
        token = post(session, tokens, json={}).json()["token"]
        url = f"{self.hub.url}/hub/api/users/{sub}/assignments/{number}/{LESSON}"
        headers = {"Authorization": f"token {token}"}
        content = zlib.compress(NOTEBOOK)
        handed_in = requests.put(url, data=content, headers=headers, timeout=30)
        assert handed_in.status_code == 201, handed_in.text
        return sub

    def grade(self, number: int, **points: int) -> None:
        """Give grades back, as `make grade` writes them. Hyphens in names become underscores."""
        digest = hashlib.sha256(NOTEBOOK).hexdigest()
        rows = ["submission,lesson,exercise,right,says"]
        for name, right in points.items():
            user = orm.User(name=name.replace("_", "-"))
            path = grades.path_in_archive(user, LESSON, digest)
            for place, exercise in enumerate(EXERCISES):
                rows.append(f"{path},{LESSON},{exercise},{int(place < right)},")
        xsrf = {"_xsrf": self.teacher.cookies.get("_xsrf", path="/hub/")}
        files = {"table": ("grades.csv", "\n".join(rows).encode())}
        url = f"{self.hub.url}/hub/assignments/{number}/grades"
        page = self.teacher.post(url, params=xsrf, files=files, timeout=60)
        assert f"Notebooks with new grades: {len(points)}." in page.text
        assert post(self.teacher, f"{self.hub.url}/hub/assignments/{number}/return").ok

    def comment(self, number: int, name: str, text: str) -> None:
        url = f"{self.hub.url}/hub/assignments/{number}/of/{name}"
        assert post(self.teacher, url, data={f"comment-{LESSON}": text}).ok

    def send(self, number: int) -> str:
        """Send the grades; return the page's messages."""
        page = post(self.teacher, f"{self.hub.url}/hub/assignments/{number}/send")
        assert page.ok, page.text
        alerts = re.findall(r'role="alert">(.*?)</div>', page.text, re.S)
        return html.unescape(" ".join(alerts))

    def graded(self, title: str = "Week 3", right: int = 2) -> tuple[int, str]:
        """Return a new assignment and a learner with a grade."""
        number = self.assign(title)
        name = self.learner(number)
        self.grade(number, **{name.replace("-", "_"): right})
        return number, name


@pytest.fixture(scope="module")
def hub(make_hub, service, tmp_path_factory) -> Hub:
    """Start a hub whose learners log in from the platform."""
    hub = make_hub()
    start(hub, service, tmp_path_factory.mktemp("own"))
    return hub


@pytest.fixture(scope="module")
def first_class(hub, service) -> Class:
    service.keys_url = f"{hub.url}/hub/lti13/keys"
    return Class(hub, service)


@pytest.fixture
def class_(first_class, lms) -> Class:
    """Return a class, with a platform that has no grades yet."""
    return first_class


def accounts(hub: Hub) -> dict[str, tuple[str, str]]:
    """Return what the hub has stored about the platform, keyed by user name."""
    file = hub.state / "hub" / "jupyterhub.sqlite"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT name, subject, lineitems FROM course_platform_accounts "
            "JOIN users ON users.id = user_id"
        )
        return {name: (subject, lineitems) for name, subject, lineitems in rows}


# --- Launches


MALFORMED = [
    "text",
    [],
    None,
    {},
    {"lineitems": "https://lms.example.org/1"},
    {"lineitems": "https://lms.example.org/1", "scope": "all"},
    {"lineitems": "https://lms.example.org/1", "scope": [[], {}, None]},
    {"lineitems": "https://lms.example.org/1", "scope": [f"{GRADES}scope/score"]},
    {"lineitems": "https://lms.example.org/1", "scope": [f"{GRADES}scope/lineitem"]},
    *(
        {"lineitems": url, "scope": platform.SCOPES}
        for url in [
            None,
            7,
            "",
            "/lineitems",
            "http://lms.example.org/1",
            "ftp://lms.example.org/1",
            "https:///1",
            "https://[::1/1",
            "https://lms.example.org:x/1",
            "https://lms.example.org:99999/1",
            "https://lms.example.org/a b",
            "https://lms.example.org/\0",
            "https://lms.example.org/\ud800",
            f"https://lms.example.org/{'x' * 2000}",
        ]
    ),
]


@pytest.mark.parametrize("claim", MALFORMED, ids=lambda claim: ascii(claim)[:90])
def test_a_malformed_claim_prevents_no_log_in(class_, claim):
    class_.learners += 1
    name = f"learner-{class_.learners}"
    page = class_.lms.launch(class_.hub, sub=name, **{f"{GRADES}claim/endpoint": claim})
    assert page.url == f"{class_.hub.url}/hub/spawn"
    assert name not in accounts(class_.hub)


def test_the_latest_launch_counts(class_):
    for course_ in ("1", "7", None):
        claim = class_.lms.claim(course_) if course_ else {}
        assert class_.lms.launch(class_.hub, sub="Ada/1", **claim).ok
    (found,) = [found for found in accounts(class_.hub).values() if found[0] == "Ada/1"]
    assert found[1] == f"{class_.lms.url}/7/lineitems?type_id=1"


def test_what_the_hub_remembers_is_deleted_with_the_user():
    db = orm.new_session_factory("sqlite:///:memory:")()
    user = orm.User(name="ada")
    db.add(user)
    db.commit()
    claim = {"lineitems": "https://lms.example.org/1", "scope": platform.SCOPES}
    platform.remember(db, user, {"sub": "17", platform.CLAIM: claim})
    assert db.query(PlatformAccount).one().subject == "17"
    db.delete(user)
    db.commit()
    assert db.query(PlatformAccount).count() == 0


@pytest.mark.parametrize("subject", [None, 17, ["17"], "a\0b", "\ud800"], ids=ascii)
def test_an_identifier_that_cannot_be_stored_is_not(subject):
    db = orm.new_session_factory("sqlite:///:memory:")()
    claim = {"lineitems": "https://lms.example.org/1", "scope": platform.SCOPES}
    platform.remember(db, orm.User(id=1), {"sub": subject, platform.CLAIM: claim})
    assert db.query(PlatformAccount).count() == 0


# --- The hub's key


def test_the_hub_publishes_its_public_key_only(class_):
    answer = requests.get(class_.lms.keys_url, timeout=30)
    assert answer.headers["Content-Type"].startswith("application/json")
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
    file = class_.hub.state / "hub" / "lti-key.pem"
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_key_survives_a_restart(class_):
    number, name = class_.graded("Before the restart")
    assert "Sent the grades of 1 learner." in class_.send(number)
    before = requests.get(class_.lms.keys_url, timeout=30).json()
    class_.hub.stop()
    class_.hub.start(**class_.hub.environment)
    assert requests.get(class_.lms.keys_url, timeout=30).json() == before
    class_.grade(number, **{name.replace("-", "_"): 3})
    assert class_.send(number) == "Sent the grades of 1 learner."
    assert [score["scoreGiven"] for score in class_.lms.scores.values()] == [3]
    assert len(class_.lms.items) == 1


# --- Sending


def test_grades_arrive_at_the_platform(class_):
    number = class_.assign()
    ada, bob = class_.learner(number), class_.learner(number)
    cy = class_.learner(number)  # without a grade
    class_.grade(number, **{ada.replace("-", "_"): 3, bob.replace("-", "_"): 0})
    class_.comment(number, ada, "Well done.")
    assert class_.send(number) == "Sent the grades of 2 learners."
    ((where, item),) = class_.lms.items.items()
    assert where.startswith("/1/lineitems/")
    assert (item["label"], item["scoreMaximum"]) == ("Week 3", len(EXERCISES))
    found = {user: score for (_, user), score in class_.lms.scores.items()}
    assert {user: score["scoreGiven"] for user, score in found.items()} == {ada: 3, bob: 0}
    assert {score["scoreMaximum"] for score in found.values()} == {len(EXERCISES)}
    assert found[ada]["comment"] == "Well done."
    assert "comment" not in found[bob]
    assert cy not in found


def test_sending_again_overwrites(class_):
    number, name = class_.graded(right=1)
    class_.send(number)
    class_.grade(number, **{name.replace("-", "_"): 3})
    assert class_.send(number) == "Sent the grades of 1 learner."
    assert len(class_.lms.items) == 1
    assert [score["scoreGiven"] for score in class_.lms.scores.values()] == [3]


@pytest.mark.parametrize("has_filter", [True, False])
def test_a_line_item_is_found_on_a_later_page(class_, has_filter):
    class_.lms.has_filter = has_filter
    class_.lms.page_size = 2
    for place in range(5):
        class_.lms.add_item("1", {"label": "Week 3", "resourceId": f"other {place}"})
    number, _ = class_.graded()
    for _ in range(2):
        assert class_.send(number) == "Sent the grades of 1 learner."
    assert len(class_.lms.items) == 6
    assert {where for where, _ in class_.lms.scores} == {"/1/lineitems/6/lineitem"}


def test_a_new_assignment_with_an_old_number_has_its_own_column(class_):
    """SQLite uses the number of a deleted assignment again."""
    number, _ = class_.graded("Old")
    class_.send(number)
    url = f"{class_.hub.url}/hub/assignments/{number}"
    assert post(class_.teacher, url, data={"delete": "yes", "title": "Old"}).ok
    again, _ = class_.graded("New")
    assert again == number
    class_.send(again)
    assert sorted(item["label"] for item in class_.lms.items.values()) == ["New", "Old"]


def test_a_learner_without_the_claim_is_named(class_):
    number, ada = class_.graded()
    bob = class_.learner(number, course=None)
    class_.grade(number, **{ada.replace("-", "_"): 2, bob.replace("-", "_"): 3})
    assert class_.send(number) == f"Sent the grades of 1 learner. Not sent for {bob}: " + (
        "they have not opened the hub from the learning platform since sending grades was set up."
    )
    assert {user for _, user in class_.lms.scores} == {ada}


def test_two_courses_have_a_column_each(class_):
    number = class_.assign()
    ada, bob = class_.learner(number, course="1"), class_.learner(number, course="2")
    class_.grade(number, **{ada.replace("-", "_"): 1, bob.replace("-", "_"): 2})
    assert class_.send(number) == "Sent the grades of 2 learners."
    found = {(where.split("/")[1], user) for where, user in class_.lms.scores}
    assert found == {("1", ada), ("2", bob)}


def test_without_grades_nothing_is_sent(class_):
    number = class_.assign()
    class_.learner(number)
    assert class_.send(number) == "First give the grades back."
    assert post(class_.teacher, f"{class_.hub.url}/hub/assignments/{number}/return").ok
    assert "No notebook has a grade yet." in class_.send(number)
    assert not class_.lms.tokens


def test_markup_arrives_as_text(class_):
    title, comment = 'Week <b>3</b> & "more"', "<script>alert(1)</script>\n5 < 6"
    number, name = class_.graded(title)
    class_.comment(number, name, comment)
    class_.lms.faults["score"] = refusing(400)
    page = post(class_.teacher, f"{class_.hub.url}/hub/assignments/{number}/send").text
    assert "<b>3" not in page
    class_.lms.faults.clear()
    assert class_.send(number) == "Sent the grades of 1 learner."
    (item,), (score,) = class_.lms.items.values(), class_.lms.scores.values()
    assert (item["label"], score["comment"]) == (title, comment)


@pytest.mark.parametrize("who", ["learner", "stranger", "forger"])
def test_only_instructors_send(class_, who):
    number, name = class_.graded()
    url = f"{class_.hub.url}/hub/assignments/{number}/send"
    if who == "learner":
        session = class_.lms.launch(class_.hub, sub=name).session
        assert session.get(f"{class_.hub.url}/hub/home", timeout=30).ok
        answer = post(session, url)
    elif who == "stranger":
        answer = class_.hub.session().post(url, timeout=30, allow_redirects=False)
    else:  # another site's form, in the teacher's browser
        answer = class_.teacher.post(url, timeout=30)
    assert answer.status_code == 403
    assert not class_.lms.tokens


def test_after_a_log_in_the_form_leads_back_to_the_assignment(class_):
    number = class_.assign()
    url = f"{class_.hub.url}/hub/assignments/{number}"
    assert class_.teacher.get(f"{url}/send", timeout=30).url == url


# --- Faults of the platform


def refusing(status: int):
    """Return a fault: refuse all requests."""

    def fault(handler, content) -> bool:
        raise RefusedError(status, "refused")

    return fault


def saying(content: bytes, status: int = 200, **headers: str):
    """Return a fault: send this answer."""

    def fault(handler, _) -> bool:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        try:
            handler.wfile.write(content)
        except OSError:  # the hub does not read all of it
            handler.close_connection = True
        return True

    return fault


def closing_the_connection(handler, _) -> bool:
    handler.close_connection = True
    return True


UNKNOWN = (
    "the learning platform rejected the hub's request (error 401). Ask the hub's administrator"
)
RUBBISH = "the learning platform sent an answer that the hub does not understand."
NO_ANSWER = "the hub did not get an answer from the learning platform ("


@pytest.mark.parametrize(
    ("kind", "fault", "says"),
    [
        ("token", refusing(401), UNKNOWN),
        ("token", refusing(429), "the learning platform sent error 429. Try again later."),
        ("token", refusing(503), "the learning platform sent error 503. Try again later."),
        ("token", saying(b"<html>"), RUBBISH),
        ("token", saying(b"[]"), RUBBISH),
        ("token", saying(b'{"access_token": 7}'), RUBBISH),
        ("token", saying(b'{"access_token": "a\\r\\nb"}'), RUBBISH),
        ("token", saying(b"[" * 10**5), RUBBISH),
        ("token", saying(b'"' + b"x" * 2**21 + b'"'), NO_ANSWER),
        ("token", saying(b"", Content_Length=str(10**12)), NO_ANSWER),
        ("token", closing_the_connection, NO_ANSWER),
        ("list", refusing(403), "does not let the hub create a column for the grades (error 403)"),
        ("list", saying(b"{}"), RUBBISH),
        ("list", saying(b"[7]"), RUBBISH),
        ("list", saying(b"\xff"), RUBBISH),
        ("list", saying(b"[]", Link='<http://[>; rel="next"'), RUBBISH),
        ("create", refusing(404), "does not let the hub create a column"),
        ("create", saying(b"{}"), RUBBISH),
        ("create", saying(b'{"id": "https://else.example/1"}'), RUBBISH),
        ("score", refusing(403), "the learning platform refused the grade (error 403)"),
        ("score", refusing(500), "the learning platform sent error 500. Try again later."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_of_the_platform_is_a_sentence(class_, kind, fault, says):
    number, name = class_.graded()
    class_.lms.faults[kind] = fault
    told = class_.send(number)
    assert told.startswith(f"Not sent for {name}: ")
    assert says in told
    class_.lms.faults.clear()
    assert class_.send(number) == "Sent the grades of 1 learner.", "the next attempt can succeed"


def test_one_refused_score_does_not_stop_the_others(class_):
    number = class_.assign()
    names = [class_.learner(number) for _ in range(3)]
    class_.grade(number, **{name.replace("-", "_"): 2 for name in names})

    def fault(handler, score) -> bool:
        if score["userId"] == names[1]:
            raise RefusedError(404, "not in the course")
        return False

    class_.lms.faults["score"] = fault
    told = class_.send(number)
    assert told.startswith(f"Sent the grades of 2 learners. Not sent for {names[1]}: ")
    assert {user for _, user in class_.lms.scores} == {names[0], names[2]}


def test_a_newer_grade_on_the_platform_is_not_overwritten(class_):
    number, name = class_.graded()
    class_.send(number)
    class_.grade(number, **{name.replace("-", "_"): 3})
    for score in class_.lms.scores.values():
        score["timestamp"] = "2999-01-01T00:00:00+00:00"
    assert "that the platform does not have a newer grade" in class_.send(number)
    assert [score["scoreGiven"] for score in class_.lms.scores.values()] == [2]


def test_a_platform_that_is_away_is_a_sentence(class_):
    number, _ = class_.graded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_.lms, "claim", lambda _: claim_of("http://127.0.0.1:9/lineitems"))
        bob = class_.learner(number)
    class_.grade(number, **{bob.replace("-", "_"): 1})
    told = class_.send(number)
    assert "Sent the grades of 1 learner." in told
    assert f"Not sent for {bob}: {NO_ANSWER}" in told


def claim_of(lineitems: str) -> dict:
    return {f"{GRADES}claim/endpoint": {"lineitems": lineitems, "scope": platform.SCOPES}}


@pytest.mark.parametrize("kind", ["token", "score"])
def test_a_slow_platform_does_not_block_the_hub(class_, kind):
    number, _ = class_.graded()
    reached, end = threading.Event(), threading.Event()

    def fault(*_) -> bool:
        reached.set()
        end.wait(60)
        return False

    class_.lms.faults[kind] = fault
    said = []
    sender = threading.Thread(target=lambda: said.append(class_.send(number)))
    sender.start()
    try:
        assert reached.wait(60)
        # In the meantime, the hub answers, and nobody else can send.
        other = class_.lms.launch(class_.hub, sub=TEACHER).session
        again = post(other, f"{class_.hub.url}/hub/assignments/{number}/send")
        assert "The hub is already sending grades. Wait a minute." in again.text
    finally:
        end.set()
        sender.join()
    assert said == ["Sent the grades of 1 learner."]


@pytest.fixture
def elsewhere() -> Iterator[Platform]:
    """Start another service, which must not receive the hub's token."""
    other = Platform()
    yield other
    other.stop()


@pytest.mark.parametrize("kind", ["redirect", "page", "token"])
def test_the_token_reaches_no_other_host(class_, elsewhere, kind):
    number, _ = class_.graded()
    there = f"{elsewhere.url}/1/lineitems?type_id=1"
    faults = {
        "redirect": ("list", saying(b"", 307, Location=there)),
        "page": ("list", saying(b"[]", Link=f'<{there}>; rel="next"')),
        "token": ("token", saying(b"", 307, Location=f"{elsewhere.url}/token")),
    }
    name, fault = faults[kind]
    class_.lms.faults[name] = fault
    assert "Not sent" in class_.send(number)
    assert not elsewhere.asked


def test_a_list_without_end_ends(class_):
    number, _ = class_.graded()
    there = f"{class_.lms.url}/1/lineitems?type_id=1"
    class_.lms.faults["list"] = saying(b"[]", Link=f'<{there}>; rel="next"')
    assert RUBBISH in class_.send(number)
    assert not class_.lms.items, "a column that may exist already is not created again"


# --- Without a hub


@pytest.fixture
def tool(lms, monkeypatch, tmp_path) -> platform.Tool:
    """Return a hub's identity, which the platform knows."""
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    key = platform.private_key()
    tool = platform.Tool(CLIENT, f"{lms.url}/token", key, ssl.create_default_context())
    known = SimpleNamespace(json=lambda: {"keys": [tool.public_key]})
    monkeypatch.setattr("learning_platform.requests", SimpleNamespace(get=lambda *_, **__: known))
    return tool


WANTED = {"scoreMaximum": 3, "label": "Week 3", "resourceId": "x"}


def score_of(number: int, lms: Platform) -> platform.Score:
    return platform.Score(f"{number}", f"{number}", f"{lms.url}/1/lineitems?type_id=1", 1, "")


def test_a_large_class_is_sent_several_at_a_time(lms, tool):
    """Each score waits until as many others arrive as the hub may send at a time."""
    together = threading.Barrier(platform.TOGETHER, timeout=60)
    busy, most = [], []

    def fault(*_) -> bool:
        busy.append(1)
        most.append(len(busy))
        together.wait()
        busy.pop()
        return False

    lms.faults["score"] = fault
    found = [score_of(number, lms) for number in range(38 * platform.TOGETHER)]
    assert asyncio.run(platform.send(tool, WANTED, found)) == {}
    assert len(lms.scores) == len(found)
    assert max(most) <= platform.TOGETHER
    assert len(lms.items) == len(lms.used) == 1


@pytest.mark.parametrize("kind", ["token", "score"])
def test_a_platform_that_hangs_is_a_sentence(lms, tool, monkeypatch, kind):
    end = threading.Event()

    def hang(*_) -> bool:
        end.wait(60)
        return True

    def hurry(*_) -> bool:
        platform.SECONDS = 1  # for the requests after this one
        return False

    monkeypatch.setattr(platform, "SECONDS", 1 if kind == "token" else 60)
    lms.faults |= {kind: hang, "create": hurry}
    try:
        problems = asyncio.run(platform.send(tool, WANTED, [score_of(1, lms)]))
        assert problems == {"1": platform.LATE}
    finally:
        end.set()


def test_a_learner_whose_notebooks_are_not_all_graded_gets_no_grade(lms, tool):
    """A number for a part of the work would look like the final grade."""
    ada, bob = score_of(1, lms), dataclasses.replace(score_of(2, lms), right=None)
    problems = asyncio.run(platform.send(tool, WANTED, [ada, bob]))
    assert problems == {bob.name: platform.UNGRADED}
    assert {user for _, user in lms.scores} == {ada.subject}


def test_after_too_long_the_rest_is_not_sent(lms, tool, monkeypatch):
    monkeypatch.setattr(platform, "TOTAL_SECONDS", 0)
    found = [score_of(number, lms) for number in range(3)]
    problems = asyncio.run(platform.send(tool, WANTED, found))
    assert problems == dict.fromkeys("012", platform.LATE)
    assert not lms.tokens


@pytest.mark.parametrize(
    "change", [{"client_id": "other"}, {"token_url": "{}/token?else"}, {"key": None}]
)
def test_the_platform_refuses_another_identity(lms, tool, change):
    """This shows that the stand-in checks what the hub sends."""
    if "key" in change:
        file = platform.state.hub_folder() / "lti-key.pem"
        file.unlink()
        change = {"key": platform.private_key()}
    change = {n: v.format(lms.url) if isinstance(v, str) else v for n, v in change.items()}
    other = dataclasses.replace(tool, **change)
    (problem,) = asyncio.run(platform.send(other, WANTED, [score_of(1, lms)])).values()
    assert problem == platform.NO_HUB.format(400)


def test_a_damaged_key_is_made_anew_and_says_what_follows(tool, capsys):
    file = platform.state.hub_folder() / "lti-key.pem"
    file.write_bytes(bytes(1700))
    assert platform.private_key() != tool.key
    assert "The learning platform fetches the new public key." in capsys.readouterr().out


def test_an_assertion_is_used_once(tool):
    claims = [jwt.decode(tool.assertion(), options={"verify_signature": False}) for _ in range(2)]
    assert claims[0]["jti"] != claims[1]["jti"]
    assert all(each["exp"] - each["iat"] <= 300 for each in claims)


# --- In containers


def test_a_hub_in_containers_sends_grades(new_hub, lms):
    hub = new_hub()
    hub.up(**environment(lms))
    class_ = Class(hub, lms)
    number, name = class_.graded()
    assert class_.send(number) == "Sent the grades of 1 learner."
    assert {user: score["scoreGiven"] for (_, user), score in lms.scores.items()} == {name: 2}
    mode = run_in(hub.container("hub"), "stat", "-c", "%a", "/srv/state/hub/lti-key.pem")
    assert mode.strip() == "600"
    hub.container("hub").restart()
    wait_until(hub.answers, "the hub answers again")
    assert class_.send(number) == "Sent the grades of 1 learner."
    assert len(lms.items) == 1
    # Without the token URL, the form is gone.
    hub.up(**environment(lms) | {"COURSE_LTI_TOKEN_URL": ""})
    page = class_.teacher.get(f"{hub.url}/hub/assignments/{number}", timeout=30)
    assert "Grade on your own computer" in page.text
    assert "Send the grades" not in page.text
    url = f"{hub.url}/hub/assignments/{number}/send"
    assert post(class_.teacher, url).status_code == 404
