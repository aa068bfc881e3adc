"""Test access to a class hub: sign-up, class codes, passwords and misuse."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from hubs import PASSWORD, ClassHub, ClassLearner, Learner, post, wait_until
from jupyterhub import orm, roles
from jupyterhub.utils import utcnow
from sqlalchemy.orm import object_session
from tornado import web

from tfcourse.hub import limits, state
from tfcourse.hub.accounts import native, passwords, sessions
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.accounts.browsers import tag
from tfcourse.hub.settings import TRUSTED_PROXIES

CODE = "Tensors 2026"
ANOTHER = "another horse 9"


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a running hub with a class code."""
    hub = new_hub()
    assert "with the class code" in hub.up(COURSE_CLASS_CODE=CODE)
    return hub


class Classmate(Learner):
    """A learner who has signed up with the class code but has not started a server."""

    def __init__(self, hub: ClassHub, name: str):
        hub.sign_up(name, code=CODE)
        self.hub, self.name = hub, name
        self.session = hub.login(name).session

    def is_logged_in(self) -> bool:
        page = self.session.get(f"{self.hub.url}/hub/home", timeout=30)
        return page.url == f"{self.hub.url}/hub/home"


def alert(page: requests.Response) -> str:
    """Return the message that the page shows about a submitted form."""
    assert page.status_code == 200, page.text
    return " ".join(re.search(r'role="alert">(.*?)</div>', page.text, re.S)[1].split())


# --- Signing up


def test_who_gives_the_class_code_comes_in_at_once(hub):
    assert "Class code" in hub.session().get(f"{hub.url}/hub/signup", timeout=30).text
    assert "You can log in now." in hub.sign_up("ada", code=f" {CODE} ")
    assert hub.login("ada").url == f"{hub.url}/hub/spawn"


def test_who_gives_none_waits(hub):
    assert "once your instructor lets you in" in hub.sign_up("bob")
    assert "Your instructor has to let" in hub.login("bob").text


def test_a_wrong_class_code_makes_no_account_and_is_told_to_nobody(hub):
    for code in (CODE.lower(), CODE[:-1], CODE + "x", "wrong"):
        assert "The class code is wrong." in hub.sign_up("eve", code=code)
    assert "Invalid username" in hub.login("eve").text
    pages = hub.session().get(f"{hub.url}/hub/signup", timeout=30).text
    log = hub.container("hub").logs() + hub.container("proxy").logs()
    assert CODE not in pages + log.decode()


def test_class_codes_cannot_be_guessed_for_long(new_hub):
    hub = new_hub()
    hub.up(COURSE_CLASS_CODE=CODE)
    for number in range(20):
        assert "The class code is wrong." in hub.sign_up("eve", code=f"guess {number}")
    assert "too many wrong class codes. Try again in" in hub.sign_up("eve", code=CODE)
    assert "once your instructor lets you in" in hub.sign_up("adam")


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"name": ""}, "A user name has at most 32 characters: lowercase letters"),
        ({"name": "a/b"}, "A user name has at most"),
        ({"name": "../x"}, "A user name has at most"),
        ({"name": ".hidden"}, "A user name has at most"),
        ({"name": "{username}"}, "A user name has at most"),
        ({"name": "a" * 33}, "A user name has at most"),
        ({"name": "a b"}, "A user name has at most"),
        ({"name": "a\nb"}, "A user name has at most"),
        ({"name": "<b>x"}, "A user name has at most"),
        ({"password": "short 9"}, "The password is too short: at least 10 characters are needed."),
        ({"password": "1234567890"}, "This password is one of the most common ones."),
        ({"password": "x" * 73}, "The password is too long: at most 72 bytes"),
        ({"password": "ü" * 37}, "The password is too long"),
        ({"again": "correct horse 8"}, "The two passwords differ."),
        ({"name": "instructor"}, "This user name is already in use."),
        ({"name": "Instructor"}, "This user name is already in use."),
    ],
)
def test_a_refusal_says_why(hub, form, sentence):
    assert hub.sign_up(**{"name": "mallory", **form}).startswith(sentence)
    assert hub.login("mallory").url.startswith(f"{hub.url}/hub/login")


