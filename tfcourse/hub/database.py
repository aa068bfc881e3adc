"""Check the hub's database at each start, copy it while it is in use, and restore it.

`make backup`, `make restore` and `make recover` run this module (`python -m tfcourse.hub.database`)
with the command `copy`, `vacant` or `recover`.

The database is an SQLite file in the state folder, unless COURSE_DATABASE names a PostgreSQL
server. A copy is always an SQLite file. It can be restored to SQLite or to any version of
PostgreSQL, without PostgreSQL's own tools.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jupyterhub
import nativeauthenticator.orm  # noqa: F401 - adds its table to the others
import sqlalchemy
from alembic import command, config, script, util
from jupyterhub import dbutil, orm
from traitlets.log import get_logger

import tfcourse.hub.tables  # noqa: F401 - adds our tables to JupyterHub's
from tfcourse.hub import rounds, say, settings, unsaved
from tfcourse.hub.state import (
    private_folder,
    remove_leftovers,
    state_folder,
    sync,
    unused,
)

ALEMBIC = dbutil.ALEMBIC_DIR
# JupyterHub writes this path into a settings file in which % starts a placeholder.
dbutil.ALEMBIC_DIR = ALEMBIC.replace("%", "%%")

COPIES = 7  # the number of copies to keep; one is made per day and before each upgrade

MINUTE, HOUR = 60, 3600  # seconds

ROOM = 10 * 2**20  # bytes; with less free disk space, the hub would crash at startup

TOGETHER = 10  # the number of rows to copy at a time

TIMEOUT = 15  # seconds to wait for a lock, long enough to copy a large database

DISK_FULL = """\
The disk with the hub's accounts is full. Free some space (`docker system df --verbose`
shows what uses it), then run `make up`.
Learners' work is safe, and their servers keep running."""


def main() -> None:
    """Run the `copy`, `vacant` or `recover` command."""
    parser = argparse.ArgumentParser(prog="python -m tfcourse.hub.database")
    parser.add_argument("action", choices=["copy", "vacant", "recover"])
    parser.add_argument("--replace", action="store_true", help="replace existing accounts, too")
    parser.add_argument("--empty", action="store_true", help="start without accounts")
    options = parser.parse_args()
    folder = state_folder() / "hub"
    if options.action == "copy":
        if state_of(url(folder)) is None:
            sys.exit("There are no accounts to copy: the hub has not been started yet.")
        say(f"Copied the accounts to {copy(url(folder), folder)}.")
    elif options.action == "vacant":
        where = url(folder)
        if not path_of(where) and accounts(where):  # `restore` checks SQLite files itself
            sys.exit(
                f"The database {shown(where)} already has accounts.\n"
                "REPLACE=1 replaces them with those in the backup."
            )
    else:
        recover(private_folder(folder), options.replace, options.empty)


def url(folder: Path) -> str:
    """Return the database's URL; exit with a message if COURSE_DATABASE is invalid."""
    text = settings.DATABASE()
    if not text:
        return f"sqlite:///{folder / 'jupyterhub.sqlite'}"
    try:
        where = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        where = None
    if where is None or where.drivername != "postgresql":  # do not print the password
        sys.exit("COURSE_DATABASE has to be empty or like postgresql://user:password@host/name.")
    # Otherwise, a database without an encoding (as in the C locale) would return text as bytes.
    where = where.update_query_dict({"client_encoding": "utf8"})
    return where.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def configure(c: Any, folder: Path, homes: Iterable[str] = ()) -> None:
    """Prepare the hub's database and configure its URL."""
    where = prepare(folder, homes)
    c.JupyterHub.db_url = where
    # Copy the database regularly, and log any damage within half a minute.
    rounds.regularly(partial(look_after, where, folder), seconds=20)
    unsaved.configure(folder)


def prepare(folder: Path, homes: Iterable[str] = ()) -> str:
    """Prepare the database for the hub to start, and return the database's URL.

    Exit with a message if the database is damaged, or if an earlier database is missing. With a new
    database, anyone could sign up under a learner's name and get that learner's home directory.
    """
    where = url(folder)
    check_writable(where)
    if shutil.disk_usage(folder).free < ROOM:
        sys.exit(DISK_FULL)
    found = state_of(where)
    if found is None:
        if copies(folder) or any(homes):
            sys.exit(f"There is no database {shown(where)}, but there was one.\n{advice()}")
        create(where)
    elif found != revisions().get_current_head():
        check_known(found, where)
        kept = copy(where, folder)
        upgrade(where)
        say(f"The database has been upgraded. A copy from before is kept in {kept}.")
    return where


