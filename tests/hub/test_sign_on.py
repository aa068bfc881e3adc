"""Test logging in to a class hub through OAuth or LTI 1.3.

The hubs run in real containers. The OpenID provider is oidc-provider-mock, which is based on
Authlib's server. The learning platform is a stand-in (tests/learning_platform.py).
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import parse_qs, urljoin, urlsplit

import jwt
import oidc_provider_mock
import pytest
import requests
from authority import Authority
from cryptography.hazmat.primitives.asymmetric import rsa
from dockerspawner import DockerSpawner
from hubs import ClassHub, ClassLearner, free_ports, post, run_cell, run_in, wait_until
from learning_platform import CLAIM, CLIENT, Platform
from ltiauthenticator.lti13.validator import LTI13LaunchValidator
from oidc_provider_mock import User
from tornado import web
from tornado.web import create_signed_value, decode_signed_value
from traitlets.config import Config

from tfcourse.hub import settings
from tfcourse.hub.accounts import lti, oauth, setup, sign_on

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:authlib")

# --- Settings


PROVIDER = {
    "COURSE_ACCOUNTS": "oauth",
    "COURSE_OAUTH_CLIENT_ID": "hub",
    "COURSE_OAUTH_CLIENT_SECRET": "do not show me",
    "COURSE_OAUTH_ALLOWED": "@example.org",
    "COURSE_OAUTH_AUTHORIZE_URL": "https://id.example.org/authorize",
    "COURSE_OAUTH_TOKEN_URL": "https://id.example.org/token",
    "COURSE_OAUTH_USERINFO_URL": "https://id.example.org/userinfo",
}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            dict.fromkeys(PROVIDER, "") | {"COURSE_ACCOUNTS": "oauth"},
            "COURSE_ACCOUNTS=oauth needs these settings, too: COURSE_OAUTH_CLIENT_ID, "
            "COURSE_OAUTH_CLIENT_SECRET, COURSE_OAUTH_ALLOWED.",
        ),
        ({"COURSE_OAUTH_ALLOWED": ""}, "needs these settings, too: COURSE_OAUTH_ALLOWED."),
        ({"COURSE_OAUTH_ALLOWED": "*,students"}, "or just '*'"),
        ({"COURSE_OAUTH_ALLOWED": " , "}, "has to be a list of groups and domains"),
        ({"COURSE_OAUTH_TOKEN_URL": ""}, "needs these settings, too: COURSE_OAUTH_TOKEN_URL."),
        ({"COURSE_OAUTH_ISSUER": "https://id.example.org"}, "so is COURSE_OAUTH_AUTHORIZE_URL"),
        ({"COURSE_OAUTH_TOKEN_URL": "http://id.example.org"}, "has to start with https://"),
        ({"COURSE_OAUTH_TOKEN_URL": "https:/id.example.org"}, "has to start with https://"),
        (
            {"COURSE_OAUTH_NAME": "nickname"},
            "'nickname', but it has to be a claim that people cannot choose",
        ),
        (
            {variable: "" for variable in PROVIDER if variable.endswith("_URL")},
            "needs COURSE_OAUTH_ISSUER or",
        ),
    ],
)
def test_a_setting_of_oauth_that_cannot_be_gets_a_sentence(monkeypatch, settings, sentence):
    for variable, value in {**PROVIDER, **settings}.items():
        monkeypatch.setenv(variable, value)

    def read() -> None:
        oauth.configure(Config())

    with pytest.raises(SystemExit, match=re.escape(sentence)) as end:
        read()
    assert "do not show me" not in str(end.value)


@pytest.mark.parametrize("kind", ["oauth", "lti"])
def test_what_is_missing_is_named_at_start(new_hub, kind):
    with pytest.raises(AssertionError) as end:
        new_hub().up(COURSE_ACCOUNTS=kind)
    variable = {"oauth": "COURSE_OAUTH_CLIENT_SECRET", "lti": "COURSE_LTI_CLIENT_ID"}[kind]
    assert re.search(
        f"COURSE_ACCOUNTS={kind} needs these settings, too: .*{variable}", str(end.value)
    )


# --- Names


@pytest.mark.parametrize(
    ("claims", "claim", "name"),
    [
        ({"email": "Ada@Example.org"}, "email", "ada@example.org"),
        ({"sub": "248289761001"}, "sub", "248289761001"),
        ({"preferred_username": "Ada.L"}, "preferred_username", "ada.l"),
        ({"sub": 2}, "sub", "2"),
        ({"eppn": ["Ada@Example.org"]}, "eppn", "ada@example.org"),
    ],
)
def test_a_name_from_elsewhere_is_written_small(claims, claim, name):
    assert sign_on.user_name(claims, claim) == name


# Identifiers as services send them -> the readable part of the user name, before the tilde.
IDENTIFIERS = {
    "EJ2lYlCUyLZqYEkhhhZqmtQJcZFrsaNlvaQz2cLoIUs": "ej2lylcuylzqyekhhhzqmtqjczfrsanlvaqz2clo",
    "https://lms.example.org/user/c71bb6b6-3f3c": "c71bb6b6-3f3c",  # Sakai
    "http://cilogon.org/serverA/users/12345": "12345",
    "http://cilogon.org/serverE/users/12345": "12345",
    "http://cilogon.org/serverA/users/12345/": "12345",
    "auth0|5f7c8ec7": "auth0-5f7c8ec7",
    "AUTH0|5F7C8EC7": "auth0-5f7c8ec7",
    "aB3": "ab3",
    "Ab3": "ab3",
    "ada.o'brien@example.org": "ada.o-brien@example.org",
    "ada.o-brien@example.org~abcdefghijklmnop": "ada.o-brien@example.org-abcdefghijklmnop",
    "maximiliane-alexandra.von-hohenlohe-waldenburg@student.example.org": (
        "maximiliane-alexandra.von-hohenlohe-wald"
    ),
    "jürgen@example.org": "j-rgen@example.org",
    "\N{KELVIN SIGN}ate@example.org": "kate@example.org",  # lower-cased, it is "kate@..."
    "ada@example.org\n": "ada@example.org",
    " ada@example.org": "ada@example.org",
    "../ada": "ada",
    "..": "user",
    "日本": "user",
    "中国": "user",
    "\ud800": "user",
    "<script>": "script",
    "x" * 5000: "x" * 40,
}


@pytest.mark.parametrize("identifier", IDENTIFIERS, ids=ascii)
def test_any_identifier_becomes_a_safe_name(identifier):
    name = sign_on.user_name({"sub": identifier}, "sub")
    assert name.partition("~")[0] == IDENTIFIERS[identifier]
    assert re.match(sign_on.NAMES, name)
    assert not re.match(sign_on.PLAIN, name)  # nobody's identifier is this name
    assert name == sign_on.user_name({"sub": identifier}, "sub")


@pytest.mark.parametrize("claim", ["sub", "uid", "eptid", "eduPersonTargetedID"])
def test_upper_and_lower_case_are_two_people(claim):
    assert len({sign_on.user_name({claim: name}, claim) for name in ("aB3", "Ab3", "ab3")}) == 3


def test_no_two_identifiers_become_one_name():
    names = {sign_on.safe_name(identifier) for identifier in IDENTIFIERS}
    assert len(names) == len(IDENTIFIERS)
    alike = {sign_on.safe_name(f"a{chr(0x4E00 + number)}b") for number in range(10_000)}
    assert len(alike) == 10_000  # all of them begin with "a-b~"
    assert len({DockerSpawner._escape(name) for name in names}) == len(IDENTIFIERS)
    again = {sign_on.safe_name(name) for name in names}
    assert not names & again  # a person whose identifier is somebody's name here


def test_the_name_of_an_identifier_stays_the_same():
    """If the name of a person changed, they would find an empty home."""
    assert sign_on.safe_name("auth0|5f7c8ec7c33c") == "auth0-5f7c8ec7c33c~7e5shnvvzp5ei5e5"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Ada.O'Brien@Example.org", "ada.o'brien@example.org"),
        ("JÜRGEN@example.org", "jÜrgen@Example.org"),
    ],
)
def test_the_case_of_an_address_does_not_matter(first, second):
    names = {sign_on.user_name({"email": email}, "email") for email in (first, second)}
    assert len(names) == 1


@pytest.mark.parametrize(
    ("claims", "claim"),
    [
        ({"email": ["ada@example.org", "grace@example.org"]}, "email"),
        ({"email": {"value": "ada@example.org"}}, "email"),
        ({"email": [["ada@example.org"]]}, "email"),
        ({"email": []}, "email"),
        ({"email": ""}, "email"),
        ({"email": " "}, "email"),
        ({"email": True}, "email"),
        ({"sub": "ada"}, "email"),
    ],
)
def test_a_claim_that_is_missing_is_a_sentence(claims, claim):
    with pytest.raises(web.HTTPError, match=r"403.*Tell your instructor\.") as refusal:
        sign_on.user_name(claims, claim)
    assert refusal.value.status_code == 403


@pytest.mark.parametrize(
    ("admin", "claim", "name"),
    [
        ("", "sub", ""),
        ("teacher@example.org", "email", "teacher@example.org"),
        ("Teacher@Example.org", "email", "teacher@example.org"),
        ("auth0|5f7c", "sub", sign_on.safe_name("auth0|5f7c")),
        (sign_on.safe_name("auth0|5f7c"), "sub", sign_on.safe_name("auth0|5f7c")),
    ],
)
def test_the_administrator_may_be_an_identifier(monkeypatch, admin, claim, name):
    monkeypatch.setenv("COURSE_ADMIN", admin)
    assert setup.administrator_elsewhere(claim) == name


def test_no_two_names_have_one_home():
    names = ["a@b.c", "a-b.c", "a.b.c", "a_b.c", "a-40b.c", "a+b.c", "a-40b-2ec", "a-2d40b"]
    escaped = {DockerSpawner._escape(name) for name in names}
    assert len(escaped) == len(names)
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in escaped)


# --- OAuth

SECRET = "do not show me"


@pytest.mark.parametrize("page", [oauth.StartHandler, lti.StartHandler])
def test_a_long_address_makes_no_large_cookie(monkeypatch, page):
    """If a cookie were too large, the proxy would reject all of the browser's requests."""
    kept = []
    monkeypatch.setattr(page.__mro__[2], "set_state_cookie", lambda self, value: kept.append(value))
    handler = page.__new__(page)
    handler.set_state_cookie("x" * sign_on.LONGEST_STATE)
    with pytest.raises(web.HTTPError, match="This URL is too long"):
        handler.set_state_cookie("x" * (sign_on.LONGEST_STATE + 1))
    assert len(kept) == 1