@pytest.fixture
def authenticator(monkeypatch) -> native.CourseAuthenticator:
    """Return an authenticator with an in-memory database.

    Tests that send requests to a real hub would be much slower.
    """
    monkeypatch.setattr(native, "hashed", lambda password: password.encode())
    authenticator = native.CourseAuthenticator(db=orm.new_session_factory("sqlite://")())
    authenticator.class_code = CODE
    authenticator.username_pattern = state.NAMES
    return authenticator


@pytest.mark.parametrize(("code", "allowed"), [("", 60), (CODE, 300)])
def test_sign_ups_are_limited_for_each_address(authenticator, monkeypatch, code, allowed):
    """A hundred learners who share an IP address and the class code can sign up at once."""
    monkeypatch.setattr(native, "WAITING", 1000)

    def sign_up(name: str, address: str) -> str:
        return asyncio.run(authenticator.sign_up(name, PASSWORD, PASSWORD, code, address))

    for number in range(allowed):
        assert sign_up(f"a{number}", "198.51.100.7") == ""
    assert sign_up("late", "198.51.100.7").startswith("There were too many sign-ups from your")
    assert sign_up("late", "198.51.100.8") == ""


def test_strangers_sign_ups_do_not_keep_out_who_has_the_class_code(authenticator):
    def sign_up(name: str, code: str) -> str:
        return asyncio.run(authenticator.sign_up(name, PASSWORD, PASSWORD, code, "198.51.100.7"))

    for number in range(60):
        assert sign_up(f"a{number}", "") == ""
    assert sign_up("late", "").startswith("There were too many sign-ups from your")
    assert sign_up("ada", CODE) == ""


def test_class_codes_cannot_be_guessed_from_many_addresses_and_nobody_is_refused(
    authenticator, monkeypatch
):
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)

    def sign_up(name: str, code: str) -> bool:
        """Sign up from an otherwise unused address; return whether the new user can log in."""
        outcome = asyncio.run(authenticator.sign_up(name, PASSWORD, PASSWORD, code, name))
        assert outcome == "" or outcome.startswith("The class code is wrong.")
        return outcome == "" and authenticator.get_user(name).is_authorized

    answers = [sign_up(f"guess{number}", f"guess {number}") for number in range(99)]
    assert not any(answers)
    assert sign_up("ada", CODE)
    assert not sign_up("guess99", "guess 99")
    assert authenticator.get_user("guess99") is None
    for name, code in (("bob", CODE), ("guess100", "guess 100")):
        assert not sign_up(name, code)
        assert authenticator.get_user(name)  # in either case, the account awaits approval
    now += 30
    assert sign_up("carol", CODE)


def test_the_hub_goes_on_while_docker_is_asked_for_a_home(authenticator):
    """A sign-up must not block other requests if the Docker engine hangs."""
    asked, answer = threading.Event(), threading.Event()

    def has_home(name: str) -> bool:
        asked.set()
        assert answer.wait(30)
        return True

    authenticator.has_home = has_home

    async def sign_up() -> str:
        waiting = asyncio.create_task(authenticator.sign_up("ada", PASSWORD, PASSWORD, CODE, "x"))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        answer.set()  # a blocked event loop would never reach this line
        return await waiting

    assert asyncio.run(sign_up()) == ""
    assert not authenticator.get_user("ada").is_authorized


def test_only_so_many_wait_to_be_let_in(authenticator):
    def sign_up(name: str, code: str) -> str:
        return asyncio.run(authenticator.sign_up(name, PASSWORD, PASSWORD, code, name))

    for number in range(native.WAITING):
        assert sign_up(f"a{number}", "") == ""
    assert sign_up("late", "").startswith("Too many people are waiting for approval.")
    assert sign_up("late", CODE) == ""


# --- Guessing


class Browser:
    """A stand-in for a request handler that also stores the browser's cookies."""

    hub = SimpleNamespace(base_url="/hub/")
    settings: ClassVar = {"cookie_secret": b"the hub's"}

    def __init__(self, address: str, secret: str = "the hub's"):
        self.request, self.secret, self.cookies = address, secret, {}

    def _set_cookie(self, name: str, value: str, **_: object) -> None:
        self.cookies[name] = web.create_signed_value(self.secret, name, value).decode()

    def get_cookie(self, name: str) -> str | None:
        return self.cookies.get(name)

    def get_secure_cookie(self, name: str, **options: int) -> bytes | None:
        return web.decode_signed_value("the hub's", name, self.get_cookie(name), **options)


