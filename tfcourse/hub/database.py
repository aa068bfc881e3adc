"""The hub's database: looked at before each start, copied while it is used, brought back.

`python -m tfcourse.hub.database copy`, `vacant` and `recover` are for `make backup`, `make restore`
and `make recover`.

It is an SQLite file in the state folder, or COURSE_DATABASE names a PostgreSQL server. A copy is an
SQLite file in either case: it can be brought back to either, whatever the server's version is, and
nothing of PostgreSQL's own has to be installed here.
"""

from __future__ import annotations

import argparse
import contextlib
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
import nativeauthenticator.orm  # noqa: F401 - its table belongs to the others
import sqlalchemy
from alembic import command, config, script, util
from jupyterhub import dbutil, orm
from traitlets.log import get_logger

from tfcourse.hub import rounds, say, settings
from tfcourse.hub.settings import in_a_pod
from tfcourse.hub.state import private_folder, state_folder

KEPT = 7  # copies: one a day, and one from before an upgrade

HOUR = 3600  # seconds

ROOM = 10 * 2**20  # bytes; with less the hub would end in the middle of its start


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tfcourse.hub.database")
    parser.add_argument("action", choices=["copy", "vacant", "recover"])
    parser.add_argument("--replace", action="store_true", help="accounts that are there, too")
    parser.add_argument("--empty", action="store_true", help="begin without accounts")
    options = parser.parse_args()
    folder = state_folder() / "hub"
    if options.action == "copy":
        if state_of(url(folder)) is None:
            sys.exit("There are no accounts to copy: the hub has not been started yet.")
        say(f"Copied the accounts to {copy(url(folder), folder)}.")
    elif options.action == "vacant":
        where = url(folder)
        if not path_of(where) and accounts(where):  # a file is in the state folder
            sys.exit(f"There are accounts in the database {shown(where)}.")
    else:
        recover(private_folder(folder), options.replace, options.empty)


def url(folder: Path) -> str:
    """Return where the database is; exit with a sentence if COURSE_DATABASE cannot be."""
    text = settings.DATABASE()
    if not text:
        return f"sqlite:///{folder / 'jupyterhub.sqlite'}"
    try:
        where = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        where = None
    if where is None or where.drivername != "postgresql":  # it has a password: not repeated
        sys.exit("COURSE_DATABASE has to be empty, or like postgresql://user:password@host/name.")
    # Where the database has no encoding, as in the C locale, texts would come as bytes.
    where = where.update_query_dict({"client_encoding": "utf8"})
    return where.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def configure(c: Any, folder: Path, homes: Iterable[str] = ()) -> None:
    """Set where the hub's accounts are, when that is fit to start with."""
    where = prepare(folder, homes)
    c.JupyterHub.db_url = where
    # Copies are kept in case that it is damaged; then the log says so within half a minute.
    rounds.regularly(partial(look_after, where, folder), seconds=20)


def prepare(folder: Path, homes: Iterable[str] = ()) -> str:
    """See to it that the hub can start with its database; return where that is.

    One that is damaged, or missing where there was one, ends the start with a sentence. With a new
    one, learners' homes would be for whoever signs up first under their names.
    """
    where = url(folder)
    if shutil.disk_usage(folder).free < ROOM:
        how = " (`docker system df --verbose`\nsays what takes it), then `make up`"
        sys.exit(
            f"The disk with the hub's accounts is full. Make room{'' if in_a_pod() else how}.\n"
            "Learners' work is safe; their servers run on."
        )
    found = state_of(where)
    if found is None:
        if copies(folder) or any(homes):
            sys.exit(f"There is no database {shown(where)}, but there was one.\n{advice()}")
        create(where)
    elif found != revisions().get_current_head():
        check_known(found, where)
        kept = copy(where, folder)
        upgrade(where)
        say(f"The database is upgraded. As it was before, it is kept in {kept}.")
    return where


