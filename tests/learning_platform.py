"""A stand-in for a learning platform such as Moodle, Canvas or Open edX.

No test uses a real platform. The stand-in follows the standards LTI 1.3 and Assignment and Grade
Services 2.0, and checks the hub's requests more strictly than real platforms do.
"""

from __future__ import annotations

import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from hubs import Hub, Learner, Site, post
from playwright.sync_api import Browser, Page

CLIENT = "the-hub"
CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"
GRADES = "https://purl.imsglobal.org/spec/lti-ags/"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MEDIA = "application/vnd.ims.lis."


class RefusedError(Exception):
    """A request that the platform refuses, with a status."""


class Platform:
    """A stand-in for a learning platform that listens on a local port.

    It takes grades at `{url}/COURSE/lineitems?type_id=1`. Like Moodle's, all of its addresses have
    a query.

    Attributes
    ----------
    asked
        The paths of all requests.
    items, scores
        The grade columns, keyed by path; the scores, keyed by column and user.
    keys_url
        The hub's public keyset URL, as the platform's administrator enters it.
    faults
        What to do instead of answering a kind of request (`token`, `list`, `create`, `score`).
    """

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.keys = {"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]}
        self.keys_url = ""
        self.asked: list[str] = []
        self.lock = threading.Lock()
        self.reset()
        platform = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                platform.asked.append(self.path)
                platform.answer(self)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_) -> None:
                """Log nothing."""

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def reset(self) -> None:
        """Forget all grades and faults."""
        self.items: dict[str, dict] = {}
        self.scores: dict[tuple[str, str], dict] = {}
        self.tokens: dict[str, set[str]] = {}
        self.used: set[str] = set()  # the identifiers of assertions
        self.faults: dict[str, Callable[[Any, dict], bool]] = {}
        self.page_size = 100
        self.has_filter = True

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # --- Launches

    def claim(self, course: str = "1", **changes: Any) -> dict[str, Any]:
        """Return the claim that says where the grades of a course go."""
        scopes = [f"{GRADES}scope/{name}" for name in ("lineitem", "result.readonly", "score")]
        endpoint = {"lineitems": f"{self.url}/{course}/lineitems?type_id=1", "scope": scopes}
        return {f"{GRADES}claim/endpoint": {**endpoint, **changes}}

    def launch(self, hub: Site, target: str = "", key=None, algorithm="RS256", **claims):
        """Open the hub as the platform does when a learner clicks on the course."""
        session = requests.Session()
        begin = {
            "iss": self.url,
            "login_hint": "1",
            "client_id": CLIENT,
            "target_link_uri": target or f"{hub.url}/hub",
        }
        url = f"{hub.url}/hub/lti13/oauth_login"
        asked = session.post(url, data=begin, timeout=30, allow_redirects=False)
        assert asked.headers["Location"].startswith(f"{self.url}/authorize?")
        question = {k: v[0] for k, v in parse_qs(urlsplit(asked.headers["Location"]).query).items()}
        now = int(time.time())
        token = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "17",
            "iat": now,
            "exp": now + 60,
            "nonce": question["nonce"],
            f"{CLAIM}version": "1.3.0",
            f"{CLAIM}deployment_id": "1",
            f"{CLAIM}target_link_uri": begin["target_link_uri"],
            f"{CLAIM}roles": [],
            f"{CLAIM}message_type": "LtiResourceLinkRequest",
            f"{CLAIM}resource_link": {"id": "1"},
            **claims,
        }
        signed = jwt.encode(
            {name: value for name, value in token.items() if value is not None},
            key if key is not None else self.key,
            algorithm=algorithm,
            headers={"kid": "1"},
        )
        form = {"id_token": signed, "state": question["state"]}
        response = session.post(question["redirect_uri"], data=form, timeout=30)
        response.session, response.form = session, form
        return response

    # --- Grades

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request, or behave as a fault says."""
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(size)
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query))
        path = parts.path.split("/")[1:]
        kind, do = self.route(handler.command, path)
        try:
            content = (
                json.loads(body) if body and kind != "token" else dict(parse_qsl(body.decode()))
            )
            if kind in self.faults and self.faults[kind](handler, content):
                return
            status, found, headers = do(handler, path, query, content)
        except RefusedError as refusal:
            status, found, headers = refusal.args[0], {"error": refusal.args[1]}, {}
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(json.dumps(found).encode())

    def route(self, method: str, path: list[str]) -> tuple[str, Callable]:
        """Return the kind of a request, and the method that answers it."""
        match method, path:
            case "POST", ["token"]:
                return "token", self.give_token
            case "GET", [_, "lineitems"]:
                return "list", self.list_items
            case "POST", [_, "lineitems"]:
                return "create", self.create_item
            case "POST", [_, "lineitems", _, "lineitem", "scores"]:
                return "score", self.take_score
            case _:  # the platform's keys, under any other path
                return "keys", lambda *_: (200, self.keys, {})

    def give_token(self, _handler, _path, _query, form: dict) -> tuple[int, dict, dict]:
        """Check the hub's assertion; return an access token with the scopes that it asks for."""
        expect(form.get("grant_type") == "client_credentials", 400, "unsupported_grant_type")
        expect(form.get("client_assertion_type") == ASSERTION, 400, "invalid_request")
        asked = set(form.get("scope", "").split())
        assertion = form["client_assertion"]
        try:
            head = jwt.get_unverified_header(assertion)
            keys = requests.get(self.keys_url, timeout=30).json()["keys"]
            (key,) = [each for each in keys if each["kid"] == head["kid"]]
            claims = jwt.decode(
                assertion,
                jwt.PyJWK(key),
                ["RS256"],
                audience=f"{self.url}/token",
                issuer=CLIENT,
                subject=CLIENT,
                options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
            )
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            raise RefusedError(400, f"invalid_client: {error}") from None
        expect(claims["exp"] <= time.time() + 300, 400, "invalid_client: valid for too long")
        with self.lock:
            expect(claims["jti"] not in self.used, 400, "invalid_client: used again")
            self.used.add(claims["jti"])
        wanted = {f"{GRADES}scope/lineitem", f"{GRADES}scope/score"}
        expect(asked and asked <= wanted, 400, "invalid_scope")
        token = secrets.token_hex(16)
        self.tokens[token] = asked
        return 200, {"access_token": token, "token_type": "bearer", "expires_in": 3600}, {}

    def check(self, handler, query: dict, scope: str, **media: str) -> None:
        """Refuse a request without a token for the scope, the query, or the right media types."""
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        expect(token in self.tokens, 401, "invalid_token")
        expect(f"{GRADES}scope/{scope}" in self.tokens[token], 403, "insufficient_scope")
        expect(query.get("type_id") == "1", 404, "the query is missing")
        for name, value in media.items():
            sent = handler.headers.get(name.replace("_", "-"))
            expect(sent == f"{MEDIA}{value}+json", 415, f"{name} is {sent}")

    def list_items(self, handler, path, query, _content) -> tuple[int, list, dict]:
        self.check(handler, query, "lineitem", Accept="v2.lineitemcontainer")
        found = [item for where, item in self.items.items() if where.split("/")[1] == path[0]]
        if self.has_filter and "resource_id" in query:
            found = [item for item in found if item["resourceId"] == query["resource_id"]]
        first = int(query.get("from", 0))
        last = first + self.page_size
        more = {**query, "from": last}
        link = f'<{self.url}/{"/".join(path)}?{urlencode(more)}>; rel="next"'
        first_page = f'<{self.url}/{path[0]}/lineitems?type_id=1>; rel="first"'
        return 200, found[first:last], {"Link": f"{first_page}, {link}"} if found[last:] else {}

    def create_item(self, handler, path, query, item: dict) -> tuple[int, dict, dict]:
        self.check(handler, query, "lineitem", Content_Type="v2.lineitem", Accept="v2.lineitem")
        expect(isinstance(item.get("label"), str) and item["label"], 400, "label")
        expect(item.get("scoreMaximum", 0) > 0, 400, "scoreMaximum")
        return 201, self.add_item(path[0], item), {}

    def add_item(self, course: str, item: dict) -> dict:
        """Add a column to a course's gradebook."""
        with self.lock:
            where = f"/{course}/lineitems/{len(self.items) + 1}/lineitem"
            self.items[where] = {**item, "id": f"{self.url}{where}?type_id=1"}
        return self.items[where]

    def take_score(self, handler, path, query, score: dict) -> tuple[int, dict, dict]:
        self.check(handler, query, "score", Content_Type="v1.score")
        where = "/" + "/".join(path[:-1])
        expect(where in self.items, 404, "no such line item")
        expect({"userId", "timestamp"} <= set(score), 400, "incomplete")
        expect(score["activityProgress"] == "Completed", 400, "activityProgress")
        expect(score["gradingProgress"] == "FullyGraded", 400, "gradingProgress")
        expect(0 <= score["scoreGiven"] <= score["scoreMaximum"], 400, "scoreGiven")
        when = datetime.fromisoformat(score["timestamp"])
        expect(when.tzinfo, 400, "the timestamp has no offset")
        before = self.scores.get((where, score["userId"]))
        is_newer = not before or when > datetime.fromisoformat(before["timestamp"])
        expect(is_newer, 409, "earlier timestamp")
        self.scores[where, score["userId"]] = score
        return 200, {}, {}


