"""Send grades to the learning platform, with LTI's Assignment and Grade Services 2.0.

A launch tells the hub who the learner is on the platform, and the address of the line items (the
columns of the gradebook) of the learner's course. The hub proves its identity with its own key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import ssl
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode, urljoin, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from requests.utils import parse_header_links
from sqlalchemy.orm import Session
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import url_concat
from tornado.log import app_log
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from tfcourse.hub import settings, state
from tfcourse.hub.classroom import grades
from tfcourse.hub.classroom.assignments import FormHandler
from tfcourse.hub.classroom.instructors import needs_instructor
from tfcourse.hub.tables import Assignment, PlatformAccount, PlatformColumn, Submission

CLAIM = "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"
SCOPES = [f"https://purl.imsglobal.org/spec/lti-ags/scope/{name}" for name in ("lineitem", "score")]
LINE_ITEM = "application/vnd.ims.lis.v2.lineitem+json"
LINE_ITEMS = "application/vnd.ims.lis.v2.lineitemcontainer+json"
SCORE = "application/vnd.ims.lis.v1.score+json"

SECONDS = 15  # to wait for the platform's answer to a request
TOTAL_SECONDS = 50  # to send all grades of an assignment
TOGETHER = 8  # requests at a time
LARGEST = 2**20  # bytes in an answer
PAGES = 50  # of a list of line items

PEM = r"-----BEGIN PRIVATE KEY-----[\sA-Za-z0-9+/=]+-----END PRIVATE KEY-----"

# Why a grade was not sent. The learners' names precede these sentences.
NOT_OPENED = (
    "they have not opened the hub from the learning platform since sending grades was set up."
)
UNGRADED = "not all of their notebooks are graded."
NO_HUB = (
    "the learning platform rejected the hub's request (error {}). Ask the hub's administrator to "
    "compare the client ID, the token URL and the public keyset URL with the platform's settings."
)
NO_COLUMN = (
    "the learning platform does not let the hub create a column for the grades (error {}). Ask the "
    "hub's administrator to allow this in the platform's settings for the hub."
)
NO_SCORE = (
    "the learning platform refused the grade (error {}). Check that they are learners in the "
    "course there, and that the platform does not have a newer grade."
)
ERROR = "the learning platform sent error {}. Try again later."
LATE = "the learning platform did not answer in time. Try again later."
UNREACHABLE = (
    "the hub did not get an answer from the learning platform ({}). Try again later. If that does "
    "not help, tell the hub's administrator."
)
UNUSABLE = (
    "the learning platform sent an answer that the hub does not understand. Ask the hub's "
    "administrator to check the token URL."
)


class PlatformError(Exception):
    """An error of the learning platform. The message tells instructors what to do."""


# --- Launches


def remember(db: Session, user: orm.User, token: Mapping[str, Any]) -> None:
    """Store where to send the user's grades, if the launch's token contains the address."""
    match token.get("sub"), token.get(CLAIM):
        case str(subject), {"lineitems": str(url), "scope": list(scopes)} if (
            subject.isprintable() and is_address(url) and all(each in scopes for each in SCOPES)
        ):
            db.merge(PlatformAccount(user_id=user.id, subject=subject, lineitems=url))
            db.commit()
        case _, None:
            pass
        case _, claim:
            app_log.warning(
                "This launch does not let the hub send the user's grades: %.500r", claim
            )


def is_address(url: Any) -> bool:
    """Return whether this is a web address to which the hub may send grades."""
    try:
        return (
            isinstance(url, str)
            and bool(re.fullmatch("[!-~]{1,2000}", url) and settings.web_address(url))
            and urlsplit(url).port != 0  # raises ValueError if the port is not a number
        )
    except ValueError:
        return False


# --- The hub's identity


@dataclass(frozen=True)
class Tool:
    """The hub, as the platform knows it."""

    client_id: str
    token_url: str
    key: rsa.RSAPrivateKey
    trust: ssl.SSLContext  # the authorities that the hub trusts

    @property
    def public_key(self) -> dict[str, str]:
        """Return the public key as a JSON Web Key."""
        numbers = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        kid = hashlib.sha256(numbers["n"].encode()).hexdigest()[:32]
        parts = {name: numbers[name] for name in ("kty", "n", "e")}
        return {**parts, "kid": kid, "use": "sig", "alg": "RS256"}

    def assertion(self) -> str:
        """Return a signed statement that proves to the platform who asks for a token."""
        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.token_url,
            "iat": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
        }
        return jwt.encode(claims, self.key, "RS256", headers={"kid": self.public_key["kid"]})


def private_key() -> rsa.RSAPrivateKey:
    """Return the hub's private key; create it when the hub first starts."""
    follows = " The learning platform fetches the new public key."
    pem = state.kept(state.hub_folder() / "lti-key.pem", PEM, new_key, follows)
    return load_pem_private_key(pem.encode(), None)