class Door:
    """Log in to an in-memory authenticator from IP addresses that the test chooses."""

    def __init__(self, authenticator: native.CourseAuthenticator, run: Callable, monkeypatch):
        self.authenticator, self.run = authenticator, run
        self.checked: list[bytes] = []  # passwords that were checked against a stored one

        def matches(password: bytes, stored: bytes) -> bool:
            self.checked.append(password)
            return password == stored

        monkeypatch.setattr(native, "matches", matches)
        monkeypatch.setattr(native, "address_of", lambda request: request)

    async def knock(
        self, name: str, password: str, place: str | Browser = "198.51.100.7"
    ) -> str | int:
        """Try to log in; return the user name, 403 for a wrong password, or another error status.

        `place` is a browser, or the IP address of a new browser without cookies.
        """
        handler = Browser(place) if isinstance(place, str) else place
        data = {"username": name, "password": password}
        try:
            return await self.authenticator.authenticate(handler, data) or 403
        except web.HTTPError as error:
            return error.status_code

    def tries(self, *attempts: tuple[str | Browser, ...]) -> list[str | int]:
        """Return the outcomes of log-in attempts that arrive at the same time."""

        async def together() -> list[str | int]:
            return await asyncio.gather(*(self.knock(*attempt) for attempt in attempts))

        return self.run(together())

    def sign_up(self, *names: str) -> None:
        for name in names:
            outcome = self.authenticator.sign_up(name, PASSWORD, PASSWORD, CODE, name)
            assert self.run(outcome) == ""


@pytest.fixture
def door(authenticator, monkeypatch) -> Iterator[Door]:
    with asyncio.Runner() as runner:  # use a single event loop, as a hub does
        yield Door(authenticator, runner.run, monkeypatch)


def test_one_address_cannot_guess_at_many_names(door):
    names = [f"learner{number}" for number in range(30)]
    door.sign_up(*names)
    outcomes = door.tries(*((name, "wrong") for name in names * 3))
    assert 30 <= outcomes.count(403) <= 30 + (os.cpu_count() or 1)
    assert outcomes.count(429) == 90 - outcomes.count(403)
    assert door.tries((names[0], PASSWORD, "203.0.113.1")) == [names[0]]


def test_a_class_behind_one_address_comes_in_although_some_mistype(door):
    names = [f"learner{number}" for number in range(97)]
    door.sign_up(*names)
    mistyped = [(name, "wrong") for name in names[::4]]
    assert set(door.tries(*mistyped)) == {403}
    assert door.tries(*((name, PASSWORD) for name in names)) == names


def test_many_right_passwords_for_one_name_are_no_guesses(door):
    door.sign_up("shared")
    assert set(door.tries(*[("shared", PASSWORD)] * 97)) == {"shared"}


def test_a_classmate_who_guesses_keeps_nobody_out_who_was_here_before(door):
    door.sign_up("ada", "bob")
    assert door.tries(("ada", PASSWORD)) == ["ada"]
    outcomes = door.tries(*((f"guess{number}", "wrong") for number in range(60)))
    assert 429 in outcomes
    assert door.tries(("ada", PASSWORD), ("bob", PASSWORD)) == ["ada", 429]


def test_many_addresses_cannot_guess_at_one_name(door):
    door.sign_up("ada")
    assert door.tries(("ada", PASSWORD, "192.0.2.1")) == ["ada"]
    outcomes = door.tries(*(("ada", "wrong", f"203.0.113.{number}") for number in range(90)))
    assert 30 <= outcomes.count(403) <= 30 + (os.cpu_count() or 1)
    assert door.tries(("ada", PASSWORD, "192.0.2.1")) == ["ada"]