def state_of(where: str) -> str | None:
    """Return the database's schema revision, or None if there is no database.

    Exit with a message if the database is damaged or cannot be used.
    """
    path = path_of(where)
    if path and not path.exists():
        return None
    problem = path and damage(path)
    if problem:
        sys.exit(f"The accounts' database is damaged: {path}: {problem}.\n{advice()}")
    try:
        with connect(where) as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None
            return connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
    except sqlalchemy.exc.OperationalError as error:
        if path and (reason := obstacle(path, error.orig)):
            sys.exit(reason)
        sys.exit(
            f"The database {shown(where)} cannot be used:\n{error.orig}\n"
            "Is its server running? The hub keeps trying to connect."
        )


def damage(path: Path) -> str | None:
    """Return a description of the damage to a database file, or None if the file is intact.

    Exit with a message if the file cannot be checked, for example because another program has
    locked it.
    """
    if path.is_dir():
        return "it is a folder"
    try:
        # Open the file for writing, so that SQLite first rolls back a killed hub's last
        # transaction.
        with opened(path) as database:
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if verdict == "ok" and not {"alembic_version", "users"} <= tables:
                return "it holds no accounts"
            if verdict == "ok" and not database.execute("SELECT * FROM alembic_version").fetchall():
                return "it does not say which version made it"
    except sqlite3.Error as error:
        if reason := obstacle(path, error):
            sys.exit(reason)
        return str(error)
    return None if verdict == "ok" else " ".join(verdict.split())


def check_writable(where: str) -> None:
    """Exit with a message if the database's file exists but is not writable.

    The file's folder also has to be writable, because SQLite stores its rollback journal there.
    """
    path = path_of(where)
    if path and path.is_file():
        try:
            with opened(path) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("CREATE TABLE a_test (a)")
                database.execute("ROLLBACK")
        except sqlite3.Error as error:
            if reason := obstacle(path, error):
                sys.exit(reason)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing SQLite file for writing; if it is locked, wait up to TIMEOUT seconds."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=TIMEOUT)
    database.isolation_level = None  # do not start transactions implicitly
    with contextlib.closing(database):
        yield database


def obstacle(path: Path, error: sqlite3.Error) -> str | None:
    """Return a message if a lock, the permissions or the disk caused the error, or else None."""
    # The lowest byte of an SQLite error code is the primary code.
    kind = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"Another program keeps the database {path} locked.\n"
            "End that program (`fuser --verbose` with the file's path names it), or wait for it."
        )
    if kind == sqlite3.SQLITE_FULL:
        return DISK_FULL
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"The database {path} cannot be written: {error}.\n"
            f"The file and its folder have to belong to user {os.geteuid()}, the hub's, who has to "
            "be allowed to\nwrite to both; their disk must not be mounted read-only."
        )
    if kind == sqlite3.SQLITE_IOERR:
        return f"The disk with the database {path} does not work: {error}. `dmesg` says more."
    return None


def advice() -> str:
    """Return advice for operators on how to restore a lost database."""
    if settings.SPAWNER() == "docker":
        how = "`make recover`"
    else:
        how = f"`COURSE_STATE={state_folder()} {sys.executable} -m tfcourse.hub.database recover`"
    return f"{how} restores the last good copy."


def create(where: str) -> None:
    """Create a database without accounts.

    Rename an SQLite file into place once it is complete, because the hub would consider a partial
    file damaged.
    """
    if path := path_of(where):
        with replacing(path) as aside:
            orm.new_session_factory(f"sqlite:///{aside}")
    else:
        orm.new_session_factory(where)


