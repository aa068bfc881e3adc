"""Keep the hub running while its database is not writable, and repair the hub's state afterwards.

The disk may be full, another program may have locked the database, or the database server may be
down. Learners' servers keep running in the meantime, so the hub must not exit.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import Spawner
from sqlalchemy.exc import DatabaseError, DataError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from tornado import web
from traitlets.log import get_logger

from tfcourse.hub import rounds

OFTEN = 5  # seconds

LITTLE = 2**20  # bytes; with less free space, even a small change to the database might not fit

SENTENCE = (
    "The hub cannot save anything at the moment, so your request failed. Its disk may be full. "
    "Please tell your instructor, and try again later."
)


class NotSavedError(web.HTTPError, OperationalError):
    """A database error that is shown as HTTP 503, with a message, on pages and in the REST API.

    Because this class is also an OperationalError, JupyterHub rolls back the transaction. If the
    connection was lost (`lost`), JupyterHub reconnects.
    """

    def __init__(self, original: BaseException, lost: bool):
        OperationalError.__init__(self, None, None, original, connection_invalidated=lost)
        web.HTTPError.__init__(self, 503, SENTENCE)
        self.jupyterhub_message = SENTENCE


class NotStorableError(web.HTTPError, DataError):
    """HTTP 400: a visitor sent text that the database cannot store or look up, such as a NUL."""

    def __init__(self, original: BaseException):
        DataError.__init__(self, None, None, original)
        web.HTTPError.__init__(self, 400, "The request has text that is too long or not allowed.")


def configure(folder: Path) -> None:
    """Handle database errors in this process, and regularly repair their consequences.

    If the database is a file, it is in `folder`.
    """
    sqlalchemy.event.listen(sqlalchemy.Engine, "handle_error", explained, retval=True)
    sqlalchemy.event.listen(Session, "before_flush", partial(without_activity, folder))
    rounds.regularly(partial(rounds.in_the_hub, put_right, set()), seconds=OFTEN)


def explained(context: sqlalchemy.engine.ExceptionContext) -> BaseException | None:
    """Return an error to raise instead of the database error, or None to keep the original."""
    error = context.sqlalchemy_exception
    # Database drivers raise ValueError or OverflowError for values that they cannot send.
    if isinstance(error or context.original_exception, DataError | ValueError | OverflowError):
        get_logger().warning("The database refused a value: %s", context.original_exception)
        rounds.in_the_hub(roll_back)
        return NotStorableError(context.original_exception)
    # Other errors, such as IntegrityError, concern the data to be saved, not the database itself.
    if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
        return None
    get_logger().error("The database cannot be used: %s", context.original_exception)
    rounds.in_the_hub(roll_back)
    return NotSavedError(context.original_exception, context.is_disconnect)


def without_activity(folder: Path, session: Session, *_: Any) -> None:
    """If the disk is full and only activity times have changed, discard those changes.

    JupyterHub records the user's activity time with each request. If the time cannot be saved,
    JupyterHub treats the user as logged out. Learners' servers, which rely on the hub to
    authenticate users, would then reject their own learners.
    """
    if session.new or session.deleted or shutil.disk_usage(folder).free > LITTLE:
        return
    changes = [(thing, changed(thing)) for thing in session.dirty]
    if all(names <= {"last_activity"} for _, names in changes):
        for thing, names in changes:
            session.expire(thing, names)


def changed(thing: Any) -> set[str]:
    """Return the names of an object's unsaved attributes."""
    return {attr.key for attr in sqlalchemy.inspect(thing).attrs if attr.history.has_changes()}


def roll_back(app: JupyterHub) -> None:
    """Roll back a failed transaction if JupyterHub has not, because later queries would fail."""
    if not app.db.is_active:
        app.db.rollback()


async def put_right(app: JupyterHub, unwatched: set[Spawner]) -> None:
    """Record that servers have stopped, if this could not be recorded when they stopped.

    `unwatched` contains the servers that the hub was no longer polling at the previous check. If
    the hub cannot save that a server has stopped, it keeps treating the server as running but no
    longer polls it.
    """
    roll_back(app)
    spawners = [spawner for user in app.users.values() for spawner in user.spawners.values()]
    found = {spawner for spawner in spawners if is_unwatched(spawner)}
    for spawner in found & unwatched:
        if await spawner.poll() is not None and is_unwatched(spawner):
            try:
                await spawner.user.stop(spawner.name)  # the hub's next check removes the route
            except SQLAlchemyError:  # it cannot be recorded yet; the next round tries again
                roll_back(app)
                return
            app.log.warning("Recorded late that %s has stopped.", spawner._log_name)
    unwatched.clear()
    unwatched.update(found)


def is_unwatched(spawner: Spawner) -> bool:
    """Return whether a server counts as running although the hub no longer polls it."""
    # Ignore a server with a `_stop_future`, because the hub is still stopping it.
    busy = spawner.pending not in (None, "stop") or getattr(spawner, "_stop_future", None)
    return bool(spawner.server and not busy and not spawner._poll_callback)