def test_nobody_is_kept_out_of_a_browser_that_they_have_used_before(door):
    door.sign_up("ada", "eve")
    home, lab, eves = Browser("192.0.2.1"), Browser("198.51.100.7"), Browser("203.0.113.9")
    assert door.tries(("ada", PASSWORD, home), ("ada", PASSWORD, lab)) == ["ada"] * 2
    assert door.tries(("eve", PASSWORD, eves)) == ["eve"]
    door.authenticator.guesses = passwords.Guesses()  # the hub restarts

    addresses = ["198.51.100.7", *(f"203.0.113.{number}" for number in range(90))]
    guesses = door.tries(*(("ada", "wrong", address) for address in addresses * 2))
    assert guesses.count(429) > 90
    assert door.tries(("ada", PASSWORD, "198.51.100.7")) == [429]
    home.request = "192.0.2.99"  # the IP address of a home connection can change every day
    assert door.tries(("ada", PASSWORD, home), ("ada", PASSWORD, lab)) == ["ada"] * 2

    # Nobody else can bypass Ada's lockout, either with their own cookie or with a forged one.
    forged = Browser("203.0.113.9", secret="the thief's")
    forged._set_cookie("course-known", tag(forged, "ada"))
    assert door.tries(("ada", PASSWORD, eves), ("ada", PASSWORD, forged)) == [429] * 2


def test_a_stolen_cookie_allows_five_guesses_from_all_addresses_together(door):
    door.sign_up("ada")
    stolen = Browser("192.0.2.1")
    assert door.tries(("ada", PASSWORD, stolen)) == ["ada"]
    outcomes = []
    for number in range(20):
        stolen.request = f"203.0.113.{number}"
        outcomes += door.tries(("ada", "wrong", stolen))
    assert outcomes == [403] * 5 + [429] * 15


@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b", "", "Ada Lovelace", "a/b"])
def test_names_that_nobody_can_have_are_neither_counted_nor_looked_up(door, name, monkeypatch):
    monkeypatch.setattr(door.authenticator, "get_user", None)
    assert door.tries(*[(name, "wrong")] * 50) == [403] * 50
    assert not door.authenticator.guesses.name.paid_off


def test_a_password_that_changes_while_it_is_checked_is_wrong(door, monkeypatch):
    door.sign_up("ada")

    def matches(password: bytes, stored: bytes) -> bool:
        door.authenticator.get_user("ada").password = b"new"
        return password == stored

    monkeypatch.setattr(native, "matches", matches)
    assert door.tries(("ada", PASSWORD)) == [403]


def test_no_answer_tells_whether_a_name_exists(door):
    door.sign_up("ada")
    for name in ("ada", "nobody"):
        outcomes = [door.tries((name, "wrong", f"of {name}"))[0] for _ in range(7)]
        assert outcomes == [403] * 5 + [429] * 2
    door.checked.clear()
    door.tries(("ada", "a" * 80, "x"), ("nobody", "a" * 80, "x"), ("nobody", "wrong", "x"))
    assert len(door.checked) == 3  # every attempt checked a password, so all took equally long


def test_places_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(passwords.Guesses, "REMEMBERED", 2)
    guesses = passwords.Guesses()
    for name in ("ada", "bob", "ada", "eve"):
        guesses.right(name, "x")
    assert list(guesses.known) == [("ada", "x"), ("eve", "x")]


def test_discarding_an_account_that_was_used_does_not_wait_for_a_hash(authenticator, monkeypatch):
    """Each hash takes a quarter of a second, in which the hub would serve nobody."""
    assert asyncio.run(authenticator.sign_up("ada", PASSWORD, PASSWORD, CODE, "198.51.100.7")) == ""
    authenticator.db.add(orm.User(name="ada", last_activity=utcnow(with_tz=False)))
    authenticator.db.commit()
    monkeypatch.setattr(native, "hashed", None)
    authenticator.delete_user(SimpleNamespace(name="ada"))
    account = authenticator.get_user("ada")
    assert (account.is_authorized, account.password) == (False, authenticator.hash_of_nobody)


# --- Sessions