def state_of(where: str) -> str | None:
    """Return the revision of the schema, None without a database; exit if it is damaged."""
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
        sys.exit(
            f"The database {shown(where)} cannot be used:\n{error.orig}\n"
            "Is its server running? The hub tries again until it is."
        )


def damage(path: Path) -> str | None:
    """Return what is wrong with the file, None if it is a hub's database and whole."""
    try:
        # To be written: what a killed hub has left half done is undone first.
        address = f"{path.as_uri()}?mode=rw"
        # One that the hub writes to is not damaged: it is waited for.
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        return str(error)
    if verdict != "ok":
        return " ".join(verdict.split())
    return None if {"alembic_version", "users"} <= tables else "it holds no accounts"


def advice() -> str:
    """Return what to do without the database."""
    if in_a_pod():
        how = "The job of kubernetes/recover.yaml"
    elif settings.SPAWNER() == "docker":
        how = "`make recover`"
    else:
        how = f"`COURSE_STATE={state_folder()} {sys.executable} -m tfcourse.hub.database recover`"
    return f"{how} brings the last good copy back."


def create(where: str) -> None:
    """Make a database without accounts; a file all at once, as half of one is a damaged one."""
    if path := path_of(where):
        with replacing(path) as aside:
            orm.new_session_factory(f"sqlite:///{aside}")
    else:
        orm.new_session_factory(where)


def upgrade(where: str) -> None:
    """Upgrade the schema to this JupyterHub's; a file as a whole, or not at all."""
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
    """Return the revisions of the schema that this JupyterHub knows."""
    return script.ScriptDirectory(dbutil.ALEMBIC_DIR)


def is_known(revision: str | None) -> bool:
    """Tell whether this JupyterHub knows the schema, and not a newer one alone."""
    try:
        return bool(revisions().get_revision(revision))
    except util.CommandError:
        return False


def check_known(revision: str, where: str) -> None:
    """Exit with a sentence if a newer JupyterHub has made the database."""
    if not is_known(revision):
        # What the copy would replace on a server is for its administrator to remove.
        back = advice() if path_of(where) else "bring the server's own backup back."
        sys.exit(
            f"The database {shown(where)} is of a newer JupyterHub than this one, which is "
            f"{jupyterhub.__version__}.\n"
            f"Start the newer version again. Or go back to before it: {back}"
        )


def is_good(path: Path) -> bool:
    """Tell whether this JupyterHub can start with the file."""
    return not damage(path) and is_known(state_of(f"sqlite:///{path}"))


# --- Copies