def new_key() -> str:
    """Return a new private key in PEM format."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()


# --- Requests to the platform


@dataclass(frozen=True)
class Score:
    """A learner's score for an assignment."""

    name: str  # the learner's, on the hub
    subject: str  # the learner's identifier on the platform
    lineitems: str  # the address of the line items; "" if unknown
    right: int | None  # None if one of the learner's notebooks has no grade
    comment: str


class Connection:
    """The requests that send the grades of one assignment."""

    def __init__(self, tool: Tool):
        self.tool = tool
        self.headers: dict[str, str] = {}
        self.end = time.monotonic() + TOTAL_SECONDS
        self.turns = asyncio.Semaphore(TOGETHER)
        # JupyterHub's default client may be another one, which does not limit an answer's size.
        self.client = SimpleAsyncHTTPClient(
            force_instance=True, max_clients=TOGETHER, max_body_size=LARGEST
        )

    async def ask(
        self, url: str, refused: str, body: str | None = None, **headers: str
    ) -> HTTPResponse:
        """Return the answer to a request; raise PlatformError if it is an error.

        Redirects are errors, because the token must not reach another host. `refused` is the
        message for a request that the platform understands but does not allow.
        """
        async with self.turns:
            seconds = min(SECONDS, self.end - time.monotonic())
            if seconds <= 0:
                raise PlatformError(LATE)
            request = HTTPRequest(
                url,
                method="GET" if body is None else "POST",
                body=body,
                headers={**self.headers, **headers},
                connect_timeout=seconds,
                request_timeout=seconds,
                follow_redirects=False,
                decompress_response=False,  # a small answer could become a large one
                ssl_options=self.tool.trust,
            )
            try:
                answer = await self.client.fetch(request, raise_error=False)
            except HTTPTimeoutError:
                raise PlatformError(LATE) from None
            except (HTTPClientError, OSError, ValueError) as error:
                raise PlatformError(UNREACHABLE.format(error)) from None
        if 200 <= answer.code < 300:
            return answer
        app_log.warning("%s sent %s: %r", urlsplit(url).netloc, answer.code, answer.body[:500])
        is_refusal = 400 <= answer.code < 500 and answer.code != 429
        raise PlatformError((refused if is_refusal else ERROR).format(answer.code))

    async def log_in(self) -> None:
        """Get an access token from the platform."""
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.tool.assertion(),
            "scope": " ".join(SCOPES),
        }
        answer = await self.ask(self.tool.token_url, NO_HUB, urlencode(form))
        match parsed(answer):
            case {"access_token": str(token)} if re.fullmatch("[!-~]+", token):
                self.headers = {"Authorization": f"Bearer {token}"}
            case _:
                raise PlatformError(UNUSABLE)

    async def line_item(self, lineitems: str, wanted: dict[str, Any]) -> str:
        """Return the address of a line item; create the line item if it does not exist."""
        url: str | None = url_concat(lineitems, {"resource_id": wanted["resourceId"]})
        for _ in range(PAGES):
            answer = await self.ask(url, NO_COLUMN, Accept=LINE_ITEMS)
            found = parsed(answer)
            for each in found if isinstance(found, list) else [None]:
                if not isinstance(each, dict):
                    raise PlatformError(UNUSABLE)
                # Some platforms ignore the filter in the URL.
                if each.get("resourceId") == wanted["resourceId"]:
                    return beside(lineitems, each.get("id"))
            url = next_page(answer)
            if not url:
                break
            url = beside(lineitems, joined(lineitems, url))
        else:
            raise PlatformError(UNUSABLE)
        headers = {"Content-Type": LINE_ITEM, "Accept": LINE_ITEM}
        created = parsed(await self.ask(lineitems, NO_COLUMN, json.dumps(wanted), **headers))
        return beside(lineitems, created.get("id") if isinstance(created, dict) else None)

    async def score(self, line_item: str, score: Score, most: int) -> None:
        """Send a learner's score."""
        parts = urlsplit(line_item)  # Moodle's line items have a query
        url = parts._replace(path=parts.path.rstrip("/") + "/scores").geturl()
        content = {
            "userId": score.subject,
            "scoreGiven": score.right,
            "scoreMaximum": most,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "activityProgress": "Completed",
            "gradingProgress": "FullyGraded",
            **({"comment": score.comment} if score.comment else {}),
        }
        await self.ask(url, NO_SCORE, json.dumps(content), **{"Content-Type": SCORE})


def parsed(answer: HTTPResponse) -> Any:
    """Return what is in an answer, or None if it is not JSON."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def next_page(answer: HTTPResponse) -> str | None:
    """Return the address of a list's next page, or None on the last page."""
    links = parse_header_links(answer.headers.get("Link", ""))
    return next((link["url"] for link in links if link.get("rel") == "next"), None)


def joined(base: str, url: str) -> str | None:
    """Return the URL that a link in an answer leads to, or None if it leads nowhere."""
    try:
        return urljoin(base, url)
    except ValueError:
        return None