@pytest.fixture
def user(authenticator) -> orm.User:
    """Return a user in the in-memory database, with several tokens and an OAuth code."""
    db = authenticator.db
    db.add_all(orm.OAuthClient(identifier=name) for name in ("jupyterhub", "jupyterhub-user-ada"))
    for role in roles.get_default_roles():
        roles.create_role(db, role)
    user = orm.User(name="ada")
    db.add(user)
    roles.assign_default_roles(db, entity=user)
    db.add(orm.OAuthCode(user=user, code="kept", redirect_uri="", expires_at=2**31))
    db.commit()
    note = "Server at /user/ada/"
    spawner = SimpleNamespace(api_token=user.new_api_token(note=note))
    user.new_api_token(note=note)  # a thief's
    orm.APIToken.new(user=user, client_id="jupyterhub-user-ada", session_id=sessions.SERVER)
    authenticator.pre_spawn_start(SimpleNamespace(db=db), spawner)
    user.server_token = spawner.api_token
    return user


@pytest.mark.parametrize(
    ("keep", "left"),
    [(sessions.Keep.SCRIPTS, 2), (sessions.Keep.SERVERS, 1), (sessions.Keep.NOTHING, 0)],
)
def test_when_sessions_end_no_code_and_no_token_with_a_servers_note_stays(user, keep, left):
    db, cookie = object_session(user), user.cookie_id
    sessions.end_sessions(db, "ada", keep)
    assert user.cookie_id != cookie
    assert len(user.api_tokens) == left
    assert bool(orm.APIToken.find(db, user.server_token)) == bool(left)
    assert not user.oauth_codes


# --- Settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"COURSE_ACCOUNTS": "ldap"}, "COURSE_ACCOUNTS is 'ldap', but it has to be 'native' or"),
        ({"COURSE_SIGNUP": "closed"}, "COURSE_SIGNUP is 'closed', but it has to be 'approval' or"),
        ({"COURSE_CLASS_CODE": "seven 7"}, "COURSE_CLASS_CODE has to have at least 8"),
        ({"COURSE_CLASS_CODE": CODE, "COURSE_SIGNUP": "open"}, "set only one of the two."),
        ({"COURSE_OAUTH_ISSUER": "https://x"}, "COURSE_OAUTH_ISSUER is for COURSE_ACCOUNTS=oauth"),
        ({"COURSE_ACCOUNTS": "lti", "COURSE_SIGNUP": "open"}, "is for COURSE_ACCOUNTS=native, but"),
        ({"COURSE_TRUSTED_PROXIES": "10.0.0.1/8"}, "but it has to be a comma-separated list"),
        ({"COURSE_TRUSTED_PROXIES": "ingress"}, "COURSE_TRUSTED_PROXIES is 'ingress'"),
        ({"COURSE_TRUSTED_PROXIES": "::1,0.0.0.0/0"}, "any visitor could claim any other"),
        ({"COURSE_ADMIN": "Teacher"}, "COURSE_ADMIN is 'Teacher', which is not a valid user name"),
        ({"COURSE_ADMIN": "a@b"}, "COURSE_ADMIN is 'a@b', which is not a valid user name"),
    ],
)
def test_a_setting_of_accounts_that_cannot_be_gets_a_sentence(monkeypatch, settings, sentence):
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)

    def read() -> None:
        accounts.kind()
        accounts.open_signup()
        accounts.class_code()
        TRUSTED_PROXIES()
        accounts.administrator()

    with pytest.raises(SystemExit, match=re.escape(sentence)) as end:
        read()
    assert "seven 7" not in str(end.value)


# --- Passwords


def change_password(mate: Classmate, old: str, new: str, again: str | None = None) -> str:
    form = {
        "old_password": old,
        "new_password": new,
        "new_password_confirmation": new if again is None else again,
    }
    return alert(post(mate.session, f"{mate.hub.url}/hub/change-password", data=form))


def test_a_learner_changes_the_password_and_is_logged_out_elsewhere(hub):
    mate = Classmate(hub, "carol")
    elsewhere = hub.login("carol").session
    tokens = f"{hub.url}/hub/api/users/carol/tokens"
    stolen = {"Authorization": "token " + post(mate.session, tokens, json={}).json()["token"]}
    for old, new, again, sentence in [
        ("x" * 73, ANOTHER, None, "The old password is wrong."),
        ("", ANOTHER, None, "The old password is wrong."),
        (PASSWORD, "short", None, "The password is too short"),
        (PASSWORD, ANOTHER, "x", "The two passwords differ."),
        (PASSWORD, ANOTHER, None, "The password has been changed."),
    ]:
        assert change_password(mate, old, new, again).startswith(sentence)
    assert mate.is_logged_in()
    home = f"{hub.url}/hub/home"
    assert "/hub/login" in elsewhere.get(home, timeout=30).url
    assert requests.get(tokens, headers=stolen, timeout=30).status_code == 403
    assert "Invalid username" in hub.login("carol").text
    assert hub.login("carol", ANOTHER).url == f"{hub.url}/hub/spawn"


