"""Limit what visitors can make the hub store: request bodies, log entries, notes on tokens.

Also raise the limit on the hub's own connections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers import BaseHandler
from jupyterhub.log import log_request
from jupyterhub.metrics import prometheus_log_method
from sqlalchemy import event
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.web import HTTPError

from tfcourse.hub.limits import Limit

# The largest legitimate requests add a few thousand users or carry a learning platform's signed
# message. Tornado would allow 100 MB by default, and keep the entire body in memory.
LARGEST_BODY = 256 * 1024  # bytes
BODY_SECONDS = 60  # the time-out for receiving a body

# Limits for warnings and for requests without a log-in, which anyone can trigger. At this rate, a
# 50 MB log lasts for weeks.
ENTRIES_AT_ONCE = 300
SECONDS_PER_ENTRY = 10
# Limits for all other log entries, which concern logged-in users. This rate allows two thousand
# users to log in within minutes.
OTHERS_AT_ONCE = 3000
SECONDS_PER_OTHER = 1
LONGEST_ENTRY = 2000  # characters

# The maximum number of connections that the hub opens at the same time: to servers, the proxy and
# log-in services. The default is ten, and a request that waits 20 seconds for a connection fails.
# Ten servers that accept connections and do not answer, or twenty log-ins a second with single
# sign-on (docs/kubernetes.md), cause such failures. The limit is no higher than 500 because some
# systems allow only 1,024 open files.
CONNECTIONS = 500

LONGEST_NOTE = 200  # characters; PostgreSQL refuses more than 1023, and SQLite has no limit


def configure(c: Any) -> None:
    """Set the limits, including those for the hub's own port, which learners' servers can reach."""
    HTTPServer.configure(None, max_body_size=LARGEST_BODY, body_timeout=BODY_SECONDS)
    c.JupyterHub.tornado_settings.update({"log_function": Requests()})
    c.JupyterHub.logging_config = {
        "filters": {"bounds": {"()": Entries}},
        "handlers": {"console": {"filters": ["bounds"]}},
    }
    event.listen(orm.APIToken.note, "set", shortened, retval=True)
    JupyterHub.init_pycurl = init_client


def init_client(hub: JupyterHub, default: Callable[[JupyterHub], None] = JupyterHub.init_pycurl):
    """Choose an HTTP client as JupyterHub does, then set the limit, which it would discard."""
    default(hub)
    AsyncHTTPClient.configure(AsyncHTTPClient.configured_class(), max_clients=CONNECTIONS)


class Requests:
    """Log requests as JupyterHub does, but limit entries for visitors who are not logged in.

    Otherwise, anyone could fill the log with requests, and Docker would delete the oldest entries.
    """

    def __init__(self):
        self.limit = Limit(ENTRIES_AT_ONCE, SECONDS_PER_ENTRY)

    def __call__(self, handler: BaseHandler) -> None:
        """Log a completed request. Tornado calls this method with the request's handler."""
        if not user_of(handler):
            if self.limit.wait("visitors"):
                prometheus_log_method(handler)
                return
            self.limit.count("visitors")
        log_request(handler)


def user_of(handler: BaseHandler) -> Any:
    """Return the user or service that made a request, or None if nobody is logged in."""
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