def beside(lineitems: str, url: Any) -> str:
    """Return the URL, if it is on the same host; the token must not reach another host."""
    if not is_address(url) or urlsplit(url)[:2] != urlsplit(lineitems)[:2]:
        raise PlatformError(UNUSABLE)
    return url


# --- Sending


def line_item(db: Session, assignment: Assignment) -> dict[str, Any]:
    """Return the line item for an assignment.

    Its resource ID is random, because other hubs may send grades to the same course, and the
    database uses the numbers of deleted assignments again.
    """
    column = db.get(PlatformColumn, assignment.id)
    if not column:
        column = PlatformColumn(assignment_id=assignment.id, resource_id=uuid.uuid4().hex)
        db.add(column)
        db.commit()
    return {
        "scoreMaximum": grades.most(assignment),
        "label": assignment.title,
        "resourceId": column.resource_id,
    }


def scores(db: Session, assignment: Assignment) -> list[Score]:
    """Return the scores of all learners with a graded notebook, sorted by name."""
    accounts = {each.user_id: each for each in db.query(PlatformAccount)}
    found = []
    for result in grades.results(db, Submission.assignment_id == assignment.id).values():
        if result.grades:
            account = accounts.get(result.user.id) or PlatformAccount(subject="", lineitems="")
            where = account.subject, account.lineitems
            found.append(Score(result.user.name, *where, result.total, result.comment))
    return found


async def send(tool: Tool, wanted: dict[str, Any], found: list[Score]) -> dict[str, str]:
    """Send the scores for a line item; return why scores were not sent, keyed by learner."""
    problems = {each.name: NOT_OPENED for each in found if not each.lineitems}
    problems |= {each.name: UNGRADED for each in found if each.right is None}
    courses: dict[str, list[Score]] = {}
    for each in found:
        if each.name not in problems:
            courses.setdefault(each.lineitems, []).append(each)
    connection = Connection(tool)

    async def send_one(where: str, score: Score) -> None:
        try:
            await connection.score(where, score, wanted["scoreMaximum"])
        except PlatformError as error:
            problems[score.name] = str(error)

    async def send_all(lineitems: str) -> None:
        try:
            where = await connection.line_item(lineitems, wanted)
        except PlatformError as error:
            problems.update({each.name: str(error) for each in courses[lineitems]})
        else:
            await asyncio.gather(*(send_one(where, each) for each in courses[lineitems]))

    with contextlib.closing(connection.client):
        try:
            if courses:
                await connection.log_in()
        except PlatformError as error:
            return {each.name: problems.get(each.name, str(error)) for each in found}
        await asyncio.gather(*map(send_all, courses))
    return problems


def told(found: list[Score], problems: dict[str, str]) -> tuple[str, str]:
    """Return what was sent and what was not, in words."""
    count = len(found) - len(problems)
    names: dict[str, list[str]] = {}
    for each in found:
        if each.name in problems:
            names.setdefault(problems[each.name], []).append(each.name)
    sent = f"Sent the grades of {count} learner{'s'[: count != 1]}." if count else ""
    return sent, " ".join(f"Not sent for {', '.join(who)}: {why}" for why, who in names.items())


# --- The pages


def handlers(app: Any, trust: ssl.SSLContext) -> dict[str, type]:
    """Let the assignments' pages send grades, if that is set up; return the handlers."""
    app.tornado_settings["lti_tool"] = Tool(
        settings.LTI_CLIENT_ID(), settings.LTI_TOKEN_URL(), private_key(), trust
    )
    pages: dict[str, type] = {"/lti13/keys": KeysHandler}
    if settings.LTI_TOKEN_URL.is_set:
        app.template_vars["sends_grades"] = True
        pages["/assignments/([0-9]{1,9})/send"] = SendHandler
    return pages


class KeysHandler(BaseHandler):
    """The hub's public key, with which the platform checks who asks for a token."""

    def get(self) -> None:
        """Send the key set."""
        self.finish({"keys": [self.settings["lti_tool"].public_key]})


class SendHandler(FormHandler):
    """The form that sends an assignment's grades to the learning platform."""

    # Two senders at the same time would create two line items.
    sending: ClassVar = asyncio.Lock()

    @needs_instructor
    async def post(self, number: str) -> None:
        """Send the grades; say what was sent."""
        assignment = self.assignment(number)
        wanted, found = line_item(self.db, assignment), scores(self.db, assignment)
        if not grades.is_returned(self.db, assignment):
            await self.show(assignment, "First give the grades back.")
        elif self.sending.locked():
            await self.show(assignment, "The hub is already sending grades. Wait a minute.")
        elif not found or not wanted["scoreMaximum"]:
            await self.show(assignment, "No notebook has a grade yet. First grade the notebooks.")
        else:
            async with self.sending:
                sent, not_sent = told(found, await send(self.settings["lti_tool"], wanted, found))
            # In the meantime, the assignment may have been deleted.
            await self.show(self.assignment(number), not_sent, sent)