def test_old_passwords_cannot_be_guessed_for_long(hub):
    mate = Classmate(hub, "dave")
    for _ in range(5):
        assert change_password(mate, "wrong", ANOTHER) == "The old password is wrong."
    assert "too many wrong passwords" in change_password(mate, PASSWORD, ANOTHER)


def test_a_running_server_outlives_a_new_password(hub):
    hub.sign_up("erin", code=CODE)
    hub.admit = lambda name: None  # erin has already signed up with the class code
    erin = ClassLearner(hub, "erin")
    erin.start_server()
    began = erin.container.id
    assert change_password(erin, PASSWORD, ANOTHER).startswith("The password has been changed.")
    erin.session = hub.login("erin", ANOTHER).session
    # The server uses its own token to report activity to the hub.
    own = {"Authorization": "token " + erin.run("printenv", "JUPYTERHUB_API_TOKEN").strip()}
    activity = f"{hub.url}/hub/api/users/erin/activity"
    now = {"last_activity": "2026-01-01T00:00:00Z"}
    told = requests.post(activity, headers=own, json=now, timeout=30)
    assert told.ok, told.text
    page = erin.session.get(f"{hub.url}/user/erin/api/status", timeout=30)
    assert page.ok, page.text
    assert erin.container.id == began


def test_the_hub_remembers_a_browser_but_gives_it_no_rights(hub):
    mate = Classmate(hub, "ida")
    mate.session.get(f"{hub.url}/hub/logout", timeout=30)
    known = {cookie.name: cookie for cookie in mate.session.cookies}["course-known"]
    assert known.path == "/hub/"
    _, _, _, _, value, _ = known.value.strip('"').split("|")  # Tornado's format for signed cookies
    assert re.fullmatch(b"[0-9a-f]{64}", base64.b64decode(value.partition(":")[2]))
    assert known.expires > time.time() + 300 * 24 * 3600
    assert not mate.is_logged_in()
    for _ in range(5):
        hub.login("ida", "wrong")
    assert hub.login("ida").status_code == 429
    mate.session.get(f"{hub.url}/hub/login", timeout=30)
    form = {"username": "ida", "password": PASSWORD}
    assert post(mate.session, f"{hub.url}/hub/login", data=form).url == f"{hub.url}/hub/spawn"


def test_a_newcomer_logs_in_although_others_guess_at_the_new_name(hub):
    session = hub.session()
    form = {"username": "jean", "class_code": CODE, "signup_password": PASSWORD}
    form |= {"signup_password_confirmation": PASSWORD, "password": PASSWORD}
    post(session, f"{hub.url}/hub/signup", data=form)
    for _ in range(5):
        hub.login("jean", "wrong")
    assert hub.login("jean").status_code == 429
    assert post(session, f"{hub.url}/hub/login", data=form).url == f"{hub.url}/hub/spawn"


def test_an_administrator_changes_rights_but_no_names(hub):
    """If a user were renamed, existing sessions would open the new name's home directory."""
    Classmate(hub, "joan")
    admin = hub.login("instructor", hub.admin_password).session

    def change(**model: object) -> requests.Response:
        xsrf = {"_xsrf": admin.cookies.get("_xsrf", path="/hub/")}
        url = f"{hub.url}/hub/api/users/joan"
        return admin.patch(url, params=xsrf, json=model, timeout=30)

    refused = change(name="joanna")
    assert refused.status_code == 400
    assert "joan cannot be renamed" in refused.json()["message"]
    for is_admin in (True, False):  # the *Admin* page also sends the unchanged name
        assert change(name="joan", admin=is_admin).json()["admin"] == is_admin
    assert hub.login("joan").url == f"{hub.url}/hub/spawn"


