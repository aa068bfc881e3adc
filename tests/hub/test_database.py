"""Test a hub whose database is damaged, missing, from another version or in PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import sqlalchemy
from hubs import IMAGE, PASSWORD, ClassHub, ClassLearner, post, run_cell, wait_until
from jupyterhub import orm
from postgres import Postgres

from tfcourse.hub import database
from tfcourse.hub.classroom import attempts, grades, progress, submissions
from tfcourse.hub.operations.backup import LIVE
from tfcourse.hub.tables import Assignment, Submission

SQLITE = "/srv/state/hub/jupyterhub.sqlite"


def in_state(hub: ClassHub, script: str, volumes: dict | None = None, **how: Any) -> str:
    """Run a script on the hub's state volume; the hub does not have to be running."""
    return hub.engine.containers.run(
        f"{IMAGE}:hub",
        ["sh", "-ec", script],
        volumes={f"{hub.name}_state": {"bind": "/srv/state", "mode": "rw"}, **(volumes or {})},
        remove=True,
        stderr=True,
        **how,
    ).decode()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return a folder that contains a hub's database and one copy of it."""
    monkeypatch.delenv("COURSE_DATABASE", raising=False)
    where = database.prepare(tmp_path)
    with database.connect(where) as connection, connection.begin():
        connection.execute(sqlalchemy.insert(database.orm.User).values(id=7, name="ada"))
    database.look_after(where, tmp_path)
    return tmp_path