def upgrade(where: str) -> None:
    """Upgrade the database to the schema of this JupyterHub version.

    An SQLite file is upgraded completely or not at all.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if path := path_of(where):
            aside = stack.enter_context(replacing(path))
            copy_file(path, aside)
            where = f"sqlite:///{aside}"
        settings = Path(folder, "alembic.ini")
        dbutil.write_alembic_ini(settings, where)
        command.upgrade(config.Config(settings), "head")


def revisions() -> script.ScriptDirectory:
    """Return the schema revisions that this JupyterHub version supports."""
    return script.ScriptDirectory(ALEMBIC)


def is_known(revision: str | None) -> bool:
    """Return whether this JupyterHub version supports a schema revision.

    JupyterHub does not support schema revisions from newer versions.
    """
    try:
        return bool(revisions().get_revision(revision))
    except util.CommandError:
        return False


def check_known(revision: str, where: str) -> None:
    """Exit with a message if the database comes from a newer JupyterHub version."""
    if not is_known(revision):
        # Only the administrator of a PostgreSQL server can drop the newer version's tables.
        back = advice() if path_of(where) else "restore the server's own backup."
        sys.exit(
            f"The database {shown(where)} was made by a newer JupyterHub than this one, which is "
            f"{jupyterhub.__version__}.\n"
            f"Start the newer version again, or return to the state before it: {back}"
        )


def is_good(path: Path) -> bool:
    """Return whether this JupyterHub version can use a database file."""
    try:
        return path.exists() and not damage(path) and is_known(state_of(f"sqlite:///{path}"))
    except SystemExit:  # the file cannot be read
        return False


# --- Copies


def copies(folder: Path) -> list[Path]:
    """Return the copies, newest first; copies dated in the future come last.

    A copy dated in the future was made while the clock was wrong, so its age is unknown.
    """
    now = time.time()

    def made(path: Path) -> tuple[bool, float]:
        moment = path.stat().st_mtime
        return moment < now + MINUTE, moment

    return sorted((folder / "copies").glob("*.sqlite"), key=made, reverse=True)


def copy(where: str, folder: Path) -> Path:
    """Copy the database, even while it is in use, and return the copy's path.

    Keep only the newest copies, and remove the temporary files of killed runs.
    """
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    path = private_folder(folder / "copies") / f"{day}-{state_of(where)}.sqlite"
    with replacing(path) as aside:
        source = path_of(where)
        copy_file(source, aside) if source else copy_rows(where, aside)
    for old in copies(folder)[COPIES:]:
        old.unlink(missing_ok=True)
    for parent in (folder, path.parent):
        remove_leftovers(parent.glob(".part-*"))
    return path


def copy_file(source: Path, target: Path) -> None:
    """Copy a consistent snapshot of an SQLite file; exit with a message if the disk is full."""
    try:
        with (
            contextlib.closing(sqlite3.connect(source)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
    except sqlite3.Error as error:
        if reason := obstacle(source, error):
            sys.exit(reason)
        raise


def copy_rows(where: str, target: Path) -> None:
    """Copy a consistent snapshot of the tables into an SQLite file.

    This function works with any schema revision.
    """
    tables = sqlalchemy.MetaData()
    engine = sqlalchemy.create_engine(f"sqlite:///{target}")
    with connect(where) as source, engine.begin() as sink:
        source.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        tables.reflect(source)
        for table in tables.sorted_tables:
            for column in table.columns:
                column.type = column.type.as_generic()
                column.server_default = None  # such as PostgreSQL's sequences
        tables.create_all(sink)
        for table in tables.sorted_tables:
            copy_table(table, source, sink)
    engine.dispose()


def copy_table(table: sqlalchemy.Table, there: sqlalchemy.Connection, here: sqlalchemy.Connection):
    """Copy a table's rows, a few at a time, because submissions are large."""
    query = table.select().execution_options(yield_per=TOGETHER)
    for rows in there.execute(query).mappings().partitions():
        here.execute(table.insert(), [dict(row) for row in rows])


def look_after(where: str, folder: Path) -> None:
    """Copy the database every hour, or log an error if the database is damaged."""
    last = next(iter(copies(folder)), None)
    path = path_of(where)
    problem = path and (damage(path) if path.exists() else "it is gone")
    if problem:
        get_logger().critical(f"The accounts' database is damaged: {path}: {problem}.\n{advice()}")
    elif not last or not -MINUTE < time.time() - last.stat().st_mtime < HOUR:
        copy(where, folder)


# --- Recovery


def accounts(where: str) -> int:
    """Return the number of accounts in the database."""
    if not state_of(where):
        return 0
    with connect(where) as connection:
        return connection.scalar(sqlalchemy.select(sqlalchemy.func.count(orm.User.id)))