def copies(folder: Path) -> list[Path]:
    """Return the copies, the newest one first."""
    found = (folder / "copies").glob("*.sqlite")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def copy(where: str, folder: Path) -> Path:
    """Copy the database, whoever uses it meanwhile, and forget the oldest copies."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    path = private_folder(folder / "copies") / f"{day}-{state_of(where)}.sqlite"
    with replacing(path) as aside:
        source = path_of(where)
        copy_file(source, aside) if source else copy_rows(where, aside)
    for old in copies(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def copy_file(source: Path, target: Path) -> None:
    """Copy an SQLite file as it is at one moment."""
    with (
        contextlib.closing(sqlite3.connect(source)) as there,
        contextlib.closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)


def copy_rows(where: str, target: Path) -> None:
    """Copy the tables as they are at one moment, whatever their revision, into an SQLite file."""
    tables = sqlalchemy.MetaData()
    engine = sqlalchemy.create_engine(f"sqlite:///{target}")
    with connect(where) as source, engine.begin() as sink:
        source.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        tables.reflect(source)
        for table in tables.sorted_tables:
            for column in table.columns:
                column.type = column.type.as_generic()
                column.server_default = None  # PostgreSQL's counters
        tables.create_all(sink)
        for table in tables.sorted_tables:
            if rows := source.execute(table.select()).mappings().all():
                sink.execute(table.insert(), [dict(row) for row in rows])
    engine.dispose()


def look_after(where: str, folder: Path) -> None:
    """Copy the database if the last copy is an hour old; say so if it has been damaged."""
    last = next(iter(copies(folder)), None)
    path = path_of(where)
    problem = path and (damage(path) if path.exists() else "it is gone")
    if problem:
        get_logger().critical(f"The accounts' database is damaged: {path}: {problem}.\n{advice()}")
    elif not last or last.stat().st_mtime < time.time() - HOUR:
        copy(where, folder)


# --- Bringing one back


def accounts(where: str) -> int:
    """Return how many there are."""
    if not state_of(where):
        return 0
    with connect(where) as connection:
        return connection.scalar(sqlalchemy.select(sqlalchemy.func.count(orm.User.id)))


def recover(folder: Path, replace: bool, empty: bool) -> None:
    """Bring the last good copy back, unless the database is whole; keep what was there aside."""
    where, path = url(folder), folder / "jupyterhub.sqlite"
    whole = is_good(path) if path_of(where) else accounts(where) and not replace
    if whole:
        say(f"The database {shown(where)} is whole; nothing is changed.")
        return
    good = next(filter(is_good, copies(folder)), None)
    if not good and not empty:
        back, anew = ("`make restore`", "`make recover EMPTY=1`")
        if in_a_pod():
            back, anew = ("a backup", "the same job with `--empty`")
        sys.exit(
            f"There is no good copy. Bring accounts and work back with {back}, or begin without\n"
            f"accounts: {anew}. Who then signs up under the name of a home that is there waits\n"
            "for the administrator."
        )
    # Of accounts that move to a server, too: the file would be taken for theirs later.
    if path.exists():
        aside = f"{path}.{datetime.now(UTC):%Y-%m-%d-%H%M%S}"
        path.rename(aside)
        with contextlib.suppress(FileNotFoundError):  # it would be played back into the copy
            Path(f"{path}-journal").rename(f"{aside}-journal")
        say(f"What was there is kept in {aside}.")
    if empty:
        create(where)
        say("The hub begins without accounts. Homes are as they were.")
    else:
        bring_back(good, where)
        made = datetime.fromtimestamp(good.stat().st_mtime, UTC)
        say(f"The accounts are as they were on {made:%Y-%m-%d at %H:%M} UTC.")


def bring_back(good: Path, where: str) -> None:
    """Make the copy the database."""
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
    """Replace all rows of a PostgreSQL database by those of an SQLite file, all at once."""
    tables = orm.Base.metadata.sorted_tables
    with connect(source) as there, connect(target) as here, here.begin():
        known = sqlalchemy.inspect(there).get_table_names()
        orm.Base.metadata.create_all(here)
        for table in reversed(tables):
            here.execute(table.delete())
        for table in tables:
            rows = there.execute(table.select()).mappings().all() if table.name in known else []
            if rows:
                here.execute(table.insert(), [dict(row) for row in rows])
            if "id" in table.columns:  # what is added next must not get an id that is taken
                counter = sqlalchemy.func.pg_get_serial_sequence(table.name, "id")
                last = sqlalchemy.func.max(table.c.id)
                here.execute(sqlalchemy.select(sqlalchemy.func.setval(counter, last)))


# --- Places


def path_of(where: str) -> Path | None:
    """Return the file, None if the database is on a server."""
    return Path(where.removeprefix("sqlite:///")) if where.startswith("sqlite") else None


def shown(where: str) -> str:
    """Return the place as it was set, without the password."""
    if path := path_of(where):
        return str(path)
    return sqlalchemy.make_url(where).set(drivername="postgresql", query={}).render_as_string()


def connect(where: str) -> sqlalchemy.Connection:
    """Return a connection that is not shared."""
    waiting = {} if path_of(where) else {"connect_timeout": 10}
    engine = sqlalchemy.create_engine(where, poolclass=sqlalchemy.NullPool, connect_args=waiting)
    return engine.connect()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a name for a new file, which takes the path's place at the end, if it comes to that."""
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        aside = Path(folder, path.name)
        yield aside
        aside.replace(path)


if __name__ == "__main__":
    main()
