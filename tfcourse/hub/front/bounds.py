"""Limit how many requests, log entries and tokens the hub stores for visitors.

This module also raises the limit on the hub's own connections.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.pages import HealthCheckHandler
from jupyterhub.handlers.static import StaticFileHandler
from jupyterhub.log import log_request
from jupyterhub.metrics import prometheus_log_method
from sqlalchemy import event, func
from sqlalchemy.orm import object_session
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.web import HTTPError
from traitlets.log import get_logger

from tfcourse.hub import settings
from tfcourse.hub.front import addresses
from tfcourse.hub.limits import Limit

# The largest legitimate requests add a few thousand users or carry a learning platform's signed
# message. Tornado would allow 100 MB by default, and keep the entire body in memory.
LARGEST_BODY = 256 * 1024  # bytes
BODY_SECONDS = 60  # the time-out for receiving a body
LARGEST_HEADERS = 32 * 1024  # bytes; the proxy accepts half of that and adds its own headers
# Even if every connection has a waiting request, for example for a password check, all of the
# requests together fit into the hub's memory.
MOST_CONNECTIONS = 1000
RESERVED_CONNECTIONS = 200  # kept free for learners' servers
MOST_CONNECTIONS_OF_A_SERVER = 100  # a learner's server needs only a few

# Limits for log entries that visitors can cause: warnings (for each line of code) and requests (for
# each user, and for all strangers together). At this rate, a log of 50 MB lasts for days,
# even if all entries are long.
ENTRIES_AT_ONCE = 300
SECONDS_PER_ENTRY = 10
# Limits for all other log entries, which concern logged-in users. This rate allows two thousand
# users to log in within minutes.
OTHERS_AT_ONCE = 3000
SECONDS_PER_OTHER = 1
LONGEST_ENTRY = 2000  # characters

# The maximum number of connections that the hub opens at the same time: to servers, the proxy and
# log-in services. The default is ten, and a request that waits 20 seconds for a connection fails.
# Ten servers that accept connections but do not respond cause such failures, and so do twenty
# single sign-on log-ins a second (docs/kubernetes.md). The limit is no higher than 500 because some
# systems allow only 1,024 open files.
CONNECTIONS = 500

LONGEST_NOTE = 200  # characters; PostgreSQL refuses more than 1023, and SQLite has no limit
# The maximum size of responses to the hub's own requests, because a learner's server can respond
# with anything. The largest legitimate response, the proxy's list of the routes to 2,000 servers,
# has less than 1 MB.
LARGEST_ANSWER = 4 * 2**20  # bytes

# The session of servers' own tokens. Nobody can choose the session of a token for scripts.
SERVER = "server"
MOST_TOKENS = 100  # for each user and OAuth client (the hub, a server or a service)


def configure(c: Any) -> None:
    """Set the limits, including those on the hub's own port, which learners' servers can reach."""
    settings.TRUSTED_PROXIES()  # exit now if the setting is invalid, not at the first request
    HTTPServer.configure(
        Server,
        max_header_size=LARGEST_HEADERS,
        max_body_size=LARGEST_BODY,
        body_timeout=BODY_SECONDS,
    )
    c.JupyterHub.tornado_settings.update({"log_function": Requests()})
    c.JupyterHub.logging_config = {
        "filters": {"bounds": {"()": Entries}},
        "handlers": {"console": {"filters": ["bounds"]}},
    }
    event.listen(orm.APIToken.note, "set", shortened, retval=True)
    event.listen(orm.APIToken.user, "set", replace_oldest)
    JupyterHub.init_pycurl = init_client


def init_client(hub: JupyterHub, default: Callable[[JupyterHub], None] = JupyterHub.init_pycurl):
    """Let JupyterHub choose its HTTP client, then set the client's limits.

    JupyterHub's choice would discard any limits set earlier.
    """
    default(hub)
    client = AsyncHTTPClient.configured_class()
    if client is SimpleAsyncHTTPClient:  # pycurl is not installed
        limit: dict[str, Any] = {"max_body_size": LARGEST_ANSWER}
    else:
        limit = {"defaults": {"prepare_curl_callback": limit_answer}}
    AsyncHTTPClient.configure(client, max_clients=CONNECTIONS, **limit)


def limit_answer(curl: Any) -> None:
    """Make a pycurl request fail if the response is too large."""
    curl.setopt(curl.MAXFILESIZE, LARGEST_ANSWER)


class Server(HTTPServer):
    """An HTTP server that closes new connections while too many are open.

    Each connection can keep a request or a response in memory. The proxy can open most of the
    allowed connections; the others are reserved for learners' servers, each of which can open only
    a few.
    """

    def initialize(self, *args: Any, **options: Any) -> None:
        """Set up the server; Tornado calls this in place of `__init__`."""
        super().initialize(*args, **options)
        self.open: Counter[str] = Counter()  # open connections from each address

    def handle_stream(self, stream: IOStream, address: tuple) -> None:
        """Serve a new connection, or close it."""
        peer = address[0]
        is_proxy = peer in {stream.socket.getsockname()[0], *addresses.own_proxies}
        of_proxy = MOST_CONNECTIONS - RESERVED_CONNECTIONS
        most = of_proxy if is_proxy else MOST_CONNECTIONS_OF_A_SERVER
        if self.open[peer] >= most or self.open.total() >= MOST_CONNECTIONS:
            stream.close()
            return
        self.open[peer] += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Stop counting a closed connection; Tornado calls this."""
        self.open -= Counter([server_conn.context.address[0]])  # `-=` also removes counts of 0
        super().on_close(server_conn)