def expect(condition: object, status: int, why: str) -> None:
    """Refuse the request unless the condition is true."""
    if not condition:
        raise RefusedError(status, why)


# --- A hub whose users come from the platform

TEACHER = "2"

# `make hub` has no log-in from a learning platform, so these settings add it. The terminal prints a
# password that nobody uses.
OWN_SETTINGS = """
from pathlib import Path
from tfcourse.hub.accounts import lti, setup
from tfcourse.hub.classroom import platform
from tfcourse.hub.front import pages

c.JupyterHub.template_vars = {{"course": pages.COURSE}}
c.JupyterHub.load_roles = []
setup.configure(c, Path({folder!r}), lambda name: False)
lti.CourseLTIAuthenticator.user_password = lti.CourseLTIAuthenticator.admin_password = "unused"
platform.SECONDS = platform.TOTAL_SECONDS = 90  # no test waits for these limits
"""


def environment(lms: Platform) -> dict[str, str]:
    """Return the hub's settings for the platform."""
    return {
        "COURSE_ACCOUNTS": "lti",
        "COURSE_ADMIN": TEACHER,
        "COURSE_LTI_ISSUER": lms.url,
        "COURSE_LTI_CLIENT_ID": CLIENT,
        "COURSE_LTI_AUTHORIZE_URL": f"{lms.url}/authorize",
        "COURSE_LTI_KEYS_URL": f"{lms.url}/keys",
        "COURSE_LTI_TOKEN_URL": f"{lms.url}/token",
    }


def start(hub: Hub, platform: Platform, folder: Path) -> None:
    """Start a hub whose users log in from the platform, with its own settings in a folder."""
    (folder / "platform.py").write_text(OWN_SETTINGS.format(folder=str(hub.state / "hub")))
    hub.environment = {**environment(platform), "COURSE_CONFIG": str(folder)}
    platform.keys_url = f"{hub.url}/hub/lti13/keys"
    hub.start(**hub.environment)


class PlatformLearner(Learner):
    """A user who opens the hub from the platform, and whose grades go to its course 1."""

    def __init__(self, hub: Hub, platform: Platform, name: str):
        self.hub, self.name = hub, name
        self.session = platform.launch(hub, sub=name, **platform.claim()).session
        tokens = f"{hub.url}/hub/api/users/{name}/tokens"
        self.token = post(self.session, tokens, json={}).json()["token"]

    def open(self, browser: Browser, **options: Any) -> Page:
        """Return a page of a browser in which this user is logged in."""
        context = browser.new_context(**options)
        names = ("name", "value", "domain", "path")
        cookies = [{name: getattr(each, name) for name in names} for each in self.session.cookies]
        context.add_cookies(cookies)
        return context.new_page()