def test_the_administrator_changes_a_forgotten_password_and_logs_nobody_else_out(hub):
    frank, other = Classmate(hub, "frank"), Classmate(hub, "grace")
    admin = hub.login("instructor", hub.admin_password).session
    url = f"{hub.url}/hub/change-password/frank"
    for again, sentence in [("x", "The two passwords differ."), (ANOTHER, "The password has been")]:
        form = {"new_password": ANOTHER, "new_password_confirmation": again}
        assert alert(post(admin, url, data=form)).startswith(sentence)
    assert hub.login("frank", ANOTHER).url == f"{hub.url}/hub/spawn"
    assert not frank.is_logged_in()
    assert other.is_logged_in()
    assert admin.get(f"{hub.url}/hub/admin", timeout=30).status_code == 200
    assert post(other.session, url, data=form).status_code == 403
    assert post(admin, f"{hub.url}/hub/change-password/nobody", data=form).status_code == 404


def test_a_lost_administrators_password_is_replaced(new_hub):
    hub = new_hub()
    with pytest.raises(AssertionError, match="The hub has to be running for that: make up"):
        hub.make("password", NAME="instructor")
    hub.up()
    lost = hub.admin_password
    session = hub.login("instructor", lost).session
    with pytest.raises(AssertionError, match="There is no account 'nobody'"):
        hub.make("password", NAME="nobody")
    said = hub.make("password", NAME="instructor")
    new = re.search(r"Password +(\S+)", said)[1]

    def works() -> bool:
        try:
            return 'href="/hub/authorize"' in hub.login("instructor", new).text
        except requests.RequestException:  # the hub is restarting
            return False

    wait_until(works, "the new password works")
    assert "/hub/login" in session.get(f"{hub.url}/hub/home", timeout=30).url
    assert "Invalid username" in hub.login("instructor", lost).text
    again = hub.up()  # `make up` prints no password, because the initial one no longer works
    assert lost not in again
    assert new not in again
    assert "make password NAME=instructor" in again
    assert new not in hub.container("hub").logs().decode()


# --- Misuse


@pytest.fixture(scope="module")
def visitors(hub) -> dict[str, requests.Session]:
    """Return the sessions of a stranger, a learner and an administrator.

    Also create an account called `bystander`, whose change-password page the tests use.
    """
    Classmate(hub, "bystander")
    return {
        "stranger": hub.session(),
        "learner": Classmate(hub, "victim").session,
        "administrator": hub.login("instructor", hub.admin_password).session,
    }


