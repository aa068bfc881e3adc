"""Keep the hub usable while its database cannot be written, and put right what went wrong then.

The disk may be full, another program may lock the database, or its server may be down. Learners'
servers run on meanwhile, so the hub must not end.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import Spawner
from sqlalchemy.exc import DatabaseError, DataError, OperationalError
from sqlalchemy.orm import Session
from tornado import web
from traitlets.log import get_logger

from tfcourse.hub import rounds

OFTEN = 5  # seconds

LITTLE = 2**20  # bytes; with less, not even a small change of the database is sure to fit

SENTENCE = (
    "The hub cannot save anything at the moment, so it did not do this. Perhaps its disk is full. "
    "Please tell your instructor, and try again later."
)


class NotSavedError(web.HTTPError, OperationalError):
    """The database cannot be used: HTTP 503 with a message, on pages and in the REST API.

    It is a database error still, and JupyterHub therefore rolls back. If the connection was lost
    (`lost`), JupyterHub connects again.
    """

    def __init__(self, original: BaseException, lost: bool):
        OperationalError.__init__(self, None, None, original, connection_invalidated=lost)
        web.HTTPError.__init__(self, 503, SENTENCE)
        self.jupyterhub_message = SENTENCE


class NotStorableError(web.HTTPError, DataError):
    """A visitor sent text that the database cannot store or look up, such as a NUL: HTTP 400."""

    def __init__(self, original: BaseException):
        DataError.__init__(self, None, None, original)
        web.HTTPError.__init__(self, 400, "The request has text that is too long or not allowed.")


def configure(folder: Path) -> None:
    """Look after the database's errors in this process, and after what they leave behind.

    `folder` is the one with the database, if that is a file.
    """
    sqlalchemy.event.listen(sqlalchemy.Engine, "handle_error", explained, retval=True)
    sqlalchemy.event.listen(Session, "before_flush", partial(without_activity, folder))
    rounds.regularly(partial(rounds.in_the_hub, put_right, set()), seconds=OFTEN)


def explained(context: sqlalchemy.engine.ExceptionContext) -> BaseException | None:
    """Return the error that is raised instead of the database's, or None to leave it as it is."""
    error = context.sqlalchemy_exception
    # Drivers raise a ValueError or an OverflowError for what they cannot even send.
    if isinstance(error or context.original_exception, DataError | ValueError | OverflowError):
        get_logger().warning("The database refused a value: %s", context.original_exception)
        rounds.in_the_hub(roll_back)
        return NotStorableError(context.original_exception)
    # An IntegrityError and the like are about what was to be saved.
    if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
        return None
    get_logger().error("The database cannot be used: %s", context.original_exception)
    rounds.in_the_hub(roll_back)
    return NotSavedError(context.original_exception, context.is_disconnect)


def without_activity(folder: Path, session: Session, *_: Any) -> None:
    """Do not save when somebody was active if that is all there is to save, and the disk is full.

    JupyterHub notes it with each request. If it cannot, it takes the visitor for a stranger, and
    learners' servers, which ask the hub whom they may serve, shut out their own learners.
    """
    if session.new or session.deleted or shutil.disk_usage(folder).free > LITTLE:
        return
    changes = [(thing, changed(thing)) for thing in session.dirty]
    if all(names <= {"last_activity"} for _, names in changes):
        for thing, names in changes:
            session.expire(thing, names)


def changed(thing: Any) -> set[str]:
    """Return the names of an object's attributes that have not been saved yet."""
    return {attr.key for attr in sqlalchemy.inspect(thing).attrs if attr.history.has_changes()}


def roll_back(app: JupyterHub) -> None:
    """Undo what failed half-way, where JupyterHub has not: everything else would fail, too."""
    if not app.db.is_active:
        app.db.rollback()


async def put_right(app: JupyterHub, unwatched: set[Spawner]) -> None:
    """Finish what could not be saved.

    `unwatched` has the servers that the hub had stopped watching at the last round. A hub that
    cannot save that a server has stopped goes on believing that it runs, and never looks again.
    """
    roll_back(app)
    spawners = [spawner for user in app.users.values() for spawner in user.spawners.values()]
    found = {spawner for spawner in spawners if is_unwatched(spawner)}
    for spawner in found & unwatched:
        if await spawner.poll() is not None and is_unwatched(spawner):
            app.log.warning("Saving only now that %s has stopped.", spawner._log_name)
            await spawner.user.stop(spawner.name)  # the next check of the routes removes its route
    unwatched.clear()
    unwatched.update(found)


def is_unwatched(spawner: Spawner) -> bool:
    """Return whether nothing looks whether a server still runs, though it counts as running."""
    # While somebody stops it, there is a future; an ending that was noticed is saved in a moment.
    busy = spawner.pending not in (None, "stop") or getattr(spawner, "_stop_future", None)
    return bool(spawner.server and not busy and not spawner._poll_callback)