QUIET = (StaticFileHandler, HealthCheckHandler)


class Requests:
    """Log requests as JupyterHub does, but limit entries per user and for all strangers together.

    Otherwise, anyone could fill the log with requests, and Docker would delete the oldest entries.
    """

    def __init__(self):
        self.limit = Limit(ENTRIES_AT_ONCE, SECONDS_PER_ENTRY)

    def __call__(self, handler: BaseHandler) -> None:
        """Log the request that a handler has answered; Tornado calls this."""
        # Replace Tornado's address, which comes from a header that visitors can forge.
        handler.request.remote_ip = addresses.address_of(handler.request)
        # Tornado accepts any word as an HTTP method, and the metrics would keep each one forever.
        if handler.request.method not in handler.SUPPORTED_METHODS:
            handler.request.method = "UNKNOWN"
        status = handler.get_status()
        if status == 304 or (status < 300 and isinstance(handler, QUIET)):
            log_request(handler)  # JupyterHub does not log these requests by default
            return
        user = user_of(handler)
        name = user and user.name  # None for all strangers together
        whose = name, status >= 500  # a separate limit for the hub's own errors
        if self.limit.wait(whose):
            prometheus_log_method(handler)
            return
        self.limit.count(whose)
        log_request(handler)
        if self.limit.wait(whose):
            who = name or "strangers"
            get_logger().warning("Entries for requests from %s are omitted for a while.", who)


def user_of(handler: BaseHandler) -> Any:
    """Return the user or service that made a request, or None if nobody was logged in."""
    try:
        return handler.current_user
    except (HTTPError, RuntimeError):  # as in JupyterHub's log_request
        return None


class Entries(logging.Filter):
    """Shorten long log entries, and limit the rate of entries from each line of code.

    Some log entries contain visitors' input, such as an unknown user name.
    """

    def __init__(self):
        super().__init__()
        self.warnings = Limit(ENTRIES_AT_ONCE, SECONDS_PER_ENTRY)
        self.others = Limit(OTHERS_AT_ONCE, SECONDS_PER_OTHER)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log an entry, after shortening it."""
        place = record.pathname, record.lineno
        limit = self.warnings if record.levelno >= logging.WARNING else self.others
        if record.funcName != "log_request":  # `Requests` limits request entries
            if limit.wait(place):
                return False
            limit.count(place)
            if limit.wait(place):
                record.msg = f"{record.getMessage()} [Similar entries are omitted for a while.]"
                record.args = ()
        text = record.getMessage()
        if len(text) > LONGEST_ENTRY:
            record.msg = f"{text[:LONGEST_ENTRY]} ... [{len(text)} characters]"
            record.args = ()
        return True


def shortened(token: orm.APIToken, note: str | None, *_: Any) -> str | None:
    """Return a shortened token note. SQLAlchemy calls this function before it sets a note."""
    return note and note[:LONGEST_NOTE]


def replace_oldest(token: orm.APIToken, user: orm.User | None, *_: Any) -> None:
    """Delete the user's least recently used tokens; SQLAlchemy calls this for each new token.

    Each log-out loads all of the user's tokens, and so does each page that lists them.
    """
    db = user and object_session(user)
    if not db:
        return
    last_use = func.coalesce(orm.APIToken.last_activity, orm.APIToken.created)
    with db.no_autoflush:
        others = db.query(orm.APIToken).filter_by(user_id=user.id, client_id=token.client_id)
        others = others.filter(func.coalesce(orm.APIToken.session_id, "") != SERVER)
        for oldest in others.order_by(last_use.desc()).offset(MOST_TOKENS - 1):
            db.delete(oldest)