def names(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM users")}


# --- Damaged


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(os.urandom(10_000))


def overwrite_in_the_middle(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 50_000)


def as_another_program_has_it(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")


def as_a_killed_upgrade_leaves_it(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.commit()


def as_docker_makes_what_is_missing(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [
    (overwrite, "file is not a database"),
    (overwrite_in_the_middle, "is damaged: "),
    (lambda path: os.truncate(path, 20_000), "is damaged: "),
    (lambda path: os.truncate(path, 0), "it holds no accounts"),
    (as_another_program_has_it, "it holds no accounts"),
    (as_a_killed_upgrade_leaves_it, "it does not say which version made it"),
    (as_docker_makes_what_is_missing, "it is a folder"),
    (lambda path: path.unlink(), "There is no database .*, but there was one"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
def test_a_damaged_database_ends_the_start_and_the_copy_brings_it_back(
    folder, capsys, damage, sentence
):
    path = folder / "jupyterhub.sqlite"
    damage(path)
    with pytest.raises(SystemExit, match=sentence) as end:
        database.prepare(folder)
    assert "recover` restores the last good copy." in str(end.value)
    database.recover(folder, replace=False, empty=False)
    assert "The accounts are as they were on 2" in capsys.readouterr().out
    database.prepare(folder)
    assert names(path) == {"ada"}
    database.recover(folder, replace=False, empty=False)
    assert "is intact; nothing was changed" in capsys.readouterr().out


def test_a_damaged_copy_is_passed_over_and_what_was_there_is_kept(folder):
    path = folder / "jupyterhub.sqlite"
    (good,) = database.copies(folder)
    shutil.copy(good, good.with_name("2026-01-01-x.sqlite"))  # dated later than `good`
    overwrite(good.with_name("2026-01-01-x.sqlite"))
    path.write_bytes(b"damaged")
    database.recover(folder, replace=False, empty=False)
    assert names(path) == {"ada"}
    assert [aside.read_bytes() for aside in folder.glob("jupyterhub.sqlite.*")] == [b"damaged"]


@pytest.mark.parametrize("damage", [Path.unlink, overwrite])
def test_nothing_of_the_old_database_is_applied_to_the_copy(folder, damage):
    """SQLite stores changes next to the database, in a rollback journal or a write-ahead log."""
    path = folder / "jupyterhub.sqlite"
    damage(path)
    database_and_others = {Path(name).name for name in LIVE}
    assert len(database_and_others) == 4
    for name in database_and_others - {path.name}:
        (folder / name).write_bytes(b"changes")
    database.recover(folder, replace=False, empty=False)
    assert names(path) == {"ada"}
    assert database_and_others & {each.name for each in folder.iterdir()} == {path.name}


def test_a_write_ahead_log_is_not_applied_to_the_copy(folder):
    path = folder / "jupyterhub.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE users SET name = 'since'")
        connection.commit()
        left = {end: Path(f"{path}{end}").read_bytes() for end in ("-wal", "-shm")}
    for end, content in left.items():  # as after a power cut
        Path(f"{path}{end}").write_bytes(content)
    path.unlink()
    database.recover(folder, replace=False, empty=False)
    database.prepare(folder)
    assert names(path) == {"ada"}


def test_copies_that_were_killed_leave_nothing_for_ever(folder):
    where = f"sqlite:///{folder / 'jupyterhub.sqlite'}"
    for parent in (folder, folder / "copies"):
        for name, age in {".part-old": 7200, ".part-running": 60}.items():
            (parent / name).mkdir()
            (parent / name / "jupyterhub.sqlite").write_bytes(b"half")
            then = time.time() - age
            os.utime(parent / name, (then, then))
    database.copy(where, folder)
    for parent in (folder, folder / "copies"):
        assert [path.name for path in parent.glob(".*")] == [".part-running"]


def test_a_copy_that_is_killed_leaves_what_the_next_one_removes(folder, monkeypatch):
    """The temporary folder's name matches the pattern of leftovers that the next copy removes."""
    path = folder / "jupyterhub.sqlite"
    with database.replacing(path) as aside:
        assert aside.parent.parent == folder
        assert aside.parent in folder.glob(".part-*")
        shutil.copy(path, aside)


def test_a_damaged_database_never_replaces_a_copy(folder, caplog):
    path = folder / "jupyterhub.sqlite"
    (good,) = database.copies(folder)
    os.utime(good, (0, 0))
    for damage in (overwrite, lambda path: path.unlink()):
        damage(path)
        database.look_after(f"sqlite:///{path}", folder)
        assert "The accounts' database is damaged: " in caplog.text
        caplog.clear()
        assert names(good) == {"ada"}


# --- Undamaged but unusable


def test_a_database_that_another_program_locks_is_not_called_damaged(folder, monkeypatch, caplog):
    path = folder / "jupyterhub.sqlite"
    monkeypatch.setattr(database, "TIMEOUT", 0.2)
    before = path.read_bytes()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for use in (
            lambda: database.prepare(folder),
            lambda: database.recover(folder, replace=False, empty=False),
            lambda: database.recover(folder, replace=True, empty=True),
            lambda: database.look_after(f"sqlite:///{path}", folder),
            lambda: database.state_of(f"sqlite:///{path}"),
        ):
            with pytest.raises(SystemExit, match="Another program keeps the database") as end:
                use()
            assert "recover" not in end.value.code
    assert "damaged" not in caplog.text
    assert path.read_bytes() == before
    database.prepare(folder)


def test_a_database_that_is_locked_for_a_moment_is_waited_for(folder):
    path = folder / "jupyterhub.sqlite"
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1, other.rollback)
        timer.start()
        database.prepare(folder)
        timer.join()


# This script runs as the hub's user, because root can write to any file.
AS_THE_HUB = """
import sys; from pathlib import Path; from tfcourse.hub import database
from tfcourse.hub.classroom import attempts, grades, progress, submissions
database.{what}
"""


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        ("chmod a-w jupyterhub.sqlite", "rw"),
        ("chmod a= jupyterhub.sqlite", "rw"),
        ("chown root jupyterhub.sqlite && chmod 600 jupyterhub.sqlite", "rw"),
        ("chmod a-w .", "rw"),
        ("chown root . && chmod 755 .", "rw"),
        ("true", "ro"),
    ],
)
@pytest.mark.parametrize(
    "what",
    ["prepare(Path('/hub'))", "recover(Path('/hub'), False, False)"],
    ids=["start", "recover"],
)
def test_a_database_that_cannot_be_written_gets_a_sentence(
    engine, image, folder, script, mode, what
):
    def run(command: list[str], mode: str, **how: Any) -> tuple[int, str]:
        volumes = {str(folder): {"bind": "/hub", "mode": mode}}
        started = engine.containers.run(
            image("hub"), command, volumes=volumes, working_dir="/hub", detach=True, **how
        )
        try:
            return started.wait(timeout=60)["StatusCode"], started.logs().decode()
        finally:
            started.remove(force=True)

    assert run(["sh", "-ec", f"chown -R 1000:1000 . && {script}"], "rw", user="root") == (0, "")
    before = (folder / "jupyterhub.sqlite").read_bytes()
    code, said = run(["python", "-c", AS_THE_HUB.format(what=what)], mode)
    assert code == 1
    assert "The database /hub/jupyterhub.sqlite cannot be written: " in said
    assert "have to belong to user 1000" in said
    assert "Traceback" not in said
    assert "make recover" not in said
    assert (folder / "jupyterhub.sqlite").read_bytes() == before
    assert not list(folder.glob("jupyterhub.sqlite?*"))


# --- Copies and wrong clocks

YEAR = 366 * 24 * 3600


def rename(path: Path, name: str) -> None:
    """Rename the only user in the database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE users SET name = ?", [name])
        connection.commit()


@pytest.mark.parametrize("off", [YEAR, -YEAR, 2 * 3600], ids=["ahead", "behind", "two hours"])
def test_a_clock_that_was_wrong_for_a_while_costs_no_copies(folder, off):
    """After the clock is corrected, the hub makes a new copy, which `recover` then uses."""
    path = folder / "jupyterhub.sqlite"
    where = f"sqlite:///{path}"
    (first,) = database.copies(folder)
    first.rename(first.with_name("2020-01-01-x.sqlite"))
    os.utime(first.with_name("2020-01-01-x.sqlite"), (1, 1))
    now = time.time()
    with freeze(now + off):
        rename(path, "while it was wrong")
        database.look_after(where, folder)
        (copy, _) = sorted(database.copies(folder))[::-1]
        os.utime(copy, (now + off, now + off))
        copy.rename(copy.with_name("2028-01-01-x.sqlite"))  # the date according to the wrong clock
    rename(path, "afterwards")
    database.look_after(where, folder)
    assert names(database.copies(folder)[0]) == {"afterwards"}
    assert len(database.copies(folder)) == 3
    path.unlink()
    database.recover(folder, replace=False, empty=False)
    assert names(path) == {"afterwards"}


@contextmanager
def freeze(moment: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: moment)
        yield


def test_a_copy_from_the_future_does_not_stop_others(folder):
    (only,) = database.copies(folder)
    only = only.rename(only.with_name("2099-01-01-x.sqlite"))
    os.utime(only, (time.time() + YEAR, time.time() + YEAR))
    rename(folder / "jupyterhub.sqlite", "now")
    database.look_after(f"sqlite:///{folder / 'jupyterhub.sqlite'}", folder)
    assert [names(copy) for copy in database.copies(folder)] == [{"now"}, {"ada"}]


def test_a_copy_from_the_future_is_not_kept_for_ever(folder):
    (good,) = database.copies(folder)
    future = shutil.copy(good, good.with_name("2099-01-01-x.sqlite"))
    os.utime(future, (time.time() + YEAR, time.time() + YEAR))
    for day in range(1, 7):
        old = shutil.copy(good, good.with_name(f"2026-01-{day:02}-x.sqlite"))
        os.utime(old, (day, day))
    assert database.copies(folder)[-1] == future
    database.copy(f"sqlite:///{folder / 'jupyterhub.sqlite'}", folder)
    assert future not in database.copies(folder)
    assert len(database.copies(folder)) == 7


def test_what_is_put_aside_in_the_same_second_is_all_kept(folder, monkeypatch):
    path = folder / "jupyterhub.sqlite"
    monkeypatch.setattr(database, "datetime", Stopped)
    for content in (b"first", b"second"):
        path.write_bytes(content)
        database.recover(folder, replace=False, empty=False)
    kept = {aside.read_bytes() for aside in folder.glob("jupyterhub.sqlite.*")}
    assert kept == {b"first", b"second"}


class Stopped(datetime):
    """A `datetime` class whose `now` always returns the same time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime(2026, 10, 25, 2, 30, tzinfo=tz)


def test_copies_are_kept_of_seven_days(folder):
    (good,) = database.copies(folder)
    for day in range(1, 10):
        old = shutil.copy(good, good.with_name(f"2026-01-{day:02}-x.sqlite"))
        os.utime(old, (day, day))
    os.utime(good, (10, 10))
    database.look_after(f"sqlite:///{folder / 'jupyterhub.sqlite'}", folder)
    kept = [path.name for path in database.copies(folder)]
    assert kept == [good.name, *(f"2026-01-{day:02}-x.sqlite" for day in range(9, 3, -1))]


def test_without_a_database_homes_are_not_for_the_next_one(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_DATABASE", raising=False)
    with pytest.raises(SystemExit, match=r"There is no database .*, but there was one"):
        database.prepare(tmp_path, homes=["course-home-ada"])
    with pytest.raises(SystemExit, match="There is no good copy"):
        database.recover(tmp_path, replace=False, empty=False)
    assert not list(tmp_path.iterdir())
    database.recover(tmp_path, replace=False, empty=True)
    database.prepare(tmp_path, homes=["course-home-ada"])


def test_a_full_disk_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_DATABASE", raising=False)
    database.prepare(tmp_path)
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(SystemExit, match="the hub's accounts is full"):
        database.prepare(tmp_path)


def test_a_hub_that_is_killed_while_it_makes_its_database_starts_again(tmp_path, monkeypatch):
    """A hub that is killed must not leave an incomplete database under the final file name."""
    monkeypatch.delenv("COURSE_DATABASE", raising=False)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(database.orm.Base.metadata, "create_all", killed)
    with pytest.raises(KeyboardInterrupt):
        database.prepare(tmp_path)
    monkeypatch.undo()
    monkeypatch.delenv("COURSE_DATABASE", raising=False)
    database.prepare(tmp_path)


@pytest.mark.parametrize(
    "text", ["sqlite:///x", "mysql://a:secret@b/c", "postgresql", "postgresql://a:secret@b:x/c"]
)
def test_a_database_that_cannot_be_gets_a_sentence(tmp_path, monkeypatch, text):
    monkeypatch.setenv("COURSE_DATABASE", text)
    with pytest.raises(SystemExit, match=r"^COURSE_DATABASE has to be empty or like") as end:
        database.prepare(tmp_path)
    assert "secret" not in str(end.value)


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a running hub with open sign-up."""
    hub = new_hub()
    hub.environment["COURSE_SIGNUP"] = "open"
    hub.up()
    return hub


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    """Return a learner with saved work."""
    hub.sign_up("ada")
    hub.admit = lambda name: None
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    ada.run("sh", "-c", "echo saved >~/saved")
    return ada


def test_a_hub_whose_database_is_damaged_under_it_says_so_and_is_recovered(hub, ada):
    wait_until(lambda: "copies" in in_state(hub, "ls /srv/state/hub"), "there is a copy")
    kernel = ada.start_kernel()
    assert run_cell(ada, kernel, "x = 42\nprint(x)") == "42\n"
    in_state(hub, f"dd if=/dev/urandom of={SQLITE} bs=1k count=50 conv=notrunc 2>&1")
    wait_until(
        lambda: "database is damaged" in hub.log("hub"), "the log reports the damage", seconds=100
    )
    hub.make("down")
    with pytest.raises(AssertionError) as failed:
        hub.up()
    sentence = f"The accounts' database is damaged: {SQLITE}: file is not a database."
    assert sentence in str(failed.value)
    assert "`make recover` restores the last good copy." in str(failed.value)
    assert "Traceback" not in str(failed.value)
    hub.make("recover")
    hub.up()
    # The copy was made before Ada signed up, but her home directory shows the hub that her user
    # name is taken.
    assert "once your instructor lets you in" in hub.sign_up("ada", "another horse 9")
    assert "Your instructor has to let" in hub.login("ada", "another horse 9").text
    hub.sign_up("grace")
    assert hub.login("grace", PASSWORD).url == f"{hub.url}/hub/spawn"
    # Her server is still running. When she is let in and presses Start, she has it back.
    container = ada.container.id
    hub.authorize("ada")
    again = ClassLearner(hub, "ada", "another horse 9")
    again.start_server()
    assert again.container.id == container
    assert run_cell(again, kernel, "print(x)") == "42\n"
    page = again.session.get(f"{hub.url}/user/ada/lab", timeout=30)
    assert page.url.startswith(f"{hub.url}/user/ada/lab")
    # The server's token stays valid if she changes her password.
    form = {"old_password": "another horse 9", "new_password": "a third horse 9"}
    form["new_password_confirmation"] = form["new_password"]
    post(again.session, f"{hub.url}/hub/change-password", data=form).raise_for_status()
    assert hub.login("ada", "a third horse 9").url.startswith(page.url)


# --- From another version


def test_a_database_of_a_newer_hub_gets_a_sentence(folder):
    path = folder / "jupyterhub.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(
        SystemExit, match="was made by a newer JupyterHub than this one, which is 5"
    ):
        database.prepare(folder)
    assert path.read_bytes() == before
    # Before returning to the older hub, restore the copy that was made before the upgrade.
    database.recover(folder, replace=False, empty=False)
    assert names(path) == {"ada"}
    assert [aside.read_bytes() for aside in folder.glob("jupyterhub.sqlite.*")] == [before]
    database.prepare(folder)


def test_a_newer_database_on_a_server_is_not_for_recover():
    """On a database server, `recover` restores accounts only into an empty database."""
    with pytest.raises(SystemExit, match="restore the server's own backup") as end:
        database.check_known("0123456789ab", "postgresql+psycopg://hub:secret@db.example.org/hub")
    assert "secret" not in end.value.code
    assert "recover" not in end.value.code


# The next two scripts create an older hub's data: two accounts, one of them an administrator's, and
# an API token.
OLD_CONFIG = """
from nativeauthenticator import NativeAuthenticator
c = get_config()
c.JupyterHub.authenticator_class = NativeAuthenticator
c.Authenticator.admin_users = {"ada"}
c.Authenticator.allowed_users = {"ada", "grace"}
"""
OLD = """
import asyncio, sys
from jupyterhub import orm
from jupyterhub.app import JupyterHub
from nativeauthenticator.orm import UserInfo

async def main():
    hub = JupyterHub()
    await hub.initialize([])
    for name in ("ada", "grace"):
        hub.authenticator.create_user(name, sys.argv[1])
        UserInfo.find(hub.db, name).is_authorized = True
    print("TOKEN", orm.User.find(hub.db, "grace").new_api_token(note="old"))
    hub.db.commit()

asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["100% course", "%(here)s", "100%%", "%s", "a b", "ä"])
def test_a_clone_in_a_folder_with_a_percent_sign_has_a_database(tmp_path, name):
    """Alembic treats a percent sign in its settings as the start of a placeholder."""
    code = f"""
import sys
from alembic.config import Config
from jupyterhub import dbutil
dbutil.ALEMBIC_DIR = "/home/ada/{name}/alembic"
from tfcourse.hub import database
from tfcourse.hub.classroom import attempts, grades, progress, submissions
dbutil.write_alembic_ini(sys.argv[1])
print(Config(sys.argv[1]).get_main_option("script_location"), database.ALEMBIC, sep="\\n")
"""
    printed = subprocess.check_output([sys.executable, "-c", code, tmp_path / "ini"], text=True)
    assert printed.splitlines() == [f"/home/ada/{name}/alembic"] * 2


@pytest.mark.network
@pytest.mark.parametrize(("version", "upgraded"), [("4.1", True), ("5.4", False)])
def test_accounts_of_an_older_hub_go_on(new_hub, tmp_path, version, upgraded):
    """JupyterHub 5.0 last changed the database schema, so a database from 5.4 needs no upgrade."""
    python = tmp_path / "environment" / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", python.parent.parent], check=True)
    packages = [f"jupyterhub=={version}.*", "jupyterhub-nativeauthenticator==1.3.*", "setuptools"]
    install = [uv, "pip", "install", "--quiet", "--python", python, *packages]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"JupyterHub {version} cannot be installed: {installed.stderr[-300:]}")
    (tmp_path / "jupyterhub_config.py").write_text(OLD_CONFIG)
    old = subprocess.run(
        [python, "-c", OLD, PASSWORD],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TOKEN" in old.stdout, old.stderr
    token = old.stdout.split()[-1]
    hub = new_hub()
    bring = f"install -D -o 1000 -g 1000 -m 600 /old/jupyterhub.sqlite {SQLITE}"
    bring += "; chown -R 1000:1000 /srv/state/hub"
    in_state(hub, bring, user="root", volumes={tmp_path: {"bind": "/old", "mode": "ro"}})
    hub.up()
    assert ("The database has been upgraded" in hub.log("hub")) is upgraded
    assert "Admin" in hub.login("ada").text
    assert hub.login("grace").url == f"{hub.url}/hub/spawn"
    assert "Invalid username" in hub.login("grace", "wrong").text
    headers = {"Authorization": f"token {token}"}
    user = requests.get(f"{hub.url}/hub/api/user", headers=headers, timeout=30)
    assert user.json()["name"] == "grace"
    if upgraded:  # the hub makes a copy before the upgrade
        assert "-0eee8c825d24.sqlite" in in_state(hub, "ls /srv/state/hub/copies")


# --- On a PostgreSQL server


@pytest.fixture(scope="module")
def server(engine) -> Iterator[Postgres]:
    """Return a PostgreSQL server that has not been started yet."""
    server = Postgres(engine)
    yield server
    server.remove()


@pytest.fixture(scope="module")
def kept(new_hub, server) -> ClassHub:
    """Return a hub that stores its accounts on the PostgreSQL server."""
    hub = new_hub()
    hub.environment["COURSE_DATABASE"] = server.url
    with pytest.raises(AssertionError) as failed:
        hub.up()
    said = str(failed.value)
    assert "The database postgresql://hub:***@127.0.0.1:" in said
    assert "Is its server running? The hub keeps trying to connect." in said
    assert "Traceback" not in said
    assert server.password not in said
    server.start()
    hub.up()
    return hub


@pytest.fixture(scope="module")
def grace(kept) -> ClassLearner:
    return ClassLearner(kept, "grace")


def test_a_server_that_is_restarted_is_found_again(kept, server, grace):
    server.container.restart()
    wait_until(server.answers, "the server answers")
    assert grace.api("GET", "/hub/api/user").json()["name"] == "grace"
    assert "Your instructor has to let" in (kept.sign_up("heidi"), kept.login("heidi").text)[1]


def test_a_server_is_not_asked_for_text_that_it_cannot_store(kept, grace):
    """Unlike PostgreSQL, SQLite can store NUL characters and text of any length."""
    tokens = f"{kept.url}/hub/api/users/grace/tokens"
    assert post(grace.session, tokens, json={"note": "a\0b"}).status_code == 400
    assert "A user name has at most" in kept.login("a\0b").text
    assert "A user name has at most" in kept.sign_up("a\0b")
    odd = f"{kept.url}/hub/change-password/a%00b"
    form = {"new_password": PASSWORD, "new_password_confirmation": PASSWORD}
    kept.admit("hal")  # log the administrator in
    assert post(kept.admin, odd, data=form).status_code in (400, 404)
    session = kept.login("grace").session
    session.cookies.set("jupyterhub-session-id", "x" * 300, path="/")
    service = f"{kept.url}/hub/api/oauth2/authorize?client_id=jupyterhub-user-grace"
    assert session.get(service, timeout=30).status_code < 500
    assert "Traceback" not in kept.log("hub")
    assert grace.api("GET", "/hub/api/user").json()["name"] == "grace"


def test_accounts_move_from_a_server_to_a_file_and_back(kept, server, grace, new_hub, tmp_path):
    file = tmp_path / "hub.tar.gz"
    kept.make("backup", BACKUP=str(file))
    other = new_hub()
    other.make("restore", BACKUP=str(file))
    other.up()  # this hub stores its accounts in an SQLite file
    assert other.login("grace").url == f"{other.url}/hub/spawn"
    ivan = ClassLearner(other, "ivan")
    other.make("backup", BACKUP=str(file))
    other.make("down")
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute("CREATE DATABASE other")
    other.environment["COURSE_DATABASE"] = server.url.replace("/postgres", "/other")
    with pytest.raises(AssertionError, match=r"/other, but there was one"):
        other.up()
    assert "The accounts are as they were" in other.make("recover")
    other.up()
    headers = {"Authorization": f"token {ivan.token}"}
    user = requests.get(f"{other.url}/hub/api/user", headers=headers, timeout=30)
    assert user.json()["name"] == "ivan"
    ClassLearner(other, "judy")  # judy's ID must not clash with an existing account's
    other.make("down")
    # Without this check, the hub would use the outdated SQLite file as its current database.
    other.environment["COURSE_DATABASE"] = ""
    with pytest.raises(AssertionError, match=r"jupyterhub\.sqlite, but there was one"):
        other.up()


def test_a_class_on_a_server(kept, server, tmp_path, monkeypatch):
    """Store and summarise attempts, submissions and grades in PostgreSQL; copy them and back."""
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute("CREATE DATABASE class")
    monkeypatch.setenv("COURSE_DATABASE", server.url.replace("/postgres", "/class"))
    where = database.url(tmp_path)
    with closing(orm.new_session_factory(where)()) as db:
        ada = orm.User(name="ada")
        db.add(ada)
        db.commit()
        sent = {"lesson": "03_build_a_model", "exercise": "count"}
        for number in range(5):
            mistake = f"You count {number}.\0\ud800" + "a" * 1000 * number
            attempts.store(db, ada, [{**sent, "key": f"{number:x}", "mistake": mistake}])
        attempts.store(db, ada, [{**sent, "key": "a", "exercise": "budget", "mistake": None}])
        view = progress.overview(db)
        assert [(each.name, each.done) for each in view["learners"]] == [
            ("ada", {"03_build_a_model": 1})
        ]
        assert [row[:3] for row in view["stuck"]] == [("ada", "03_build_a_model", "count")]
        assert view["stuck"][0][4].startswith("You count 4.  aaa")
        assert [row[0] for row in view["frequent"]] == [1] * len(view["frequent"])
        week = submissions.create(db, "Week", ["05_loss"], "2999-01-01")
        upload = submissions.checked(zlib.compress(b'{"cells": []}'))
        submission = submissions.store(db, week, ada, "05_loss", upload)
        path = grades.path_in_archive(ada, "05_loss", upload.digest)
        table = f"submission,lesson,exercise,right,says\n{path},05_loss,guess,1,\n"
        assert grades.take(db, week, table.encode()) == (1, 0)
        submission.comment = "Good"
        db.commit()
        rows = grades.as_csv(db, week)
    assert "ada,1,1,0,Good" in rows
    copy = tmp_path / "copy.sqlite"
    database.copy_rows(where, copy)
    with closing(orm.new_session_factory(where)()) as db:
        db.delete(orm.User.find(db, "ada"))
        db.commit()
        assert attempts.statuses(db) == {}
        assert "ada" not in grades.as_csv(db, db.query(Assignment).one())
    database.fill(f"sqlite:///{copy}", where)
    with closing(orm.new_session_factory(where)()) as db:
        assert grades.as_csv(db, db.query(Assignment).one()) == rows
        assert zlib.decompress(db.query(Submission).one().content) == b'{"cells": []}'
        assert progress.overview(db)["stuck"] == view["stuck"]


def test_accounts_on_a_server_are_not_overwritten_unless_that_is_wanted(kept, grace, tmp_path):
    file = tmp_path / "hub.tar.gz"
    kept.make("backup", BACKUP=str(file))
    kept.admit("kim")
    kept.make("down")
    with pytest.raises(AssertionError, match=r"The database postgresql.* already has accounts"):
        kept.make("restore", BACKUP=str(file))
    said = kept.make("restore", BACKUP=str(file), REPLACE="1")
    Path(said.partition("The backup is complete: ")[2].split()[0]).unlink()
    kept.up()
    assert kept.login("grace").url == f"{kept.url}/hub/spawn"
    assert "Invalid username" in kept.login("kim").text