PAGES = ["login", "signup", "authorize", "roster", "change-password", "change-password/bystander"]
PAGES += ["home"]
ODD = {
    "nothing": b"",
    "no form": b"\0\xff",
    "not UTF-8": b"username=%ff%fe&password=%ff&signup_password=%ff&old_password=%ff"
    b"&new_password=%ff&class_code=%ff&roster=%ff&name=%ff",
    "NUL": b"username=a%00b&password=a%00b&signup_password=aaaaaaaaaa%00&old_password=%00"
    b"&signup_password_confirmation=aaaaaaaaaa%00&new_password=aaaaaaaaaa%00"
    b"&new_password_confirmation=aaaaaaaaaa%00&roster=a%00b&name=a%00b",
    "huge": b"&".join(
        name + b"=" + b"x" * 40_000  # the total stays below the body limit (test_bounds.py)
        for name in (b"username", b"password", b"signup_password", b"old_password", b"class_code")
    ),
    "twice": b"username=a&username=b&password=x&password=y&new_password=x&new_password=y"
    b"&roster=&roster=&name=x&name=x",
    "lone surrogate": b"username=%ed%a0%80&password=%ed%a0%80&class_code=%ed%a0%80&roster=%ed%a0%80"
    b"&name=%ed%a0%80",
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("visitor", ["stranger", "learner", "administrator"])
def test_odd_forms_get_an_answer(hub, visitors, visitor, odd):
    targets = ["discard/%00", "authorize/%00", "authorize/..%2f", "change-password/%C3%BF"]
    targets += ["change-password/" + "x" * 3000, "discard/nobody", "confirm/x"]
    targets += ["roster/create", "roster/passwords"]
    for page in PAGES + targets:
        response = post(
            visitors[visitor],
            f"{hub.url}/hub/{page}",
            data=ODD[odd],
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert response.status_code < 500, (page, hub.log("hub"))


@pytest.mark.parametrize("page", ["login", "signup"])
def test_a_page_does_not_repeat_a_long_name(hub, page):
    """A quotation mark takes five bytes in the page's HTML."""
    form = {"username": '"' * 80_000, "password": "wrong", "signup_password": "wrong"}
    normal = post(hub.session(), f"{hub.url}/hub/{page}", data={**form, "username": '"'})
    response = post(hub.session(), f"{hub.url}/hub/{page}", data=form)
    assert "&#34;&#34;" in response.text
    assert len(response.text) < len(normal.text) + 5000


@pytest.mark.parametrize("auth", [None, [], "x", {"username": "instructor"}, {"password": 1}, 1])
def test_odd_log_ins_through_the_api_are_refused(hub, auth):
    url = f"{hub.url}/hub/api/users/instructor/tokens"
    assert requests.post(url, json={"auth": auth}, timeout=30).status_code in (400, 403)


def test_guessing_through_the_api_is_limited_as_well(hub):
    Classmate(hub, "heidi")
    url = f"{hub.url}/hub/api/users/heidi/tokens"
    for password in ["wrong"] * 5 + [PASSWORD]:
        auth = {"username": "heidi", "password": password}
        assert requests.post(url, json={"auth": auth}, timeout=30).status_code == 403
    assert hub.login("heidi").status_code == 429


@pytest.mark.parametrize("visitor", ["stranger", "learner", "administrator"])
def test_each_form_has_a_token_against_forgery(hub, visitors, visitor):
    seen = 0
    for page in PAGES:
        text = visitors[visitor].get(f"{hub.url}/hub/{page}", timeout=30).text
        for form in re.findall(r"<form.*?</form>", text, re.S):
            if 'method="post"' in form:
                seen += 1
                assert "_xsrf" in form, form
    assert seen
    forged = visitors[visitor].post(f"{hub.url}/hub/change-password/victim", data={}, timeout=30)
    assert forged.status_code == 403


def test_no_link_on_these_pages_changes_an_account(hub, visitors):
    admin = visitors["administrator"]

    def known() -> str:
        page = admin.get(f"{hub.url}/hub/authorize", timeout=30).text
        return re.sub(r'value="[^"]*"', "", re.search("<main.*</main>", page, re.S)[0])

    before = known()
    for page in PAGES:
        address = f"{hub.url}/hub/{page}"
        text = admin.get(address, timeout=30).text
        for link in re.findall(r'<a[^>]* href="([^"]*)"', text):
            if "logout" not in link and urljoin(address, link).startswith(f"{hub.url}/hub"):
                assert admin.get(urljoin(address, link), timeout=30).status_code < 500, link
    assert known() == before


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "http:///evil.example",
        "https:evil.example",
        "/%2fevil.example",
        "\t//evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "@evil.example",
        ".evil.example",
    ],
)
def test_nobody_is_sent_elsewhere_after_logging_in(hub, visitors, target):
    session = hub.session()
    form = {"username": "victim", "password": PASSWORD}
    xsrf = {"_xsrf": session.cookies.get("_xsrf", path="/hub/"), "next": target}
    url = f"{hub.url}/hub/login"
    for answer in (
        session.post(url, params=xsrf, data=form, timeout=30, allow_redirects=False),
        session.get(url, params=xsrf, timeout=30, allow_redirects=False),
    ):
        assert answer.status_code == 302
        location = answer.headers["Location"]
        assert urlsplit(urljoin(url, location)).netloc == urlsplit(hub.url).netloc, location
        assert not re.match(r"[\s/\\]{2}", location)


def test_a_link_to_an_environment_is_followed_after_logging_in(hub, visitors):
    session = hub.session()
    target = "/hub/spawn?profile=tensorflow-gpu"
    page = session.get(hub.url + target, timeout=30)
    assert page.url.startswith(f"{hub.url}/hub/login?next=")
    action = re.search(r'<form action="([^"]*)"', page.text)[1].replace("&amp;", "&")
    xsrf = session.cookies.get("_xsrf", path="/hub/")
    form = {"username": "victim", "password": PASSWORD, "_xsrf": xsrf}
    answer = session.post(hub.url + action, data=form, timeout=30, allow_redirects=False)
    assert answer.headers["Location"] == target