def recover(folder: Path, replace: bool, empty: bool) -> None:
    """Restore the last good copy of the database if the database is not intact.

    The old file is kept under a different name. With `empty`, create a database without accounts
    instead of restoring a copy.
    """
    where, path = url(folder), folder / "jupyterhub.sqlite"
    check_writable(where)
    whole = is_good(path) if path_of(where) else accounts(where) and not replace
    if whole:
        say(f"The database {shown(where)} is intact; nothing was changed.")
        return
    good = next(filter(is_good, copies(folder)), None)
    if not good and not empty:
        sys.exit(
            "There is no good copy. Restore accounts and work with `make restore`, or start\n"
            "without accounts: `make recover EMPTY=1`. People whose files still exist then have\n"
            "to wait for the administrator's approval."
        )
    # Move the old SQLite file aside even if the accounts move to a server. Otherwise, the hub might
    # later use that file as its database. SQLite would apply the old file's journal to the copy.
    aside = unused(folder, f"{path.name}.{datetime.now(UTC):%Y-%m-%d-%H%M%S}")
    old = [end for end in ("", "-journal", "-wal", "-shm") if Path(f"{path}{end}").exists()]
    try:
        for end in old:
            Path(f"{path}{end}").rename(f"{aside}{end}")
    except OSError as error:
        sys.exit(f"The hub cannot write to its folder {folder}: {error.strerror}.")
    if old:
        say(f"The old database is kept in {aside}.")
    if empty:
        create(where)
        say("The hub starts without accounts. Homes are unchanged.")
    else:
        bring_back(good, where)
        made = datetime.fromtimestamp(good.stat().st_mtime, UTC)
        say(f"The accounts are as they were on {made:%Y-%m-%d at %H:%M} UTC.")


def bring_back(good: Path, where: str) -> None:
    """Replace the database with a copy."""
    if path := path_of(where):
        with replacing(path) as aside:
            copy_file(good, aside)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "copy.sqlite")
        copy_file(good, source)
        found = state_of(f"sqlite:///{source}")
        check_known(found, f"sqlite:///{good}")
        upgrade(f"sqlite:///{source}")
        create(where)
        fill(f"sqlite:///{source}", where)


def fill(source: str, target: str) -> None:
    """Replace all rows in a PostgreSQL database with an SQLite file's rows, in one transaction."""
    tables = orm.Base.metadata.sorted_tables
    with connect(source) as there, connect(target) as here, here.begin():
        known = sqlalchemy.inspect(there).get_table_names()
        orm.Base.metadata.create_all(here)
        for table in reversed(tables):
            here.execute(table.delete())
        for table in tables:
            if table.name in known:
                copy_table(table, there, here)
            if "id" in table.columns:  # new rows must not reuse an existing id
                counter = sqlalchemy.func.pg_get_serial_sequence(table.name, "id")
                last = sqlalchemy.func.max(table.c.id)
                here.execute(sqlalchemy.select(sqlalchemy.func.setval(counter, last)))


# --- Locations


def path_of(where: str) -> Path | None:
    """Return the path of the database's file, or None if the database is on a server."""
    return Path(where.removeprefix("sqlite:///")) if where.startswith("sqlite") else None


def shown(where: str) -> str:
    """Return the database's path, or its URL without the password."""
    if path := path_of(where):
        return str(path)
    return sqlalchemy.make_url(where).set(drivername="postgresql", query={}).render_as_string()


def connect(where: str) -> sqlalchemy.Connection:
    """Return a new, unpooled connection to the database."""
    waiting = {} if path_of(where) else {"connect_timeout": 10}
    engine = sqlalchemy.create_engine(where, poolclass=sqlalchemy.NullPool, connect_args=waiting)
    return engine.connect()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, then replace `path` with the file written to the temporary path.

    If an exception is raised, the old file stays unchanged. Exit with a message if the folder is
    not writable.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent)
    except OSError as error:
        sys.exit(f"The hub cannot write to its folder {path.parent}: {error.strerror}.")
    with folder as name:
        aside = Path(name, path.name)
        yield aside
        sync(aside)
        aside.replace(path)
    sync(path.parent)


if __name__ == "__main__":
    main()