class OAuthHub(ClassHub):
    """A hub whose learners log in through an OpenID provider."""

    def admit(self, name: str) -> None:
        """Do nothing, because the OpenID provider manages the learners' accounts."""

    def login(self, user: str, password: str | None = None) -> requests.Response:
        """Log in as a browser does: submit the name to the provider, then return to the hub."""
        session = self.session()
        asks = session.get(f"{self.url}/hub/oauth_login", timeout=30)
        response = session.post(asks.url, data={"sub": user}, timeout=30)
        response.session = session
        return response


IRISH = sign_on.safe_name("ada.o'brien@example.org")  # her user name on the hub
PEOPLE = [
    User(sub="ada@example.org", claims={"email": "Ada@Example.org", "email_verified": True}),
    User(
        sub="grace",
        claims={"email": "grace@else.example", "email_verified": True, "groups": ["x", "students"]},
    ),
    User(sub="teacher", claims={"email": "teacher@else.example", "email_verified": True}),
    User(sub="stranger", claims={"email": "mallory@else.example", "email_verified": True}),
    User(
        sub="tricky",  # the address and both groups are outside our domain
        claims={
            "email": "x@example.org@else.example",
            "email_verified": True,
            "groups": ["@example.org", "*"],
        },
    ),
    User(sub="unverified", claims={"email": "eve@example.org"}),
    User(sub="impostor", claims={"email": "teacher@else.example", "email_verified": False}),
    User(sub="nameless", claims={}),
    User(sub=IRISH, claims={"email": "Ada.O'Brien@example.org", "email_verified": True}),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Start an OpenID provider; return its URL."""
    with oidc_provider_mock.run_server_in_thread(
        require_client_registration=True, user_claims=PEOPLE
    ) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def oauth_hub(new_hub, provider) -> OAuthHub:
    hub = new_hub(OAuthHub)
    registered = requests.post(
        f"{provider}/oauth2/clients",
        json={"redirect_uris": [f"{hub.url}/hub/oauth_callback"]},
        timeout=30,
    ).json()
    hub.secret = registered["client_secret"]
    said = hub.up(
        COURSE_ACCOUNTS="oauth",
        COURSE_ADMIN="teacher@else.example",
        COURSE_OAUTH_ALLOWED="students, @example.org",
        COURSE_OAUTH_CLIENT_ID=registered["client_id"],
        COURSE_OAUTH_CLIENT_SECRET=hub.secret,
        COURSE_OAUTH_ISSUER=provider,
    )
    assert "Password" not in said
    assert "Admin     teacher@else.example" in said
    return hub


@pytest.fixture(scope="module")
def ada(oauth_hub) -> ClassLearner:
    """Return a learner whose user name is an e-mail address and whose server is running."""
    ada = ClassLearner(oauth_hub, "ada@example.org")
    ada.start_server()
    return ada


def test_a_learner_with_an_address_for_a_name_gets_a_server(ada):
    container = ada.container
    assert "ada" not in container.name
    mounts = {mount["Destination"]: mount["Source"] for mount in container.attrs["Mounts"]}
    assert mounts["/home/jovyan"] == f"{ada.hub.homes}/homes/ada-40example-2eorg"
    assert ada.api("GET", "/user/{name}/api/status").ok
    environment = json.dumps(container.attrs["Config"]["Env"])
    assert "OAUTH_CLIENT_SECRET" not in environment
    assert ada.hub.secret not in environment


def test_a_learner_with_an_odd_address_gets_a_server(oauth_hub):
    learner = ClassLearner(oauth_hub, IRISH)
    learner.start_server()
    assert learner.api("GET", "/user/{name}/api/status").ok
    assert learner.session.get(f"{oauth_hub.url}/user/{IRISH}/lab", timeout=30).ok
    mounts = {m["Destination"]: m["Source"] for m in learner.container.attrs["Mounts"]}
    home = mounts["/home/jovyan"].removeprefix(f"{oauth_hub.homes}/homes/")
    assert re.fullmatch("ada-2eo-2dbrien-40example-2eorg-7e[a-z2-7]{16}", home)
    assert run_cell(learner, learner.start_kernel(), "print(1 + 1)") == "2\n"
    learner.stop_server()


def test_a_group_lets_in_as_well(oauth_hub):
    page = oauth_hub.login("grace")
    assert page.url == f"{oauth_hub.url}/hub/spawn"
    assert "grace@else.example" in page.text
    assert page.session.get(f"{oauth_hub.url}/hub/admin", timeout=30).status_code == 403


def test_the_administrator_is_whom_the_setting_names(oauth_hub):
    page = oauth_hub.login("teacher")
    assert page.session.get(f"{oauth_hub.url}/hub/admin", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("person", "sentence"),
    [
        ("stranger", "Your account is not allowed to use this hub."),
        ("tricky", "Your account is not allowed to use this hub."),
        ("unverified", "does not say whether eve@example.org is yours. Tell your instructor"),
        ("impostor", "has not verified that teacher@else.example is yours"),
        ("nameless", "did not send your email. Tell your instructor."),
    ],
)
def test_others_are_refused_with_a_sentence(oauth_hub, person, sentence):
    page = oauth_hub.login(person)
    assert page.status_code == 403
    assert sentence in page.text
    home = page.session.get(f"{oauth_hub.url}/hub/home", timeout=30)
    assert home.url.startswith(f"{oauth_hub.url}/hub/login")


def test_the_provider_is_asked_again_each_day(oauth_hub):
    session = oauth_hub.login("grace").session
    secret = run_in(oauth_hub.container("hub"), "cat", "/srv/state/hub/cookie_secret")
    name, cookie = next(c for c in session.cookies.items() if c[0] == "jupyterhub-hub-login")
    secret = bytes.fromhex(secret)
    who = decode_signed_value(secret, name, cookie.strip('"'))

    def page_after(hours: float) -> str:
        """Open a page with a log-in cookie that is `hours` hours old; return the final URL."""
        then = time.time() - 3600 * hours
        old = create_signed_value(secret, name, who, clock=lambda: then)
        cookies = {name: old.decode()}
        return requests.get(f"{oauth_hub.url}/hub/home", cookies=cookies, timeout=30).url

    assert page_after(23).endswith("/hub/home")
    assert "/hub/login" in page_after(25)

    day = time.time() + 24 * 3600 + 60
    tokens = f"{oauth_hub.url}/hub/api/users/grace@else.example/tokens"
    for seconds in ({}, {"expires_in": 10 * 24 * 3600}):
        token = post(session, tokens, json=seconds)
        expires = token.ok and datetime.fromisoformat(token.json()["expires_at"]).timestamp()
        assert expires < day  # if the hub refused the token, `expires` is False


def test_who_logs_out_is_out(oauth_hub):
    session = oauth_hub.login("grace").session
    assert session.get(f"{oauth_hub.url}/hub/home", timeout=30).url.endswith("/hub/home")
    page = session.get(f"{oauth_hub.url}/hub/logout", timeout=30)
    assert "Sign in with your usual account" in page.text
    assert "/hub/login" in session.get(f"{oauth_hub.url}/hub/home", timeout=30).url


def test_there_are_no_passwords_and_no_sign_up(oauth_hub):
    for page in ("signup", "authorize", "change-password"):
        session = oauth_hub.login("teacher").session
        assert session.get(f"{oauth_hub.url}/hub/{page}", timeout=30).status_code == 404
    assert 'href="/hub/authorize"' not in session.get(f"{oauth_hub.url}/hub/home", timeout=30).text
    with pytest.raises(AssertionError, match="This hub has no passwords"):
        oauth_hub.make("password", NAME="teacher@else.example")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "You are not logged in (OAuth callback made without a code). Go to the log-in"),
        ({"error": "access_denied"}, "You are not logged in (OAuth error: access_denied)."),
        ({"code": "x", "state": "x"}, "You are not logged in (OAuth state mismatch)."),
    ],
)
def test_a_way_back_that_nobody_sent_is_refused(oauth_hub, parameters, sentence):
    session = oauth_hub.session()
    session.get(f"{oauth_hub.url}/hub/oauth_login", timeout=30)
    back = f"{oauth_hub.url}/hub/oauth_callback"
    page = session.get(back, params=parameters, timeout=30)
    assert page.status_code == 400
    assert sentence in page.text


def test_a_code_that_the_provider_did_not_give_is_a_sentence(oauth_hub):
    session = oauth_hub.session()
    there = session.get(f"{oauth_hub.url}/hub/oauth_login", timeout=30).url
    (state,) = parse_qs(urlsplit(there).query)["state"]
    back = f"{oauth_hub.url}/hub/oauth_callback"
    page = session.get(back, params={"code": "made up", "state": state}, timeout=30)
    assert page.status_code == 502
    assert "did not respond correctly." in page.text


def test_no_secret_is_in_the_log(oauth_hub, ada):
    assert oauth_hub.secret not in oauth_hub.container("hub").logs().decode()


def test_a_hub_that_is_started_while_the_provider_is_away_comes_back_with_it(new_hub):
    hub = new_hub()
    port = free_ports()
    with oidc_provider_mock.run_server_in_thread(port=port):
        hub.up(
            **{name: value for name, value in PROVIDER.items() if not name.endswith("_URL")},
            COURSE_OAUTH_ISSUER=f"http://localhost:{port}",
        )
    hub.container("hub").restart()
    wait_until(
        lambda: "does not provide what the hub needs" in hub.log("hub"),
        "the hub says what it waits for",
    )
    assert not hub.answers()
    with oidc_provider_mock.run_server_in_thread(port=port):
        wait_until(hub.answers, "the hub is back")


@pytest.mark.parametrize("issuer", ["", "/"])
def test_a_provider_is_asked_for_its_addresses(monkeypatch, provider, issuer):
    for variable in PROVIDER:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COURSE_OAUTH_ISSUER", provider + issuer)
    if issuer:  # the provider's own URL has no trailing slash
        with pytest.raises(SystemExit, match=f"calls itself\n'{provider}'"):
            oauth.endpoints()
    else:
        assert oauth.endpoints()["token_endpoint"] == f"{provider}/oauth2/token"
        monkeypatch.setenv("COURSE_OAUTH_ISSUER", provider + "/nowhere")
        with pytest.raises(SystemExit, match=r"does not provide what the hub needs: .*404"):
            oauth.endpoints()


@pytest.mark.parametrize(
    ("settings", "known", "warns"),
    [
        ({}, ["sub", "email"], True),  # Microsoft Entra ID
        ({}, None, True),  # a provider that lists no claims
        ({}, ["email", "email_verified"], False),
        ({"TRUST_EMAIL": "on"}, ["email"], False),
        ({"NAME": "sub", "ALLOWED": "*"}, ["email"], False),
        ({"NAME": "sub", "ALLOWED": "@example.org"}, ["email"], True),
    ],
)
def test_the_operator_is_warned_that_addresses_may_not_be_verified(
    monkeypatch, settings, known, warns
):
    for name, value in {"ALLOWED": "students", **settings}.items():
        monkeypatch.setenv(f"COURSE_OAUTH_{name}", value)
    found = oauth.doubt({"claims_supported": known} if known else {})
    assert ("does not announce that it sends `email_verified`" in found) is warns


@pytest.mark.parametrize(
    ("claims", "allowed"),
    [
        ({"email": "Ada@kit.edu", "email_verified": True}, True),
        ({"email": "ada@\N{KELVIN SIGN}it.edu", "email_verified": True}, False),
        ({"email": "ada@sub.kit.edu", "email_verified": True}, False),
        ({"groups": "students"}, True),
        ({"groups": ["teachers", "students"]}, True),
        ({"groups": "student"}, False),
        ({"groups": "@kit.edu"}, False),
        ({"groups": {"students": 1}}, False),
    ],
)
def test_groups_and_domains_are_as_services_send_them(monkeypatch, claims, allowed):
    monkeypatch.setenv("COURSE_OAUTH_ALLOWED", "@KIT.edu, students")
    authenticator = oauth.CourseOAuthenticator(allowed=settings.OAUTH_ALLOWED())
    model = {"auth_state": {authenticator.user_auth_state_key: claims}}
    assert asyncio.run(authenticator.check_allowed("ada", model)) is allowed


@pytest.mark.parametrize(
    ("trusts", "claims", "verified"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"email_verified": True}, True),
        (False, {"email_verified": "true"}, True),
        (True, {"email_verified": False}, False),
        (True, {"email_verified": None}, True),
        (False, {"email_verified": None}, False),
        (False, {"email_verified": "True"}, True),
        (False, {"email_verified": 1}, False),
        (True, {"email_verified": "false"}, False),
    ],
)
def test_an_address_that_the_provider_calls_unverified_is_never_taken(trusts, claims, verified):
    authenticator = oauth.CourseOAuthenticator(
        trust_email=trusts, allow_all=True, username_claim="email"
    )
    assert authenticator.is_verified(claims) is verified
    name = {"email": "ada@example.org", **claims}
    if verified:
        assert authenticator.user_info_to_username(name) == "ada@example.org"
    else:
        with pytest.raises(web.HTTPError, match="403"):
            authenticator.user_info_to_username(name)


class Service(http.server.BaseHTTPRequestHandler):
    """A provider's discovery document, which also contains a platform's keys."""

    def do_GET(self) -> None:
        url = f"https://127.0.0.1:{self.server.server_port}"
        names = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
        key = {"kty": "oct", "kid": "1", "k": "AAAA"}
        self.send_response(200)
        self.end_headers()
        document = {"issuer": url, "keys": [key], **dict.fromkeys(names, url)}
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_) -> None:
        """Log nothing."""


@pytest.fixture
def private_service(tmp_path, monkeypatch) -> Iterator[str]:
    """Start a service whose certificate is from a private authority; return its URL."""
    issuer = Authority(tmp_path)
    monkeypatch.setattr(sign_on, "ROOT", issuer.root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issuer.issue("service", "127.0.0.1"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_provider_may_have_a_certificate_of_the_schools_own_authority(
    private_service, monkeypatch
):
    monkeypatch.setenv("COURSE_OAUTH_ISSUER", private_service)
    with pytest.raises(SystemExit, match=r"SSLError.*\n.*, set COURSE_SIGN_ON_ROOT\.$"):
        oauth.endpoints()
    for variable in ("CLIENT_ID", "CLIENT_SECRET", "ALLOWED"):
        monkeypatch.setenv(f"COURSE_OAUTH_{variable}", "x")
    monkeypatch.setenv("COURSE_SIGN_ON_ROOT", str(sign_on.ROOT))
    c = Config()
    oauth.configure(c)
    assert c.CourseOAuthenticator.token_url == private_service

    async def log_in() -> dict:
        authenticator = oauth.CourseOAuthenticator(config=c, allow_all=True)
        return await authenticator.httpfetch(private_service, label="userinfo", method="GET")

    assert asyncio.run(log_in())["issuer"] == private_service


@pytest.mark.parametrize("content", [b"", b"\x30\x82\x01\x0a", None], ids=["empty", "DER", "none"])
def test_a_root_certificate_that_cannot_be_used_is_a_sentence(content, tmp_path, monkeypatch):
    path = tmp_path / "root.crt"
    monkeypatch.setattr(sign_on, "ROOT", path)
    monkeypatch.setenv("COURSE_SIGN_ON_ROOT", "/etc/school.crt")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="cannot read a certificate in PEM format"):
        sign_on.authority()


def test_a_platform_may_have_a_certificate_of_the_schools_own_authority(
    private_service, monkeypatch
):
    for variable in ("ISSUER", "CLIENT_ID", "AUTHORIZE_URL", "KEYS_URL"):
        monkeypatch.setenv(f"COURSE_LTI_{variable}", private_service)
    monkeypatch.setattr(jwt, "PyJWKClient", jwt.PyJWKClient)  # undo what `configure` changes
    original = jwt.PyJWKClient
    lti.configure(Config())
    with pytest.raises(jwt.PyJWKClientConnectionError, match="certificate verify failed"):
        jwt.PyJWKClient(private_service).get_jwk_set()
    jwt.PyJWKClient = original
    monkeypatch.setenv("COURSE_SIGN_ON_ROOT", str(sign_on.ROOT))
    lti.configure(Config())
    assert jwt.PyJWKClient(private_service).get_jwk_set().keys


# --- LTI 1.3


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def lti_hub(new_hub, platform) -> ClassHub:
    hub = new_hub()
    hub.up(
        COURSE_ACCOUNTS="lti",
        COURSE_ADMIN="2",
        COURSE_LTI_ISSUER=platform.url,
        COURSE_LTI_CLIENT_ID=CLIENT,
        COURSE_LTI_AUTHORIZE_URL=f"{platform.url}/authorize",
        COURSE_LTI_KEYS_URL=f"{platform.url}/keys",
    )
    return hub


def test_the_platforms_keys_are_not_fetched_for_each_launch(platform, monkeypatch):
    monkeypatch.setattr(jwt, "PyJWKClient", jwt.PyJWKClient)
    for name in ("ISSUER", "AUTHORIZE_URL", "KEYS_URL"):
        monkeypatch.setenv(f"COURSE_LTI_{name}", f"{platform.url}/{name}")
    monkeypatch.setenv("COURSE_LTI_CLIENT_ID", CLIENT)
    lti.configure(Config())
    token = {"iss": platform.url, "aud": CLIENT, "iat": time.time(), "exp": time.time() + 60}
    launch = jwt.encode(token, platform.key, algorithm="RS256", headers={"kid": "1"})
    for _ in range(3):
        LTI13LaunchValidator().verify_and_decode_jwt(
            launch, platform.url, CLIENT, f"{platform.url}/once", ["RS256"]
        )
    assert platform.asked.count("/once") == 1


def test_a_launch_opens_the_picker(lti_hub, platform):
    page = platform.launch(lti_hub)
    assert page.url == f"{lti_hub.url}/hub/spawn"
    assert "TensorFlow (CPU)" in page.text
    assert page.session.get(f"{lti_hub.url}/hub/api/users/17", timeout=30).ok
    assert page.session.get(f"{lti_hub.url}/hub/admin", timeout=30).status_code == 403


def test_a_launch_by_someone_whose_identifier_is_a_url(lti_hub, platform):
    identifier = "https://lms.example.org/user/C71B"
    page = platform.launch(lti_hub, sub=identifier)
    assert page.url == f"{lti_hub.url}/hub/spawn"
    assert sign_on.safe_name(identifier) in page.text
    other = platform.launch(lti_hub, sub=identifier.lower())
    assert sign_on.safe_name(identifier) not in other.text


def test_the_administrator_comes_from_the_platform_too(lti_hub, platform):
    page = platform.launch(lti_hub, sub="2")
    assert page.session.get(f"{lti_hub.url}/hub/admin", timeout=30).status_code == 200


def test_without_a_launch_a_sentence_says_where_to_begin(lti_hub):
    page = requests.get(lti_hub.url, timeout=30)
    assert "Open the course in your learning platform." in page.text


@functools.cache
def forger() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"key": forger}, "Signature verification failed"),
        ({"key": "", "algorithm": "none"}, "The specified alg value is not allowed"),
        ({"key": "x" * 32, "algorithm": "HS256"}, "The specified alg value is not allowed"),
        ({"exp": 1}, "Signature has expired"),
        ({"iat": 1}, "id_token issued too long ago"),
        ({"aud": "another"}, "Audience"),
        ({"iss": "https://else.example"}, "Invalid issuer"),
        ({"nonce": "another"}, "OAuth nonce mismatch"),
        ({"sub": None}, "did not send your sub"),
        ({f"{CLAIM}version": "1.1"}, "version claim"),
    ],
)
def test_a_launch_that_is_not_right_is_refused_with_a_sentence(lti_hub, platform, forged, reason):
    if forged.get("key") is forger:
        forged = {"key": forger()}
    page = platform.launch(lti_hub, **forged)
    assert page.status_code == 403
    assert reason in page.text
    assert "ell your instructor." in page.text
    assert "/hub/login" in page.session.get(f"{lti_hub.url}/hub/home", timeout=30).url


def test_a_launch_works_once_and_for_who_began_it(lti_hub, platform):
    page = platform.launch(lti_hub, sub="18")
    back = f"{lti_hub.url}/hub/lti13/oauth_callback"
    for session in (page.session, requests.Session()):
        again = session.post(back, data=page.form, timeout=30)
        assert again.status_code == 403
        assert "Open the course from there again" in again.text


@pytest.mark.parametrize(
    "form", [{}, {"id_token": "x"}, {"state": "x", "id_token": "x"}, b"state=%ff&id_token=%ff"]
)
@pytest.mark.parametrize("page", ["oauth_login", "oauth_callback"])
def test_odd_launches_get_a_sentence(lti_hub, page, form):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"{lti_hub.url}/hub/lti13/{page}"
    answer = requests.post(url, data=form, headers=headers, timeout=30)
    assert answer.status_code == 403
    assert "Open the course from there again" in answer.text


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/x", "//evil.example", "/\\evil.example", "x?next=//evil.example"],
)
def test_a_launch_leads_to_nobody_elses_page(lti_hub, platform, target):
    page = platform.launch(lti_hub, target=target)
    for step in [*page.history, page]:
        assert urlsplit(urljoin(lti_hub.url, step.url)).netloc == f"127.0.0.1:{lti_hub.port}"
